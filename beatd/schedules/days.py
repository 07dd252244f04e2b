"""Which days a cron expression names, as one bit set for each kind of year.

A year has one of 14 calendars: it begins on one of seven weekdays, and is a leap year
or not. A table of 14 bit sets, bit n for the n-th day of the year, therefore answers
for all time.
"""

from calendar import isleap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TypeAlias

Bits: TypeAlias = int
"""A set of small numbers; bit n is set when n is in it."""

Day: TypeAlias = int
"""A day of the calendar, counted from 1970-01-01."""

ANY_YEAR: Bits = -1  # all bits of -1 are set

_EPOCH = date(1970, 1, 1).toordinal()
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIVE_WEEKS: Bits = sum(1 << 7 * week for week in range(5))


@dataclass(frozen=True, slots=True)
class DayRule:
    """The day and month fields of an expression; Sunday is weekday 0."""

    months: Bits = 0b1_1111_1111_1110
    days: Bits = (1 << 32) - 2
    before_last: Bits = 0
    """Bit n: the day that is n days before the last one of the month."""
    nearest_to: int | None = None
    """A day of the month: names the day, Monday to Friday, that is nearest to it."""
    nearest_before_last: int | None = None
    """The same for the day so many days before the last one of the month."""
    weekdays: Bits = 0b111_1111
    nth_weekdays: tuple[tuple[int, int], ...] = ()
    """(n, weekday): the n-th of that weekday in the month."""
    last_weekdays: Bits = 0
    both: bool = True
    """Day and weekday must both match; otherwise either is enough."""


class Days:
    """A set of days, of whole calendars and chosen years."""

    __slots__ = ("calendars", "years")

    def __init__(self, rule: DayRule, years: Bits = ANY_YEAR) -> None:
        self.calendars = _calendars(rule)
        self.years = years

    def __bool__(self) -> bool:
        """Whether any day is named at all."""
        return any(self.key())

    def key(self) -> tuple[int, ...]:
        """Return numbers that are equal exactly for equal sets of days."""
        if self.years == ANY_YEAR:
            return self.calendars
        days = {year: self.of_year(year) for year in members(self.years)}
        return tuple(n for year in days if days[year] for n in (year, days[year]))

    def of_year(self, year: int) -> Bits:
        return self.calendars[_year(year)[1]]

    def from_day(self, day: Day) -> Day | None:
        """Return the first day that is not before `day`."""
        try:
            year = _year_of(day)
        except (ValueError, OverflowError):  # outside of the years 1 to 9999
            return None if day > 0 else self.from_day(1 - _EPOCH)
        first, kind = _year(year)
        left = self.calendars[kind] >> (day - first)
        if left and self.years >> year & 1:
            return day if left & 1 else day + lowest(left)
        for later in self._years_after(year):
            first, kind = _year(later)
            if bits := self.calendars[kind]:
                return first + lowest(bits)
        return None

    def until_day(self, day: Day) -> Day | None:
        """Return the last day that is not after `day`."""
        try:
            year = _year_of(day)
        except (ValueError, OverflowError):
            return None if day < 0 else self.until_day(date.max.toordinal() - _EPOCH)
        first, kind = _year(year)
        past = self.calendars[kind] & ((2 << (day - first)) - 1)
        if past and self.years >> year & 1:
            return first + highest(past)
        for earlier in self._years_before(year):
            first, kind = _year(earlier)
            if bits := self.calendars[kind]:
                return first + highest(bits)
        return None

    def count(self, first: Day, end: Day) -> int:
        """Count the days from `first` on and before `end`, of the years 1 to 9999."""
        number = 0
        for year in range(_year_of(first), _year_of(end) + 1):
            if self.years >> year & 1:
                begin, kind = _year(year)
                left = self.calendars[kind] >> max(first - begin, 0)
                length = end - max(first, begin)
                number += (left & ((1 << length) - 1)).bit_count()
        return number

    def _years_after(self, year: int) -> Iterator[int]:
        last = 9999 if self.years == ANY_YEAR else highest(self.years)
        return (y for y in range(year + 1, last + 1) if self.years >> y & 1)

    def _years_before(self, year: int) -> Iterator[int]:
        first = lowest(self.years) or 1
        return (y for y in range(year - 1, first - 1, -1) if self.years >> y & 1)


def lowest(bits: Bits) -> int:
    """Return the smallest member of a set that is not empty."""
    return (bits & -bits).bit_length() - 1


def highest(bits: Bits) -> int:
    """Return the largest member of a set that is not empty."""
    return bits.bit_length() - 1


def members(bits: Bits) -> list[int]:
    """Return the members of a finite set, the smallest first."""
    return [n for n in range(bits.bit_length()) if bits >> n & 1]


def bits_of(numbers: Iterable[int]) -> Bits:
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


def _year_of(day: Day) -> int:
    return date.fromordinal(day + _EPOCH).year


@lru_cache(maxsize=1024)
def _year(year: int) -> tuple[Day, int]:
    """Return the first day of `year`, and which of the 14 calendars it has."""
    first = date(year, 1, 1)
    return first.toordinal() - _EPOCH, first.isoweekday() % 7 * 2 + isleap(year)


@lru_cache(maxsize=1024)  # most expressions share their day fields
def _calendars(rule: DayRule) -> tuple[Bits, ...]:
    return tuple(_calendar(rule, kind // 2, kind % 2) for kind in range(14))


def _calendar(rule: DayRule, weekday: int, leap: int) -> Bits:
    """Return the days of a year that begins on `weekday`; bit 0 is 1 January."""
    year = begin = 0
    for month, length in enumerate(_LENGTHS, 1):
        length += leap if month == 2 else 0
        if rule.months >> month & 1:
            year |= _month(rule, (weekday + begin) % 7, length) << begin
        begin += length
    return year


def _month(rule: DayRule, weekday: int, length: int) -> Bits:
    """Return the days of a month that begins on `weekday`; bit 0 is the first."""
    days = rule.days >> 1
    for back in members(rule.before_last):
        days |= 1 << length >> (back + 1)
    nearest = rule.nearest_to or 0
    if rule.nearest_before_last is not None:
        nearest = length - rule.nearest_before_last
    if 1 <= nearest <= length:  # a month that lacks the day has none that is near
        days |= 1 << _working_day(nearest, weekday, length)
    weekdays = _first_week(rule.weekdays, weekday) * _FIVE_WEEKS
    for n, nth_weekday in rule.nth_weekdays:
        weekdays |= _first_week(1 << nth_weekday, weekday) << 7 * (n - 1)
    last_week = _first_week(rule.last_weekdays, (weekday + length) % 7)
    weekdays |= last_week << (length - 7)
    named = days & weekdays if rule.both else days | weekdays
    return named & ((1 << length) - 1)


def _first_week(weekdays: Bits, weekday: int) -> Bits:
    """Return `weekdays` as days of a week that begins on `weekday`."""
    return (weekdays >> weekday | weekdays << 7 - weekday) & 0b111_1111


def _working_day(day: int, weekday: int, length: int) -> int:
    """Return the month's working day nearest to `day`, as a number from 0."""
    day -= 1
    match (weekday + day) % 7:
        case 6:  # Saturday: Friday, or Monday when that is the month before
            return day - 1 if day else 2
        case 0:  # Sunday: Monday, or Friday when that is the month after
            return day + 1 if day < length - 1 else day - 2
        case _:
            return day
