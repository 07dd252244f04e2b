"""Which schedules an RRULE of RFC 5545 says exactly, in UTC."""

from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span
from beatd.schedules.base import Schedule
from beatd.schedules.cron import Cron
from beatd.schedules.days import ANY_YEAR, Bits, DayRule, members
from beatd.schedules.fields import ALL_HOURS, ALL_MINUTES
from beatd.schedules.interval import Every
from beatd.schedules.zones import local_clock

_ANY_DAY = DayRule()
_WEEKDAYS = ("SU", "MO", "TU", "WE", "TH", "FR", "SA")
_UNITS = (("DAILY", DAY), ("HOURLY", HOUR), ("MINUTELY", MINUTE), ("SECONDLY", SECOND))

_EVER: Span = 100 * 366 * DAY
"""How far clock changes are looked for: none by then, none ever."""

_CHANGES = 8
"""Clock changes that are looked at: those of four years."""


def rule_of(schedule: Schedule, now: Instant) -> str | None:
    """Return the rule for the slots after `now`, the first of them being DTSTART.

    None where no rule says them all and no others: where clocks change, where it is no
    rule of dates, where an interval has parts of seconds.
    """
    if isinstance(schedule, Every):
        return _rule_of_interval(schedule)
    if isinstance(schedule, Cron):
        return _rule_of_cron(schedule, now)
    return None


def _rule_of_interval(schedule: Every) -> str | None:
    for frequency, unit in _UNITS:
        if schedule.every % unit == 0:
            return f"FREQ={frequency};INTERVAL={schedule.every // unit}"
    return None


def _rule_of_cron(schedule: Cron, now: Instant) -> str | None:
    fields = schedule.fields
    dates = fields.dates
    plain = DayRule(dates.months, dates.days, weekdays=dates.weekdays, both=dates.both)
    either = not dates.both and _has_days(dates) and _has_weekdays(dates)
    offset = _offset(schedule, now)
    if fields.years != ANY_YEAR or dates != plain or either or offset is None:
        return None
    hours, minutes = fields.hours, fields.minutes
    if offset:
        if not _is_any_day(dates):
            return None  # midnight of UTC is another one
        ahead, rest = divmod(offset, HOUR)
        if rest and hours != ALL_HOURS:
            return None
        hours = _turned(hours, -ahead, 24)
        minutes = _turned(minutes, -(rest // MINUTE), 60)
    return _rule(hours, minutes, fields.seconds, dates)


def _rule(hours: Bits, minutes: Bits, seconds: Bits, dates: DayRule) -> str:
    parts = ["FREQ=DAILY"]
    if dates.months != _ANY_DAY.months:
        parts.append(f"BYMONTH={_numbers(dates.months)}")
    if _has_days(dates):
        parts.append(f"BYMONTHDAY={_numbers(dates.days)}")
    if _has_weekdays(dates):
        days = ",".join(_WEEKDAYS[day] for day in members(dates.weekdays))
        parts.append(f"BYDAY={days}")
    if hours == ALL_HOURS:
        parts[0] = "FREQ=MINUTELY" if minutes == ALL_MINUTES else "FREQ=HOURLY"
    else:
        parts.append(f"BYHOUR={_numbers(hours)}")
    if parts[0] != "FREQ=MINUTELY":
        parts.append(f"BYMINUTE={_numbers(minutes)}")
    parts.append(f"BYSECOND={_numbers(seconds)}")
    return ";".join(parts)


def _offset(schedule: Cron, now: Instant) -> Span | None:
    """Return how far ahead of UTC its clock is for ever, as far as that matters.

    Where it follows the hands of the clock through each hour of each day, changes by
    whole hours do not. None where they do.
    """
    clock = local_clock(schedule.zone)
    stretch = clock.stretch(now)
    if clock.next_change(now, now + _EVER) is None:
        return stretch.offset
    fields = schedule.fields
    follows = schedule.wildcard and fields.hours == ALL_HOURS
    if not (follows and _is_any_day(fields.dates)):
        return None
    offsets = [stretch.offset]
    for _ in range(_CHANGES):
        if stretch.end >= now + _EVER:
            break
        stretch = clock.stretch(stretch.end)
        offsets.append(stretch.offset)
    rests = {offset % HOUR for offset in offsets}
    return rests.pop() if len(rests) == 1 else None


def _is_any_day(dates: DayRule) -> bool:
    return DayRule(dates.months, dates.days, weekdays=dates.weekdays) == _ANY_DAY


def _has_days(dates: DayRule) -> bool:
    return dates.days != _ANY_DAY.days


def _has_weekdays(dates: DayRule) -> bool:
    return dates.weekdays != _ANY_DAY.weekdays


def _turned(bits: Bits, by: int, size: int) -> Bits:
    """Return a set of numbers below `size`, each moved on by `by`, around the end."""
    turned = 0
    for number in members(bits):
        turned |= 1 << (number + by) % size
    return turned


def _numbers(bits: Bits) -> str:
    return ",".join(map(str, members(bits)))
