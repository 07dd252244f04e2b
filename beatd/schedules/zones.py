"""Time zones: by name, and as stretches of time on which the local clock runs evenly.

A local time is an integer like an instant: the milliseconds from 1970-01-01T00:00 to
what the clock on the wall reads.
"""

from bisect import bisect_right
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from beatd.errors import ScheduleError
from beatd.instant import DAY, Instant, Span, datetime_of, instant_of

Local: TypeAlias = int
"""Milliseconds between 1970-01-01T00:00 and a reading of the local clock."""

UTC = ZoneInfo("UTC")

_ERA: Span = 1 << 33  # 99 days: most searches end in the era that they begin in
_PROBE: Span = 2 * DAY  # no zone has ever changed its offset twice within 3.9 days
_LONGEST_CHANGE: Span = 2 * DAY  # the date line moves a clock by 24 hours
_FIRST: Instant = -62_135_596_800_000 + _ERA  # datetime ends at the years 1 and 9999
_LAST: Instant = 253_402_300_799_000 - _ERA
_MOST_ERAS = 1024  # 280 years; a search by hand through all time may not fill memory


def zone_of(name: str) -> ZoneInfo:
    """Return the zone called `name`; ScheduleError says which name may be meant."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        # OSError: 'America' is a directory. ValueError: '../etc/passwd'.
        problem = f"no zone named {name!r}"
        if str(name).upper() in _SUMMER:
            problem += "; it is the summer time of regions: name one, as 'Europe/Paris'"
        elif near := _nearest_zone(name):
            problem += f"; did you mean {near!r}?"
        raise ScheduleError("timezone", problem) from error


_SUMMER = {"CEST", "EEST", "WEST", "BST", "EDT", "CDT", "MDT", "PDT", "AEDT", "NZDT"}
"""What clocks are called half the year; the nearest name is of another part of it."""


def _nearest_zone(name: object) -> str | None:
    known = {zone.lower(): zone for zone in available_timezones()}
    near = get_close_matches(str(name).lower().replace(" ", "_"), known, 1)
    return known[near[0]] if near else None


class Stretch(NamedTuple):
    """A stretch of time, `start <= instant < end`, in which the offset is constant."""

    start: Instant
    end: Instant
    offset: Span
    unread: Local
    """The first reading that the clock had not shown before `start`.

    Later than the reading at `start`: the clock went back, and shows the times up to
    here again. Earlier: the clock went forward, and never shows the times from here on.
    """


class ClockReading(NamedTuple):
    """What the clock shows at an instant."""

    instant: Instant
    local: Local


class LocalClock:
    """The clock on the wall of one time zone.

    Asking zoneinfo costs more than a whole search, so that the offsets of each era of
    99 days are asked for once. There is no other state: all clocks of a zone agree.
    """

    __slots__ = ("_eras", "zone")

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._eras: dict[int, list[Stretch]] = {}

    def __reduce__(self) -> tuple[object, tuple[ZoneInfo]]:
        return local_clock, (self.zone,)

    def stretch(self, instant: Instant) -> Stretch:
        """Return the stretch that holds `instant`."""
        stretches = self._eras.get(instant // _ERA) or self._learn(instant // _ERA)
        if len(stretches) == 1:
            return stretches[0]
        return stretches[bisect_right(stretches, instant, key=_start) - 1]

    def local(self, instant: Instant) -> Local:
        """Return what the clock reads at `instant`."""
        return instant + self.stretch(instant).offset

    def first_at(self, local: Local) -> ClockReading:
        """Return the first instant at which the clock reads `local`.

        If it never does, return the instant at which it passes over `local`, with its
        reading then.
        """
        stretch = self.stretch(local - DAY)
        while local >= stretch.end + stretch.offset:
            stretch = self.stretch(stretch.end)
        instant = max(local - stretch.offset, stretch.start)
        return ClockReading(instant, instant + stretch.offset)

    def run_at(self, local: Local) -> Instant | None:
        """Return the instant at which a run fixed at `local` happens, once.

        It is in the first of two passes, or at the end of the gap for a time that is
        skipped; None on a date that the zone left out.
        """
        reading = self.first_at(local)
        date = local // DAY
        if (
            reading.local // DAY != date
            and self.first_at(date * DAY).local // DAY != date
        ):
            return None
        return reading.instant

    def next_change(self, instant: Instant, until: Instant) -> Stretch | None:
        """Return the stretch that the first change in `(instant, until)` begins."""
        before = self.stretch(instant)
        while before.end < until:
            after = self.stretch(before.end)
            if after.offset != before.offset:
                return after
            before = after
        return None

    def _learn(self, era: int) -> list[Stretch]:
        begin, end = era * _ERA, (era + 1) * _ERA
        # After a change shortly before the era, its first readings may be repeats.
        start = begin - _LONGEST_CHANGE
        offset = self._offset(start)
        unread = start + offset
        stretches = []
        while start < end:
            change = self._change_after(start, offset, end)
            stretches.append(Stretch(start, change, offset, unread))
            unread = change + offset
            start, offset = change, self._offset(change)
        stretches = [
            _from(begin, stretch) for stretch in stretches if stretch.end > begin
        ]
        if len(self._eras) >= _MOST_ERAS:
            self._eras.clear()
        self._eras[era] = stretches
        return stretches

    def _change_after(self, start: Instant, offset: Span, end: Instant) -> Instant:
        """Return the first instant after `start` with another offset, at most `end`."""
        while start < end:
            probe = min(start + _PROBE, end)
            if self._offset(probe) != offset:
                return self._change_between(start, probe, offset)
            start = probe
        return end

    def _change_between(self, same: Instant, other: Instant, offset: Span) -> Instant:
        while other - same > 1:
            middle = (same + other) // 2
            if self._offset(middle) == offset:
                same = middle
            else:
                other = middle
        return other

    def _offset(self, instant: Instant) -> Span:
        moment = datetime_of(min(max(instant, _FIRST), _LAST), self.zone)
        offset = moment.utcoffset()
        assert offset is not None
        return (offset.days * 86_400 + offset.seconds) * 1_000


def _start(stretch: Stretch) -> Instant:
    return stretch.start


def _from(begin: Instant, stretch: Stretch) -> Stretch:
    """Return the part of `stretch` from `begin` on."""
    if stretch.start >= begin:
        return stretch
    unread = max(stretch.unread, begin + stretch.offset)
    return stretch._replace(start=begin, unread=unread)


@lru_cache(maxsize=1024)  # there are some 600 zones
def local_clock(zone: ZoneInfo) -> LocalClock:
    """Return the one clock that all schedules of `zone` share."""
    return LocalClock(zone)


def local_of(moment: datetime) -> Local:
    """Return what a clock reads at a naive `moment`."""
    return instant_of(moment.replace(tzinfo=UTC))
