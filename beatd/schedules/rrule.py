"""Recurrence rules of RFC 5545, in local time from a first instance on.

For days and longer steps, the local times of one period (day, week, month, year) are
listed at a time; local times that do not exist are no instances. Hours and shorter
steps are counted in elapsed time, and the rule's other parts filter the local times at
which these steps end.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from itertools import count, product
from types import ModuleType
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfo

from beatd.bounds import LAST_DATE
from beatd.errors import ScheduleError
from beatd.instant import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Instant,
    Span,
    datetime_of,
    instant_of,
)
from beatd.schedules.base import step_count
from beatd.schedules.recurrence import Recurrence
from beatd.schedules.zones import Local, LocalClock, local_clock, local_of

_T = TypeVar("_T")

_HORIZON: Span = 130 * 366 * DAY
_MONTHS_EVER = 12 * 10_000  # a step so wide that dateutil expands one month and stops
_YEARS_EVER = 10_000


class _Instances(Protocol):
    """All instances of a rule, without its count and its end."""

    def after(self, instant: Instant, until: Instant) -> Instant | None:
        """Return the first instance after `instant`; the search may stop at `until`."""
        ...


@dataclass(frozen=True, slots=True)
class RRule:
    """The instances of a recurrence rule in one time zone."""

    rule: Recurrence = field(compare=False)
    dtstart: datetime = field(compare=False)
    """The first instance; naive when it is a local time."""
    zone: ZoneInfo = field(compare=False)
    fingerprint: str = field(init=False)
    _start: Instant = field(init=False, compare=False, repr=False)
    _end: Instant = field(init=False, compare=False, repr=False)
    _instances: _Instances = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        clock, rule = local_clock(self.zone), self.rule
        start = self.dtstart
        if start.tzinfo is not None:
            start = start.astimezone(self.zone).replace(tzinfo=None)
        instances: _Instances
        if rule.freq in _STEPS:
            instances = _Elapsed.of(rule, start, clock)
        else:
            instances = _Listed(rule, start, clock)
            _dateutil()
        put = object.__setattr__
        put(self, "_start", clock.first_at(local_of(start)).instant)
        put(self, "_end", min(_end_of(rule, clock), LAST_DATE))
        put(self, "_instances", instances)
        put(self, "fingerprint", f"rrule {start.isoformat()} {rule.text} {self.zone}")
        if rule.count is not None:
            put(self, "_end", self._nth(rule.count))
        if self.next_after(self._start - 1) is None:
            raise ScheduleError("rrule", f"{rule.text} never occurs")

    @property
    def wildcard(self) -> bool:
        return False

    def next_after(self, instant: Instant) -> Instant | None:
        return self._first_between(instant, min(instant + _HORIZON, self._end))

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        end = min(instant, self._end)
        last = self._first_between(since, end)
        # There is a slot at `last` and none after `end`: halve the time between them.
        while last is not None and last < end:
            middle = (last + end) // 2
            slot = self._first_between(middle, end)
            if slot is not None:
                last = slot
            else:
                end = middle
        return last

    def count(self, first: Instant, last: Instant) -> int:
        return step_count(self, first, last)

    def _first_between(self, instant: Instant, until: Instant) -> Instant | None:
        """Return the first slot in `(instant, until]`."""
        after = max(instant, self._start - 1)
        if after >= until:
            return None
        slot = self._instances.after(after, until)
        return slot if slot is not None and slot <= until else None

    def _nth(self, n: int) -> Instant:
        """Return the n-th instance, or the last if there are fewer."""
        slot = self._start - 1
        for _ in range(n):
            following = self.next_after(slot)
            if following is None:
                break
            slot = following
        return slot


@dataclass(frozen=True, slots=True)
class _Elapsed:
    """Instances every so many hours, minutes or seconds of elapsed time."""

    rule: Recurrence
    clock: LocalClock
    origin: Instant
    """The instant at which the first period begins, a full unit on the clock."""
    step: Span
    ticks: tuple[Span, ...]
    """The instances in each period, as times from its beginning."""

    @classmethod
    def of(cls, rule: Recurrence, start: datetime, clock: LocalClock) -> "_Elapsed":
        unit = _STEPS[rule.freq]
        first = clock.first_at(local_of(start))
        minutes = (rule.minutes or (start.minute,)) if unit == HOUR else (0,)
        seconds = (rule.seconds or (start.second,)) if unit >= MINUTE else (0,)
        ticks = [m * MINUTE + s * SECOND for m in minutes for s in seconds]
        if rule.positions:
            ticks = _at_positions(ticks, rule.positions)
        if not ticks:
            raise ScheduleError("rrule", f"{rule.text} never occurs")
        return cls(
            rule=rule,
            clock=clock,
            origin=first.instant - first.local % unit,
            step=rule.interval * unit,
            ticks=tuple(ticks),
        )

    def after(self, instant: Instant, until: Instant) -> Instant | None:
        at = instant
        while at < until:
            slot = self._tick_after(at)
            again = self._barred_until(slot)
            if again is None:
                return slot
            at = max(slot, again - 1)
        return None

    def _tick_after(self, instant: Instant) -> Instant:
        period = instant - (instant - self.origin) % self.step
        n = bisect_right(self.ticks, instant - period)
        if n < len(self.ticks):
            return period + self.ticks[n]
        return period + self.step + self.ticks[0]

    def _barred_until(self, slot: Instant) -> Instant | None:
        """Return when to look again if the rule bars `slot`; None if it allows it."""
        stretch = self.clock.stretch(slot)
        local = slot + stretch.offset
        barred = self._barred(local)
        if barred is None:
            return None
        return min(slot + barred - local % barred, stretch.end)

    def _barred(self, local: Local) -> Span | None:
        """Return the largest unit of `local` that the rule bars: day, hour, ..."""
        rule, unit = self.rule, _STEPS[self.rule.freq]
        if not _on_date(rule, datetime_of(local).date()):
            return DAY
        if rule.hours and local // HOUR % 24 not in rule.hours:
            return HOUR
        if unit <= MINUTE and rule.minutes and local // MINUTE % 60 not in rule.minutes:
            return MINUTE
        if unit == SECOND and rule.seconds and local // SECOND % 60 not in rule.seconds:
            return SECOND
        return None


@dataclass(frozen=True, slots=True)
class _Listed:
    """Instances listed day by day, week by week, month by month or year by year."""

    rule: Recurrence
    start: datetime
    clock: LocalClock

    def after(self, instant: Instant, until: Instant) -> Instant | None:
        today = datetime_of(self.clock.local(instant)).date()
        last = datetime_of(until + DAY).date()
        # One period earlier: the clock may have gone back since then.
        for n in count(max(self._period_of(today) - 1, 0)):
            begin = self._begin(n)
            if begin is None or begin > last:
                return None
            for moment in self._moments(begin):
                local = local_of(moment)
                reading = self.clock.first_at(local)
                if reading.local == local and reading.instant > instant:
                    return reading.instant
        return None

    def _period_of(self, day: date) -> int:
        """Count the rule's steps from its first period to the one that holds `day`."""
        first = self._first_period()
        match self.rule.freq:
            case "DAILY":
                units = (day - first).days
            case "WEEKLY":
                units = (day - first).days // 7
            case "MONTHLY":
                units = (day.year - first.year) * 12 + day.month - first.month
            case _:
                units = day.year - first.year
        return units // self.rule.interval

    def _first_period(self) -> date:
        day = self.start.date()
        match self.rule.freq:
            case "DAILY":
                return day
            case "WEEKLY":
                return day - timedelta((day.weekday() - self.rule.week_start) % 7)
            case "MONTHLY":
                return day.replace(day=1)
            case _:
                return day.replace(month=1, day=1)

    def _begin(self, n: int) -> date | None:
        """Return the first day of the n-th period; None if it is beyond all dates."""
        first, units = self._first_period(), n * self.rule.interval
        try:
            match self.rule.freq:
                case "DAILY":
                    return first + timedelta(units)
                case "WEEKLY":
                    return first + timedelta(units * 7)
                case "MONTHLY":
                    years, month = divmod(first.month - 1 + units, 12)
                    return first.replace(year=first.year + years, month=month + 1)
                case _:
                    return first.replace(year=first.year + units)
        except (OverflowError, ValueError):
            return None

    def _moments(self, begin: date) -> list[datetime]:
        """List the local times of the period that begins at `begin`."""
        rule = self.rule
        if rule.freq in ("MONTHLY", "YEARLY"):
            return self._moments_by_dateutil(begin)
        days = 1 if rule.freq == "DAILY" else 7
        weekdays = rule.weekdays or ((self.start.weekday(), 0),)
        every_day = rule.freq == "DAILY" or (rule.weeks and not rule.weekdays)
        moments = [
            datetime.combine(day, at)
            for day in (begin + timedelta(n) for n in range(days))
            if _on_date(rule, day)
            if every_day or (day.weekday(), 0) in weekdays
            for at in self._times()
        ]
        if not rule.positions:
            return moments
        return _at_positions(moments, rule.positions)

    def _times(self) -> list[time]:
        rule, start = self.rule, self.start
        hours = rule.hours or (start.hour,)
        minutes = rule.minutes or (start.minute,)
        seconds = rule.seconds or (start.second,)
        return [time(h, m, s) for h, m, s in product(hours, minutes, seconds)]

    def _moments_by_dateutil(self, begin: date) -> list[datetime]:
        rule, start, dateutil = self.rule, self.start, _dateutil()
        monthly = rule.freq == "MONTHLY"
        months, month_days, weekdays = rule.months, rule.month_days, rule.weekdays
        if rule.weeks and not (monthly or weekdays or month_days or rule.year_days):
            weekdays = ((start.weekday(), 0),)
        if not (weekdays or month_days or rule.year_days or rule.weeks):
            month_days = (start.day,)
            if not monthly:
                months = months or (start.month,)
        return list(
            dateutil.rrule(
                dateutil.MONTHLY if monthly else dateutil.YEARLY,
                dtstart=datetime.combine(begin, time()),
                interval=_MONTHS_EVER if monthly else _YEARS_EVER,
                wkst=rule.week_start,
                bysetpos=rule.positions or None,
                bymonth=months or None,
                bymonthday=month_days or None,
                byyearday=rule.year_days or None,
                byweekno=rule.weeks or None,
                byweekday=[dateutil.weekday(day, n or None) for day, n in weekdays]
                or None,
                byhour=rule.hours or start.hour,
                byminute=rule.minutes or start.minute,
                bysecond=rule.seconds or start.second,
            )
        )


_STEPS = {"SECONDLY": SECOND, "MINUTELY": MINUTE, "HOURLY": HOUR}


def _at_positions(items: list[_T], positions: tuple[int, ...]) -> list[_T]:
    """Return the items at BYSETPOS: 1 is the first, -1 the last."""
    chosen = {n - 1 if n > 0 else len(items) + n for n in positions}
    return [item for n, item in enumerate(items) if n in chosen]


def _week_of(day: date, week_start: int) -> tuple[int, int]:
    """Return the year that a day's week belongs to, and the week's number in it.

    A week belongs to the year in which its fourth day lies (RFC 5545, ISO 8601).
    """
    fourth = day + timedelta(3 - (day.weekday() - week_start) % 7)
    return fourth.year, (fourth.timetuple().tm_yday - 1) // 7 + 1


def _on_date(rule: Recurrence, day: date) -> bool:
    """Return whether the parts of `rule` that concern dates allow `day`."""
    if rule.months and day.month not in rule.months:
        return False
    if rule.weekdays and (day.weekday(), 0) not in rule.weekdays:
        return False
    if rule.month_days:
        following = (day.replace(day=28) + timedelta(4)).replace(day=1)
        from_end = -(following - day).days
        if day.day not in rule.month_days and from_end not in rule.month_days:
            return False
    if rule.weeks:
        year, week = _week_of(day, rule.week_start)
        weeks = _week_of(date(year, 12, 28), rule.week_start)[1]
        if week not in rule.weeks and week - weeks - 1 not in rule.weeks:
            return False
    if rule.year_days:
        from_start = (day - day.replace(month=1, day=1)).days + 1
        from_end = (day - day.replace(month=12, day=31)).days - 1
        return from_start in rule.year_days or from_end in rule.year_days
    return True


def _end_of(rule: Recurrence, clock: LocalClock) -> Instant:
    if rule.until is None:
        return LAST_DATE
    if rule.until.tzinfo is not None:
        return instant_of(rule.until)
    reading = clock.first_at(local_of(rule.until))
    # In a gap: an instance at the end of the gap is later than the rule's end.
    return reading.instant - (reading.local != local_of(rule.until))


def _dateutil() -> ModuleType:
    try:
        from dateutil import rrule
    except ImportError as error:
        raise ScheduleError(
            "schedule", "rrule needs python-dateutil: pip install 'beatd[rrule]'"
        ) from error
    return rrule
