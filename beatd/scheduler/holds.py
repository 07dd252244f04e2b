"""Entries whose slots wait for a run, or are dropped for it: said when that lasts."""

from collections.abc import Callable, Container
from dataclasses import dataclass

from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import SECOND, Instant, Span
from beatd.scheduler.run_ends import Busy
from beatd.schedules.base import Schedule
from beatd.text import counted
from beatd.timetable.entry import Due
from beatd.timetable.pages import Record, Told, What
from beatd.timetable.policy import Decision, Reason

tell = EventLog(__name__)

LASTING = 10
"""Slots in a row that are dropped, and periods of a hold, after which something is
wrong with the run."""


@dataclass(slots=True)
class _Hold:
    """What happened to one entry since its run was first found to go on."""

    run: str
    since: Span
    latest: Instant | None
    """The slot up to which it is no problem; None if the entry has no such slot."""
    is_said: bool = False
    dropped: int = 0
    problem: str = ""

    def lasts(self, now: Instant) -> bool:
        """Return whether it is a problem by now."""
        return self.latest is not None and now > self.latest


class Holds:
    """The entries that wait for their runs just now.

    They are kept in memory only: whoever leads next finds them anew.
    """

    def __init__(self, clock: Clock, on_end: Callable[[Told], object]) -> None:
        """`on_end` is called with what the history has to know of one that is over."""
        self._clock = clock
        self._on_end = on_end
        self.changed = False
        """Whether problems came, went or grew since this was last set to False."""
        self._holds: dict[str, _Hold] = {}

    def __bool__(self) -> bool:
        return bool(self._holds)

    def problems(self) -> dict[str, str]:
        """Return by entry what is wrong, for those that have waited for too long."""
        return {name: one.problem for name, one in self._holds.items() if one.problem}

    def note(self, due: Due, decision: Decision, busy: Busy, now: Instant) -> None:
        """Take note of what was decided of an entry."""
        name = due.entry.name
        run = busy.runs.get(name)
        if run is None or decision.over or decision.drops(Reason.PAUSED):
            self._end(due, now)
        elif name not in busy.unsure:
            hold = self._holds.get(name)
            if hold is None:
                latest = _slot_after(due.entry.schedule, _first(due), LASTING)
                hold = self._holds[name] = _Hold(run, self._clock.elapsed(), latest)
            if decision.until is None:
                self._held(name, hold, now)
            elif hold.dropped < LASTING and hold.lasts(now):
                # Who led before counted the rest of the drops.
                words = "none of its slots was let through for more than"
                self._meet(name, hold, f"{words} {LASTING} of its periods")

    def dropped(self, entry: str, number: int) -> None:
        """Take note of so many slots that were dropped for the overlap rule."""
        if hold := self._holds.get(entry):
            hold.dropped += number
            if hold.dropped >= LASTING:
                what = f"{hold.dropped} slots in a row were dropped"
                self._meet(entry, hold, what)

    def keep(self, entries: Container[str]) -> None:
        """Forget all but these entries."""
        self.changed = bool(self.problems())  # a term began, or ended, without a word
        self._holds = {
            name: one for name, one in self._holds.items() if name in entries
        }

    def _held(self, entry: str, hold: _Hold, now: Instant) -> None:
        if not hold.is_said:
            hold.is_said = True
            words = "%s is held until its run %s has ended"
            tell.info("hold.begin", words, entry, hold.run, entry=entry, run=hold.run)
        if hold.lasts(now):
            self._meet(entry, hold, f"held for more than {LASTING} of its periods")

    def _meet(self, entry: str, hold: _Hold, what: str) -> None:
        """Take note of a problem; say it once."""
        before = hold.problem
        hold.problem = (
            f"{what}, as its run {hold.run} has not ended; look what became of that"
            " run, or give the entry an overlap_timeout"
        )
        self.changed = self.changed or hold.problem != before
        if not before:
            words = "%s: %s"
            tell.warning(
                "hold.lasts", words, entry, hold.problem, entry=entry, run=hold.run
            )

    def _end(self, due: Due, now: Instant) -> None:
        entry = due.entry.name
        hold = self._holds.pop(entry, None)
        if hold is not None and hold.is_said:
            why = f"its run {hold.run}"
            self._on_end((entry, Record(due.slot, now - due.slot, What.HELD, why=why)))
        if hold is not None and hold.problem:
            self.changed = True
            tell.warning(
                "hold.end",
                "%s goes on: it had waited for %.1f s for its run %s; dropped"
                " meanwhile: %s",
                entry,
                (self._clock.elapsed() - hold.since) / SECOND,
                hold.run,
                counted(hold.dropped, "slot"),
                entry=entry,
                run=hold.run,
            )


def _first(due: Due) -> Instant:
    """Return the first slot that is not let through.

    That is the one after the slot of the run, whoever decided of those since then.
    """
    last = due.mark.last
    after = None if last is None else due.entry.schedule.next_after(last)
    return due.slot if after is None else min(after, due.slot)


def _slot_after(schedule: Schedule, slot: Instant, number: int) -> Instant | None:
    """Return the slot that comes so many after this one, if there are so many."""
    at: Instant | None = slot
    for _ in range(number):
        at = None if at is None else schedule.next_after(at)
    return at
