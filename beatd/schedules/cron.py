"""Cron schedules: the instants at which a local clock shows the times of an expression.

When clocks change, cronie's rule decides. A *wildcard* job (its minute, hour or seconds
field begins with a star) follows the hands of the clock: it runs whenever they show a
time that matches. A *fixed* job runs once for each time that it names: at the first of
two passes, and as soon as the clock goes on when the time is skipped.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from zoneinfo import ZoneInfo

from beatd.instant import DAY, Instant
from beatd.schedules.fields import Fields
from beatd.schedules.local_times import LocalTimes
from beatd.schedules.zones import Local, LocalClock, Stretch, local_clock


@dataclass(frozen=True, slots=True)
class Cron:
    """The slots of a cron expression, or of Celery's crontab, in one time zone."""

    fields: Fields = field(compare=False)
    zone: ZoneInfo = field(compare=False)
    fingerprint: str = field(init=False)
    times: LocalTimes = field(init=False, compare=False, repr=False)
    _clock: LocalClock = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        times = _local_times(self.fields)
        follows = "wildcard" if self.fields.wildcard else "fixed"
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "_clock", local_clock(self.zone))
        object.__setattr__(
            self, "fingerprint", f"cron {follows} {times.digest} {self.zone}"
        )

    @property
    def wildcard(self) -> bool:
        return self.fields.wildcard

    def next_after(self, instant: Instant) -> Instant | None:
        if self.fields.wildcard:
            return self._next_reading(instant)
        stretch = self._clock.stretch(instant)
        local = self.times.at_or_after(
            max(instant + 1 + stretch.offset, stretch.unread)
        )
        if local is None:
            return None
        slot = local - stretch.offset
        return slot if slot < stretch.end else self._first_run(local)

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        if self.fields.wildcard:
            return self._last_reading(instant, since)
        stretch = self._clock.stretch(instant)
        local = self.times.at_or_before(
            max(instant + stretch.offset, stretch.unread - 1)
        )
        while local is not None:
            slot = self._clock.run_at(local)
            if slot is not None:
                return slot if slot > since else None
            local = self.times.at_or_before(local // DAY * DAY - 1)
        return None

    def count(self, first: Instant, last: Instant) -> int:
        number, at = 0, first
        while at <= last:
            stretch = self._clock.stretch(at)
            begin, end = (
                at + stretch.offset,
                min(stretch.end, last + 1) + stretch.offset,
            )
            if not self.fields.wildcard:
                number += self._makes_up(stretch, at)
                begin = max(begin, stretch.unread)
            if begin < end:
                number += self.times.count(begin, end)
            at = stretch.end
        return number

    def _makes_up(self, stretch: Stretch, at: Instant) -> bool:
        """Return whether the slot at `at` only stands for times the clock skipped."""
        reading = at + stretch.offset
        return (
            at == stretch.start
            and stretch.unread < reading
            and self._first_run(self.times.at_or_after(stretch.unread)) == at
            and self.times.at_or_after(reading) != reading
        )

    def _first_run(self, local: Local | None) -> Instant | None:
        """Return the slot of the first matching time from `local` on that has one."""
        while local is not None:
            slot = self._clock.run_at(local)
            if slot is not None:
                return slot
            local = self.times.at_or_after(local // DAY * DAY + DAY)
        return None

    def _next_reading(self, instant: Instant) -> Instant | None:
        """Return the first instant after `instant` at which the clock shows a match."""
        at = instant + 1
        while True:
            stretch = self._clock.stretch(at)
            local = self.times.at_or_after(at + stretch.offset)
            if local is not None and local - stretch.offset < stretch.end:
                return local - stretch.offset
            # Offsets are less than a day: no match can come sooner than this.
            local = self.times.at_or_after(stretch.end - DAY)
            if local is None:
                return None
            at = max(stretch.end, local - DAY)

    def _last_reading(self, instant: Instant, since: Instant) -> Instant | None:
        """Return the last instant in `(since, instant]` with a match on the clock."""
        at = instant
        while at > since:
            stretch = self._clock.stretch(at)
            local = self.times.at_or_before(at + stretch.offset)
            if local is not None and local - stretch.offset >= stretch.start:
                slot = local - stretch.offset
                return slot if slot > since else None
            local = self.times.at_or_before(stretch.start - 1 + DAY)
            if local is None:
                return None
            at = min(stretch.start - 1, local + DAY)
        return None


@lru_cache(maxsize=4096)
def _local_times(fields: Fields) -> LocalTimes:
    return LocalTimes(fields)
