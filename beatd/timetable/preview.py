"""What runs next: the timetable and the policies, asked before the time has come."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

from beatd.instant import Instant, Span
from beatd.schedules.base import Schedule
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Mark
from beatd.timetable.policy import decide
from beatd.timetable.timetable import CLOCK_TOLERANCE, Timetable

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class ComingRuns:
    """The coming runs of an entry; equal values stand for equal runs.

    They are told as if each run ended before the next one is due: an overlap rule
    may still hold or drop some.
    """

    schedule: Schedule
    offset: Span
    now: Instant
    overdue: int
    """How many runs are emitted at `now`, for slots of the past."""
    slot: Instant | None
    """The first slot that is still to come; None when no run follows."""
    end: Instant | None
    """No slot after this instant runs."""
    left: int | None
    """How many runs may follow the overdue ones; None: any number."""

    def since(self, begin: Instant) -> Iterator[Instant]:
        """Yield the instants, from `begin` on, at which the entry will be emitted."""
        if begin <= self.now:
            yield from repeat(self.now, self.overdue)
        for slot in islice(self._slots(begin - self.offset), self.left):
            if slot + self.offset >= begin:
                yield slot + self.offset

    def first(self) -> Instant | None:
        """Return the instant of the first run; None when the entry runs no more."""
        return next(self.since(self.now), None)

    def _slots(self, begin: Instant) -> Iterator[Instant]:
        """Yield the slots to come; where `left` sets no limit, only from `begin` on."""
        slot = self.slot
        if slot is not None and slot < begin and self.left is None:
            # One step, where going from slot to slot could take millions of steps.
            passed = self.schedule.last_until(begin - 1, slot) or slot
            slot = self.schedule.next_after(passed)
        while slot is not None and (self.end is None or slot <= self.end):
            yield slot
            slot = self.schedule.next_after(slot)


def preview(
    entries: Sequence[Entry], marks: Mapping[str, Mark], now: Instant
) -> dict[str, ComingRuns]:
    """Return the coming runs of each entry, by its name.

    They are the runs of a scheduler that takes the lead at `now`, finds these marks in
    the ledger, and is never late from then on.
    """
    timetable = Timetable()
    timetable.place(entries, marks, now)
    timetable.rewind(now, CLOCK_TOLERANCE)
    overdue = _catch_up(timetable, now)
    return {
        entry.name: _coming(entry, timetable, now, overdue[entry.name])
        for entry in entries
    }


def _catch_up(timetable: Timetable, now: Instant) -> Counter[str]:
    """Decide all that is due, as a scheduler does; return the emissions by entry."""
    emitted: Counter[str] = Counter()
    while batch := timetable.due(now, _BATCH):
        for due in batch:
            # All at once: each decision looks at every slot that is overdue.
            most = due.entry.policy.max_catchup
            decision = decide(due, now, busy=False, at_most=most)
            for entry in due.entries:
                emitted[entry.name] += len(decision.emit)
            timetable.apply(due, decision, look_again=now)
    return emitted


def _coming(
    entry: Entry, timetable: Timetable, now: Instant, overdue: int
) -> ComingRuns:
    """Return an entry's runs once nothing is due: each slot is then emitted in time."""
    policy = entry.policy
    left = None
    if policy.max_runs is not None:
        left = max(policy.max_runs - timetable.mark(entry.name).runs, 0)
    slot = timetable.slot(entry.name) if policy.enabled else None
    return ComingRuns(
        entry.schedule, entry.offset, now, overdue, slot, policy.end, left
    )
