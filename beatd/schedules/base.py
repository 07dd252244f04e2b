"""What every schedule can say."""

from typing import Protocol

from beatd.instant import Instant


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
        """Whether slots follow the clock's hands, so that a step back repeats them.

        True for intervals and for wildcard cron jobs, false for fixed times (cronie).
        """
        ...

    def __hash__(self) -> int: ...

    def next_after(self, instant: Instant) -> Instant | None:
        """Give the first slot later than `instant`; None when there is none.

        Where slots count from the previous run (`every(..., align=False)`, Celery's
        `relative`), `instant` is that run.
        """
        ...

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        """Give the last slot in `(since, instant]`; None when there is none.

        Where slots count from the previous run, `since` is that run.
        """
        ...
