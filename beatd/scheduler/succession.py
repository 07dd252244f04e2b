"""The config in force, and those that are to take its place."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from beatd.event_log import EventLog, stamp
from beatd.instant import Instant
from beatd.routing import Queue
from beatd.scheduler.reload import NewConfig
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Edition, Mark
from beatd.timetable.timetable import Timetable

tell = EventLog(__name__)

MOST_WAITING = 10
"""Configs that wait at most until all is done by those before them."""


@dataclass
class Succession:
    """The config by which this process goes, and those that follow, in their order."""

    entries: Mapping[str, Entry]
    timetable: Timetable
    keep: Collection[str] = ()
    """Names of entries that cannot be read now: their ledger rows stay."""
    queues: Collection[Queue] = ()
    """The queues that the config declares."""

    waiting: deque[NewConfig] = field(default_factory=deque, init=False)
    """The configs to go over to, one after another."""
    since: Instant | None = field(default=None, init=False)
    """From when the config holds, while no term has begun with it."""
    over: set[str] = field(default_factory=set, init=False)
    """Entries that this config, or its beginning, finds to be over: to be said."""

    @property
    def last(self) -> Mapping[str, Entry]:
        """The entries by which this process goes once it has gone over to all."""
        return self.waiting[-1].entries if self.waiting else self.entries

    @property
    def all_kept(self) -> set[str]:
        """The names that any of the configs keeps."""
        return set(self.keep).union(*(new.keep for new in self.waiting))

    def add(self, new: NewConfig) -> None:
        """Go over to this config after all that wait; the last may give way to it.

        For what holds them up may last, and each may be large.
        """
        if len(self.waiting) == MOST_WAITING:
            last = self.waiting.pop()
            new = replace(new, at=last.at, led_elsewhere=last.led_elsewhere)
            tell.warning(
                "reload.merged",
                "%d new configs wait already: the last of them gives way to this one,"
                " which holds from %s on in its place",
                MOST_WAITING,
                stamp(last.at),
            )
        self.waiting.append(new)

    def go_over(self) -> None:
        """Use the next config from the next beginning on."""
        new = self.waiting.popleft()
        self.over |= new.ended_early(self.timetable)
        self.entries, self.keep, self.queues = new.entries, new.keep, new.queues
        self.since = new.at

    def leave_out(self, ledger: Edition, ours: Edition, now: Instant) -> None:
        """If others have led, and made this ledger, go over only to the last config.

        That holds once this process leads. Of those before, the latest is needed: the
        others may go by it still.
        """
        if not ledger.lineage or (
            ledger.lineage == ours.lineage and ledger.version <= ours.version + 1
        ):
            return  # the version after ours may be a write without an answer
        self._pass_over(len(self.waiting) - 1)
        self.waiting = deque(new.left_until(now) for new in self.waiting)

    def follow_leader(self) -> None:
        """Go over to the last config: the leader has, and did all before it.

        What a dead leader leaves is then for the rules of that config: a pause of
        yesterday lets no slot through today.
        """
        self._pass_over(len(self.waiting))

    def _pass_over(self, number: int) -> None:
        """Use the config after so many others, with which this process never led."""
        for _ in range(number):
            self.go_over()
            self.since = None

    def entries_by(self, marks: Mapping[str, Mark]) -> Mapping[str, Entry]:
        """Return the entries to begin a term with, by the marks of the ledger."""
        if self.waiting:
            return self.waiting[0].until_it_holds(self.entries, marks)
        return self.entries
