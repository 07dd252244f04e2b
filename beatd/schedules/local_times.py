"""The readings of a local clock that a cron expression names, in no time zone."""

from hashlib import blake2b

from beatd.instant import DAY, MINUTE, SECOND
from beatd.schedules.days import Days, highest, lowest, members
from beatd.schedules.fields import Fields
from beatd.schedules.zones import Local


class LocalTimes:
    """The local times that match, found by bit operations and without stepping.

    A day's minutes are one bit set of 1440 bits, a year's days one of 366.
    """

    __slots__ = ("_days", "_minutes", "_seconds")

    def __init__(self, fields: Fields) -> None:
        minutes = 0
        for hour in members(fields.hours):
            minutes |= fields.minutes << 60 * hour
        self._minutes = minutes
        self._seconds = fields.seconds
        self._days = Days(fields.dates, fields.years)

    @property
    def digest(self) -> str:
        """A text that is equal exactly for equal sets of local times."""
        parts = (self._minutes, self._seconds, *self._days.key())
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def at_or_after(self, local: Local) -> Local | None:
        """Return the first matching local time that is not before `local`."""
        day, rest = divmod(local, DAY)
        found = self._days.from_day(day)
        if found is None:
            return None
        if found == day:
            minute, rest = divmod(rest, MINUTE)
            left = self._minutes >> minute
            if left & 1 and (seconds := self._seconds >> -(-rest // SECOND)):
                return local - rest + (-(-rest // SECOND) + lowest(seconds)) * SECOND
            left >>= 1
            if left:
                minute += 1 + lowest(left)
                return day * DAY + minute * MINUTE + lowest(self._seconds) * SECOND
            found = self._days.from_day(day + 1)
            if found is None:
                return None
        return (
            found * DAY
            + lowest(self._minutes) * MINUTE
            + lowest(self._seconds) * SECOND
        )

    def at_or_before(self, local: Local) -> Local | None:
        """Return the last matching local time that is not after `local`."""
        day, rest = divmod(local, DAY)
        found = self._days.until_day(day)
        if found is None:
            return None
        if found == day:
            minute, rest = divmod(rest, MINUTE)
            past = self._minutes & ((2 << minute) - 1)
            if past >> minute:
                seconds = self._seconds & ((2 << rest // SECOND) - 1)
                if seconds:
                    return local - rest + highest(seconds) * SECOND
                past &= (1 << minute) - 1
            if past:
                return (
                    day * DAY + highest(past) * MINUTE + highest(self._seconds) * SECOND
                )
            found = self._days.until_day(day - 1)
            if found is None:
                return None
        return (
            found * DAY
            + highest(self._minutes) * MINUTE
            + highest(self._seconds) * SECOND
        )

    def count(self, begin: Local, end: Local) -> int:
        """Count the matching local times from `begin` on and before `end`."""
        first, last = begin // DAY, end // DAY
        days = self._days.count(first, last)
        whole = days * self._minutes.bit_count() * self._seconds.bit_count()
        return whole - self._before(begin) + self._before(end)

    def _before(self, local: Local) -> int:
        """Count the matching local times before `local` on its day."""
        day, rest = divmod(local, DAY)
        if self._days.from_day(day) != day:
            return 0
        minute, rest = divmod(rest, MINUTE)
        past = self._minutes & ((1 << minute) - 1)
        number = past.bit_count() * self._seconds.bit_count()
        if self._minutes >> minute & 1:
            seconds = self._seconds & ((1 << -(-rest // SECOND)) - 1)
            number += seconds.bit_count()
        return number
