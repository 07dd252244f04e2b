"""The questions that every schedule answers."""

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from beatd.instant import Instant

STEPS = 1000
"""The largest number up to which slots are counted one by one."""


class Schedule(Protocol):
    """The instants at which something is due: its slots.

    A schedule is a value. It knows its time zone, reads no clock, and gives the same
    answers in every process; `next_after` never raises and never takes long.
    """

    @property
    def fingerprint(self) -> str:
        """A short text that is equal exactly for schedules that name the same slots.

        It holds the zone, and is the same in every process and release.
        """
        ...

    @property
    def wildcard(self) -> bool:
        """Whether slots follow the clock's hands, so that setting it back repeats them.

        True for intervals and for wildcard cron jobs, false for fixed times (cronie).
        """
        ...

    def __hash__(self) -> int: ...

    def next_after(self, instant: Instant) -> Instant | None:
        """Return the first slot later than `instant`; None when there is none.

        Where slots count from the previous run (`every(..., align=False)`, Celery's
        `relative`), `instant` is that run.
        """
        ...

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        """Return the last slot in `(since, instant]`; None when there is none.

        Where slots count from the previous run, `since` is that run.
        """
        ...

    def count(self, first: Instant, last: Instant) -> int:
        """Count the slots from the slot `first` to the slot `last`, both included.

        Schedules that can only go from slot to slot stop after STEPS of them.
        """
        ...


def slots_between(
    schedule: Schedule, first: Instant, last: Instant
) -> Iterator[Instant]:
    """Yield the slots from the slot `first` to the slot `last`, both included."""
    slot: Instant | None = first
    while slot is not None and slot <= last:
        yield slot
        slot = schedule.next_after(slot)


def step_count(schedule: Schedule, first: Instant, last: Instant) -> int:
    """Count as `Schedule.count` does, by going from slot to slot."""
    return sum(1 for _ in islice(slots_between(schedule, first, last), STEPS))
