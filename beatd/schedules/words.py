"""Cron fields and lengths of time, in words for people."""

from collections.abc import Callable

from beatd.instant import DAY, HOUR, MINUTE, SECOND, Span
from beatd.schedules.days import ANY_YEAR, Bits, DayRule, members
from beatd.schedules.fields import MONTHS, WEEKDAYS, Fields

_ALWAYS = DayRule()
_MOST_TIMES = 4  # times of day that are listed one by one


def length(span: Span) -> str:
    """Return a length of time in its largest whole unit: `5 min`, `90 s`, `250 ms`."""
    for unit, name in (DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s"):
        if span % unit == 0:
            return f"{span // unit} {name}"
    return f"{span / SECOND} s" if span > SECOND else f"{span} ms"


def in_words(fields: Fields) -> str | None:
    """Return a few words for common schedules: `daily 02:30`, `hourly at :30`."""
    if fields.seconds != 1 or fields.years != ANY_YEAR:
        return None
    if often := _often(fields):
        return often if fields.dates == _ALWAYS else None
    days, times = _days_in_words(fields.dates), _times(fields)
    if not days or not times or len(times) > 2:
        return None
    return f"{days} {', '.join(times)}"


def describe(fields: Fields) -> str:
    """Return in a sentence when the schedule is due."""
    time, dates = _time(fields), _dates(fields.dates)
    if not dates and _times(fields):
        dates = "every day"
    years = fields.years != ANY_YEAR and f"in {_listed(_runs(fields.years, str))}"
    return " ".join(part for part in (time, dates, years) if part)


def _often(fields: Fields) -> str | None:
    """Return words for fields that come in even steps all day long, None for others."""
    minutes, hours = _step(fields.minutes, 60), _step(fields.hours, 24)
    if hours == 1 and minutes:
        return "every minute" if minutes == 1 else f"every {minutes} min"
    minute = members(fields.minutes)[0]
    if not hours or fields.minutes != 1 << minute:
        return None
    at = f" at :{minute:02}" if minute else ""
    return f"hourly{at}" if hours == 1 else f"every {hours} h{at}"


def _days_in_words(rule: DayRule) -> str | None:
    day, month = members(rule.days), members(rule.months)
    if rule == _ALWAYS:
        return "daily"
    if rule == DayRule(weekdays=rule.weekdays):
        names = [WEEKDAYS[weekday][:3] for weekday in members(rule.weekdays)]
        if rule.weekdays == 0b011_1110:
            return "Mon-Fri"
        return f"weekly {names[0]}" if len(names) == 1 else ", ".join(names)
    if rule == DayRule(days=0, before_last=1):
        return "monthly last day"
    if len(day) == 1 and rule == DayRule(days=rule.days):
        return f"monthly {_nth(day[0])}"
    if len(day) == len(month) == 1 and rule == DayRule(rule.months, rule.days):
        return f"yearly {day[0]} {MONTHS[month[0] - 1][:3]}"
    return None


def _times(fields: Fields) -> list[str]:
    """Return the times of day if they are few, else nothing."""
    minutes, hours = members(fields.minutes), members(fields.hours)
    seconds = members(fields.seconds)
    if len(minutes) * len(hours) > _MOST_TIMES or len(seconds) > 1:
        return []
    second = f":{seconds[0]:02}" if seconds[0] else ""
    return [f"{h:02}:{m:02}{second}" for h in hours for m in minutes]


def _time(fields: Fields) -> str:
    times = _times(fields)
    if times:
        return f"at {_listed(times)}"
    minutes = _unit("minute", fields.minutes, 60)
    if fields.hours != _full(24):
        hours = _listed(_runs(fields.hours, str))
        hours = f"hour{'s' * (len(members(fields.hours)) > 1)} {hours}"
        minutes = f"{minutes} of {hours}"
    elif _step(fields.minutes, 60) is None:
        minutes += " of every hour"
    if fields.seconds == 1:
        return minutes
    seconds = _unit("second", fields.seconds, 60)
    return seconds if minutes == "every minute" else f"{seconds}, {minutes}"


def _unit(name: str, bits: Bits, size: int) -> str:
    step = _step(bits, size)
    if step is not None:
        return f"every {name}" if step == 1 else f"every {step} {name}s"
    return f"at {name}{'s' * (bits & bits - 1 > 0)} {_listed(_runs(bits, str))}"


def _dates(rule: DayRule) -> str:
    days, weekdays, months = _days(rule), _weekdays(rule), ""
    if not (rule.both or (days and weekdays)):  # either is enough, and one always holds
        days = weekdays = ""
    if rule.months != _ALWAYS.months:
        months = _listed(_runs(rule.months, lambda month: MONTHS[month - 1]))
    if days:
        days += f" of {months or 'every month'}"
        if weekdays and rule.both:
            return f"{days} if that is {weekdays}"
        return days + (f" and on {_each(weekdays)}" if weekdays else "")
    if weekdays:
        return f"on {_each(weekdays)}" + (f" in {months}" if months else "")
    return f"in {months}" if months else ""


def _days(rule: DayRule) -> str:
    if rule.days == _ALWAYS.days:
        return ""
    days = _runs(rule.days, _nth)
    days += map(_before_last, members(rule.before_last))
    if rule.nearest_to:
        days.append(f"weekday nearest to the {_nth(rule.nearest_to)}")
    if rule.nearest_before_last == 0:
        days.append("last weekday")
    elif rule.nearest_before_last:
        day = _before_last(rule.nearest_before_last)
        days.append(f"weekday nearest to the {day}")
    return f"on the {_listed(days)}"


def _before_last(back: int) -> str:
    return f"{_nth(back + 1)} last day" if back else "last day"


def _weekdays(rule: DayRule) -> str:
    nth = [f"the {_nth(n)} {WEEKDAYS[day]}" for n, day in rule.nth_weekdays]
    nth += [f"the last {WEEKDAYS[day]}" for day in members(rule.last_weekdays)]
    if nth or rule.weekdays == _ALWAYS.weekdays:
        return _listed(nth)
    return _listed(_runs(rule.weekdays, WEEKDAYS.__getitem__))


def _each(weekdays: str) -> str:
    if weekdays.startswith("the "):
        return weekdays
    return (
        f"every weekday from {weekdays}" if " to " in weekdays else f"every {weekdays}"
    )


def _step(bits: Bits, size: int) -> int | None:
    """Return n when `bits` are 0, n, 2n, ... and n divides `size`."""
    for step in range(1, size):
        if size % step == 0 and bits == sum(1 << n for n in range(0, size, step)):
            return step
    return None


def _full(size: int) -> Bits:
    return (1 << size) - 1


def _runs(bits: Bits, name: Callable[[int], str]) -> list[str]:
    """Return the members' names; three or more in a row become `first to last`."""
    texts: list[str] = []
    row: list[int] = []
    for number in [*members(bits), None]:
        if row and number != row[-1] + 1:
            texts += (
                [f"{name(row[0])} to {name(row[-1])}"]
                if len(row) > 2
                else map(name, row)
            )
            row = []
        if number is not None:
            row.append(number)
    return texts


def _listed(texts: list[str]) -> str:
    return " and ".join(text for text in (", ".join(texts[:-1]), *texts[-1:]) if text)


def _nth(n: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{n}{'th' if n in (11, 12, 13) else endings.get(n % 10, 'th')}"
