"""Hand-written stand-ins, and builders that need only what a test is about."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import tzinfo
from queue import Empty, SimpleQueue
from typing import Any

from beatd import event_log
from beatd.brokers.base import Broker
from beatd.brokers.items import Emission, Emitted, HeldLead, Outcome, Term, idle
from beatd.brokers.memory import MemoryBroker
from beatd.clock import Clock, Wake
from beatd.errors import BrokerUnavailable
from beatd.instant import MINUTE, SECOND, Instant, Span
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.scheduler.leadership import Leadership
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.succession import Succession
from beatd.scheduler.takeover import Takeover
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry, Policy
from beatd.timetable.ledger import NO_EDITION, Edition, LedgerCopy, Mark
from beatd.timetable.timetable import Timetable

NOON: Instant = 1_800_014_400_000
"""2027-01-15T12:00:00Z, a Friday."""


class FakeClock:
    """A clock whose waiting takes no time; it says STOP at `end`."""

    def __init__(self, now: Instant = NOON, end: Instant | None = None) -> None:
        self.time = now
        self.end = end
        self.passed: Span = 0

    def now(self) -> Instant:
        return self.time

    def elapsed(self) -> Span:
        return self.passed

    def go_to(self, instant: Instant) -> None:
        """Let time pass until `instant`."""
        self.passed += max(0, instant - self.time)
        self.time = max(self.time, instant)

    def step(self, length: Span) -> None:
        """Set the wall clock, as an administrator does; no time passes."""
        self.time += length

    def wait(self, inbox: SimpleQueue[Wake], until: Instant, at_most: Span) -> Wake:
        try:
            return inbox.get_nowait()
        except Empty:
            until = min(until, self.time + max(at_most, 0))
            if self.end is not None and max(until, self.time) >= self.end:
                self.go_to(self.end)
                return Wake.STOP
            self.go_to(until)
            return Wake.ON_TIME


class FlakyBroker(MemoryBroker):
    """A broker in memory that can be down, or lose its answers."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.down = False
        self.loses_answers = False
        self.emitted: list[Emission] = []
        # As in use: at one that is new, a first leader waits for a former one.
        self._edition = Edition("before", 1)

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        self._answer()
        return super().acquire(holder, ttl, floor)

    def renew(self, term: Term, ttl: Span) -> bool:
        self._answer()
        return super().renew(term, ttl)

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        self._answer()
        return super().read_ledger(on_part)

    def write_ledger(
        self,
        term: Term,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        self._answer()
        super().write_ledger(term, marks, gone, era, edition, page)

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        self._answer()
        outcomes = super().emit(term, batch, ttl, edition, page)
        self.emitted += [
            emission
            for emission, outcome in zip(batch, outcomes, strict=True)
            if outcome is Outcome.QUEUED
        ]
        if self.loses_answers:
            raise BrokerUnavailable("the connection was cut")
        return outcomes

    def lose_all(self) -> None:
        """Forget everything, like a server that comes back without its data."""
        self.__dict__.update(vars(MemoryBroker(self._clock)))

    def snapshot(self) -> dict[str, Any]:
        """Return what a server would write to its disk; the messages lie elsewhere."""
        kept = ("_term", "_holder", "_lead_ends", "_era", "_edition", "_page")
        return {
            "_ledger": dict(self._ledger),
            "_rows": dict(self._rows),
            "_pages": self._pages[:],
            "_notes": dict(self._notes),
            **{name: getattr(self, name) for name in kept},
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Be as the server was when it wrote the snapshot."""
        copied = ("_ledger", "_rows", "_pages", "_notes")
        own = {name: copy(snapshot[name]) for name in copied}
        self.__dict__.update(snapshot | own)

    def slots(self, entry: str | None = None) -> list[Instant]:
        """Return the slots that were queued, in order."""
        return [
            emission.mark.slot
            for emission in self.emitted
            if entry in (None, emission.entry)
        ]

    def _answer(self) -> None:
        if self.down:
            raise BrokerUnavailable("nobody answers")


class FakeFile:
    """A schedule file in memory."""

    def __init__(self) -> None:
        self.marks: dict[str, Mark] = {}
        self.dropped: dict[tuple[str, str], int] = {}
        self.refused: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.config = ""
        self.over: set[str] | None = None
        self.era = 0
        self.edition = NO_EDITION
        self.uncertain: list[tuple[str, Instant]] = []
        self.kept: dict[str, dict[str, Mark]] = {}
        """By lineage, the rows of files that were kept under its name."""
        self.term = 0
        self.locked = False

    def try_lock(self) -> bool:
        self.locked = True
        return True

    def unlock(self) -> None:
        self.locked = False

    def read(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        return LedgerCopy(dict(self.marks), self.era, self.edition)

    def keep_as(self, lineage: str) -> None:
        self.kept[lineage] = self.marks
        self.marks, self.era, self.edition = {}, 0, NO_EDITION

    def highest_term(self) -> int:
        return self.term

    def rewrite(
        self,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        term: int,
        edition: Edition = NO_EDITION,
        on_part: Callable[[], object] = idle,
    ) -> None:
        for name in gone:
            self.marks.pop(name, None)
        self.marks.update(marks)
        self.era, self.edition, self.term = era, edition, term
        self.refused, self.held = {}, {}

    def record(
        self,
        marks: Mapping[str, Mark],
        dropped: Mapping[tuple[str, str], int],
        version: int | None = None,
    ) -> None:
        self.marks.update(marks)
        if version is not None:
            self.edition = self.edition._replace(version=version)
        for key, number in dropped.items():
            self.dropped[key] = self.dropped.get(key, 0) + number

    def note_uncertain(self, slots: Mapping[str, Sequence[Instant]]) -> None:
        for name, some in slots.items():
            self.uncertain += [(name, slot) for slot in some]

    def note_config(self, digest: str) -> None:
        self.config = digest

    def note_over(
        self, over: Collection[str], entries: Collection[str]
    ) -> Collection[str]:
        before, self.over = self.over, {*(self.over or ())} - {*entries} | {*over}
        return () if before is None else {*over} - before

    def note_refused(self, refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)

    def note_held(self, held: Mapping[str, str]) -> None:
        self.held = dict(held)

    def flush(self) -> None:
        pass


@dataclass(eq=False)
class CountedSchedule:
    """Every minute, counting how often it is asked."""

    fingerprint: str = "counted"
    wildcard: bool = True
    asked: list[str] = field(default_factory=list)

    def next_after(self, instant: Instant) -> Instant | None:
        self.asked.append("next_after")
        return Every(MINUTE).next_after(instant)

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        self.asked.append("last_until")
        return Every(MINUTE).last_until(instant, since)

    def count(self, first: Instant, last: Instant) -> int:
        self.asked.append("count")
        return Every(MINUTE).count(first, last)


PLAIN = template(MessageFormat(), Route("celery"), "tasks.plain")


def entry(
    name: str,
    schedule: Schedule,
    *,
    offset: Span = 0,
    policy: Policy | None = None,
    **values: Any,
) -> Entry:
    """Build an entry whose message does not matter; its policy has these values."""
    policy = policy or Policy(**values)
    return Entry(name, schedule, PLAIN, policy=policy, offset=offset)


TTL: Span = 5 * SECOND
"""How long the lead of a test's scheduler lives."""


def scheduler_of(
    *entries: Entry,
    broker: Broker,
    clock: Clock,
    file: FakeFile | None = None,
    ttl: Span = TTL,
    resend: bool = False,
) -> Scheduler:
    """Build a scheduler of these entries."""
    file = file or FakeFile()
    timetable = Timetable()
    leadership = Leadership(broker, clock, "here", ttl)
    takeover = Takeover(
        Succession({one.name: one for one in entries}, timetable),
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        resend=resend,
    )
    return Scheduler(
        takeover=takeover,
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        namespace="test",
    )


@contextmanager
def times_shown_in(zone: tzinfo) -> Iterator[None]:
    """Show times of log lines in this zone for the block's time."""
    before = event_log.zone()
    event_log.show_times_in(zone)
    try:
        yield
    finally:
        event_log.show_times_in(before)
