"""Intervals: counted from the epoch, or from the previous run as Celery counts them."""

from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from beatd.bounds import LONGEST
from beatd.errors import ScheduleError
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span
from beatd.schedules.base import step_count
from beatd.schedules.zones import LocalClock, local_clock


@dataclass(frozen=True, slots=True)
class Every:
    """A slot every so often, counted from the Unix epoch plus an offset.

    Every process agrees on it without knowing when anything ran.
    """

    every: Span
    offset: Span = 0

    def __post_init__(self) -> None:
        _check(self.every)
        if not 0 <= self.offset < self.every:
            raise ScheduleError(
                "offset",
                f"expected a phase of 0 to less than {self.every / SECOND:g} seconds,"
                f" got {self.offset / SECOND:g}",
            )

    @property
    def fingerprint(self) -> str:
        return f"every {self.every} {self.offset}"

    @property
    def wildcard(self) -> bool:
        return True

    def next_after(self, instant: Instant) -> Instant:
        return instant + self.every - (instant - self.offset) % self.every

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        last = instant - (instant - self.offset) % self.every
        return last if last > since else None

    def count(self, first: Instant, last: Instant) -> int:
        return (last - first) // self.every + 1


@dataclass(frozen=True, slots=True)
class EveryFromLast:
    """A slot `every` after the previous run, whatever the clocks do in between."""

    every: Span

    def __post_init__(self) -> None:
        _check(self.every)

    @property
    def fingerprint(self) -> str:
        return f"every {self.every} from last"

    @property
    def wildcard(self) -> bool:
        return True

    def next_after(self, instant: Instant) -> Instant:
        return instant + self.every

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        runs = (instant - since) // self.every
        return since + runs * self.every if runs > 0 else None

    def count(self, first: Instant, last: Instant) -> int:
        return (last - first) // self.every + 1


@dataclass(frozen=True, slots=True)
class EveryRounded:
    """Celery's `relative`: `every` after the previous run, rounded down.

    The instant is rounded to the largest unit that is no longer than the interval: to
    local midnight, or to the local hour, minute or second.
    """

    every: Span
    zone: ZoneInfo = field(compare=False)
    _clock: LocalClock = field(init=False, compare=False, repr=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        _check(self.every)
        object.__setattr__(self, "_clock", local_clock(self.zone))
        object.__setattr__(
            self, "fingerprint", f"every {self.every} relative {self.zone}"
        )

    @property
    def wildcard(self) -> bool:
        return True

    def next_after(self, instant: Instant) -> Instant:
        unit = _unit(self.every)
        if unit == DAY:
            return self._midnight_after(instant)
        slot = instant + self.every
        return slot - self._clock.local(slot) % unit

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        last = None
        slot = self.next_after(since)
        while slot <= instant:
            last = self._last_on_grid(slot, instant)
            slot = self.next_after(last)
        return last

    def count(self, first: Instant, last: Instant) -> int:
        return step_count(self, first, last)

    def _last_on_grid(self, slot: Instant, instant: Instant) -> Instant:
        """Return the last slot up to `instant` that even steps from `slot` reach."""
        unit = _unit(self.every)
        stretch = self._clock.stretch(slot)
        if unit == DAY or (slot + stretch.offset) % unit:
            return slot
        step = self.every - self.every % unit
        return slot + (min(instant, stretch.end - 1) - slot) // step * step

    def _midnight_after(self, instant: Instant) -> Instant:
        midnight = (self._clock.local(instant) + self.every) // DAY * DAY
        slot = self._clock.first_at(midnight).instant
        while slot <= instant:  # the clock went back over this midnight
            midnight += DAY
            slot = self._clock.first_at(midnight).instant
        return slot


def _unit(every: Span) -> Span:
    """Return the unit to which Celery rounds down."""
    return next((unit for unit in (DAY, HOUR, MINUTE, SECOND) if every >= unit), 1)


def _check(every: Span) -> None:
    if every <= 0:
        raise ScheduleError(
            "every", f"expected more than 0 seconds, got {every / SECOND:g}"
        )
    if every > LONGEST * SECOND:
        raise ScheduleError(
            "every",
            f"expected at most {LONGEST} seconds (a hundred years),"
            f" got {every / SECOND:g}",
        )
