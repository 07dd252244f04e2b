"""Reading cron expressions and Celery's crontab arguments into bit sets.

croniter expands each field: names, lists, steps, hashes. Forms that croniter reads
otherwise than cron does are rewritten first (ranges that wrap, equal bounds, 7 as
Sunday, `5L`, `15W`, `R`, aliases). It gets one field at a time, so that an error can
name the field.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

from beatd.errors import ScheduleError
from beatd.schedules.days import (
    ANY_YEAR,
    Bits,
    DayRule,
    Days,
    bits_of,
    lowest,
    members,
)

CrontabValue: TypeAlias = int | str | Iterable[int]
"""The values that Celery's crontab takes for each of its arguments."""

REMEMBERED = 65_536
"""How many schedules are remembered, for entries that have equal ones: when they come
in turn, a memory that is too small for all of them has none of them."""

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = (
    *("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
)

ALL_HOURS: Bits = (1 << 24) - 1
ALL_MINUTES: Bits = (1 << 60) - 1

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?", re.ASCII)
_NEAREST_WEEKDAY = re.compile(r"(\d+)w|w(\d+)", re.ASCII)
_BEFORE_LAST = re.compile(r"l(?:-(\d{1,2}))?", re.ASCII)
_LAST_WEEKDAY = re.compile(r"(\w+)(?:-(\w+))?#l|(\w+)l", re.ASCII)
_CRONTAB_ITEM = re.compile(r"\*(?:/\d+)?|(\w+)(?:-(\w+)(?:/\d+)?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fields:
    """The values that a cron expression names, field by field."""

    minutes: Bits
    hours: Bits
    dates: DayRule
    seconds: Bits
    years: Bits
    wildcard: bool
    """Whether the minute, hour or seconds field is written with a star in front."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    index: int
    """The field's place in croniter's order: minute first, seconds and year last."""
    low: int
    high: int
    names: tuple[str, ...] = ()
    """The names of the values from `low` on."""

    def number(self, text: str) -> int | None:
        """Return the value of a number, or of a name's first three letters."""
        if text.isdigit():
            return int(text[:9])
        short = [name[:3].lower() for name in self.names]
        return self.low + short.index(text) if text in short else None

    def error(self, text: object) -> ScheduleError:
        names = f" or {self.names[0][:3].lower()}, ..." if self.names else ""
        return ScheduleError(
            self.name,
            f"cannot read {text!r}; expected numbers {self.low} to {self.high}{names},"
            " ranges, steps, or lists of them",
        )


_MINUTE = _Field("minute", 0, 0, 59)
_HOUR = _Field("hour", 1, 0, 23)
_DAY = _Field("day-of-month", 2, 1, 31)
_MONTH = _Field("month", 3, 1, 12, MONTHS)
_WEEKDAY = _Field("day-of-week", 4, 0, 6, WEEKDAYS)
_SECOND = _Field("second", 5, 0, 59)
_YEAR = _Field("year", 6, 1970, 2099)

# The same fields under the names of a crontab's arguments.
_CRONTAB_DAY = replace(_DAY, name="day_of_month")
_CRONTAB_MONTH = replace(_MONTH, name="month_of_year")
_CRONTAB_WEEKDAY = replace(_WEEKDAY, name="day_of_week")


class _Values(NamedTuple):
    """The values of one field, as croniter expands it."""

    numbers: Bits
    nth_weekdays: tuple[tuple[int, int], ...] = ()
    last_weekdays: Bits = 0


def read_cron(
    expression: str, *, hash_id: str | None = None, second_at_beginning: bool = False
) -> Fields:
    """Return the fields of a cron expression of 5, 6 or 7, or of an alias (`@daily`).

    `hash_id` decides what `H` and `R` stand for; without one, `H` is an error.
    Raises ScheduleError, naming the field, also when no date would ever match.
    """
    if not isinstance(expression, str):
        raise ScheduleError("fields", f"expected a cron expression, got {expression!r}")
    texts = _split(expression, second_at_beginning)
    if is_drawn(expression):
        return _possible(_read(texts, hash_id))
    return _read_shared(texts)


def check_drawn(expression: str, *, second_at_beginning: bool = False) -> None:
    """Check an expression with `H` or `R`, as far as is possible without the id."""
    _read(_split(expression, second_at_beginning), hash_id="")


def is_drawn(expression: str) -> bool:
    """Return whether an expression has `H` or `R`, drawn from an id."""
    return any(text[0] in "hHrR" for text in expression.split())


def read_crontab(
    minute: CrontabValue,
    hour: CrontabValue,
    day_of_week: CrontabValue,
    day_of_month: CrontabValue,
    month_of_year: CrontabValue,
) -> Fields:
    """Return the fields of Celery's crontab: day, weekday and month must all match.

    Raises ScheduleError, naming the argument, also when no date would ever match.
    """
    return _read_crontab_shared(
        _plain_value(_MINUTE, minute),
        _plain_value(_HOUR, hour),
        _plain_value(_CRONTAB_WEEKDAY, day_of_week),
        _plain_value(_CRONTAB_DAY, day_of_month),
        _plain_value(_CRONTAB_MONTH, month_of_year),
    )


def _split(expression: str, second_at_beginning: bool) -> tuple[str, ...]:
    """Return the fields' texts in croniter's order, in small letters."""
    text = expression.strip().lower()
    if text.startswith("@"):
        if text not in _ALIASES:
            known = ", ".join(_ALIASES)
            raise ScheduleError("alias", f"no {expression!r}; expected {known}")
        text = _ALIASES[text]
    texts = re.findall(r"\S+", text, re.ASCII)
    if not 5 <= len(texts) <= 7:
        raise ScheduleError(
            "fields", f"expected 5, 6 or 7 fields, got {len(texts)} in {expression!r}"
        )
    if second_at_beginning and len(texts) > 5:
        texts.insert(_SECOND.index, texts.pop(0))
    return tuple(texts)


# Entries often share an expression, and croniter takes its time.
@lru_cache(maxsize=REMEMBERED)
def _read_shared(texts: tuple[str, ...]) -> Fields:
    return _possible(_read(texts, hash_id=None))


def _read(texts: tuple[str, ...], hash_id: str | None) -> Fields:
    expand = partial(_expand, hash_id=hash_id, draw_id=hash_id or " ".join(texts))
    minute, hour, day, month, weekday = texts[:5]
    second = texts[5] if len(texts) > 5 else "0"
    year = texts[6] if len(texts) > 6 else "*"

    weekdays = expand(_WEEKDAY, weekday)
    dates = replace(
        _read_days(day, expand),
        months=expand(_MONTH, month).numbers,
        weekdays=weekdays.numbers,
        nth_weekdays=weekdays.nth_weekdays,
        last_weekdays=weekdays.last_weekdays,
        both=day[0] in "*?" or weekday[0] in "*?",
    )
    return Fields(
        minutes=expand(_MINUTE, minute).numbers,
        hours=expand(_HOUR, hour).numbers,
        dates=dates,
        seconds=expand(_SECOND, second).numbers,
        years=ANY_YEAR if year == "*" else expand(_YEAR, year).numbers,
        wildcard="*" in (minute[0], hour[0], second[0]),
    )


def _read_days(text: str, expand: Callable[[_Field, str], _Values]) -> DayRule:
    """Return what a day-of-month field names."""
    if nearest := _NEAREST_WEEKDAY.fullmatch(text):
        number = expand(_DAY, nearest[1] or nearest[2]).numbers
        return DayRule(days=0, nearest_to=lowest(number))
    if text.endswith("w") and (nearest := _BEFORE_LAST.fullmatch(text[:-1])):
        return DayRule(days=0, nearest_before_last=_before_last(text, nearest))
    plain, before_last = [], []
    for item in text.split(","):
        if last := _BEFORE_LAST.fullmatch(item):
            before_last.append(_before_last(text, last))
        else:
            plain.append(item)
    days = expand(_DAY, ",".join(plain)).numbers if plain else 0
    return DayRule(days=days, before_last=bits_of(before_last))


def _before_last(text: str, match: re.Match[str]) -> int:
    """Return the number of days before the last one that `l` or `l-n` means."""
    number = int(match[1] or 0)
    if number >= _DAY.high:
        raise _DAY.error(text)
    return number


def _expand(
    field: _Field, text: str, *, hash_id: str | None = None, draw_id: str = ""
) -> _Values:
    """Return the values of one field, rewritten where croniter differs from cron."""
    if text[0] == "h" and hash_id is None:
        raise ScheduleError(field.name, f"{text!r} needs an id that it is drawn from")
    try:
        if text[0] == "r":  # croniter would draw again at each start
            return _ask_croniter(field, f"h{text[1:]}", f"R {draw_id}")
        plain = ",".join(_plain(field, item) for item in text.split(","))
        return _ask_croniter(field, plain, hash_id if text[0] == "h" else None)
    except ValueError as error:
        raise field.error(text) from error


@lru_cache(maxsize=4096)
def _ask_croniter(field: _Field, text: str, hash_id: str | None) -> _Values:
    from croniter import croniter  # takes 60 ms, and `beatd --help` does not need it

    texts = ["*"] * 7
    texts[field.index] = text
    expanded, nth = croniter.expand(
        " ".join(texts), hash_id=None if hash_id is None else hash_id.encode()
    )
    values = expanded[field.index]
    if values == ["*"]:
        values = range(field.low, field.high + 1)
    return _Values(
        numbers=bits_of(n for n in values if n not in nth),
        nth_weekdays=tuple(
            (n, day) for day in sorted(nth) for n in sorted(nth[day] - {"l"})
        ),
        last_weekdays=bits_of(day for day in nth if "l" in nth[day]),
    )


def _plain(field: _Field, item: str) -> str:
    """Return one item of a list so that croniter reads it as cron does."""
    weekday = field.index == _WEEKDAY.index
    if weekday and (last := _LAST_WEEKDAY.fullmatch(item)):
        return _last_weekdays(field, last)
    bounds = _RANGE.fullmatch(item)
    if bounds is None:
        return item
    low, high = field.number(bounds[1]), field.number(bounds[2])
    top = 7 if weekday else field.high
    if low is None or high is None or max(low, high) > top or low < field.low:
        return item  # and croniter refuses it
    if low == high:
        return str(low)
    if low < high <= field.high:
        return item
    if field is _YEAR:
        raise ValueError("years do not wrap")
    size = field.high - field.low + 1
    first = 0 if low == 7 and weekday else low
    end = (high if high >= first else high + size) + 1
    numbers = range(first, end, int(bounds[3] or 1))
    return ",".join(str((n - field.low) % size + field.low) for n in numbers)


def _last_weekdays(field: _Field, match: re.Match[str]) -> str:
    """Return `5l`, `fril`, `fri#l` or `mon-fri#l` as croniter reads it: `l5`."""
    low, high = match[1] or match[3], match[2]
    named = _plain(field, f"{low}-{high or low}")
    numbers = _ask_croniter(field, named, None).numbers
    return ",".join(f"l{number}" for number in members(numbers))


def _plain_value(field: _Field, value: CrontabValue) -> int | str:
    """Return an argument of Celery's crontab in a form that can be hashed."""
    if type(value) is int or type(value) is str:
        return value
    return _crontab_text(field, value)


def _crontab_text(field: _Field, value: CrontabValue) -> str:
    """Return an argument of Celery's crontab as the text of a cron field."""
    if isinstance(value, str):
        return ",".join(_crontab_item(field, item) for item in value.split(","))
    if isinstance(value, Mapping | bool):
        raise field.error(value)
    numbers = list(value) if isinstance(value, Iterable) else [value]
    texts = [str(n) for n in numbers if type(n) is int and field.low <= n <= field.high]
    if not texts or len(texts) != len(numbers):
        raise field.error(value)
    return ",".join(texts)


def _crontab_item(field: _Field, item: str) -> str:
    """Return an item with short names; check it against Celery's narrower grammar."""
    bounds = _CRONTAB_ITEM.fullmatch(item.strip().lower())
    if bounds is None:
        raise field.error(item)
    for bound in filter(None, bounds.groups()):
        names = [name for name in field.names if name.lower().startswith(bound)]
        if bound.isdigit():
            known = int(bound[:9]) <= field.high  # 7 is no day of Celery's week
        else:
            known = len(bound) >= 3 and bool(names)
        if not known:
            raise field.error(item)
    return re.sub(r"([a-z]{3})[a-z]+", r"\1", bounds[0])


# Many entries have equal crontabs, each written anew.
@lru_cache(maxsize=REMEMBERED)
def _read_crontab_shared(
    minute: int | str,
    hour: int | str,
    weekday: int | str,
    day: int | str,
    month: int | str,
) -> Fields:
    fields = Fields(
        minutes=_expand_crontab(_MINUTE, minute),
        hours=_expand_crontab(_HOUR, hour),
        dates=DayRule(
            weekdays=_expand_crontab(_CRONTAB_WEEKDAY, weekday),
            days=_expand_crontab(_CRONTAB_DAY, day),
            months=_expand_crontab(_CRONTAB_MONTH, month),
        ),
        seconds=1,
        years=ANY_YEAR,
        wildcard=any(str(value).startswith("*") for value in (minute, hour)),
    )
    return _possible(fields, _CRONTAB_DAY)


def _expand_crontab(field: _Field, value: int | str) -> Bits:
    return _expand(field, _crontab_text(field, value)).numbers


def _possible(fields: Fields, day_field: _Field = _DAY) -> Fields:
    """Return `fields`; raise ScheduleError if no day of any calendar matches them."""
    if Days(fields.dates, fields.years):
        return fields
    if fields.dates.days == DayRule().days:
        raise ScheduleError(_WEEKDAY.name, "can never occur in the months and years")
    months = members(fields.dates.months)
    length = max(_LENGTHS[month - 1] for month in months)
    problem = "can never occur in the months and years"
    if fields.dates.days and lowest(fields.dates.days) > length:
        days = "28 or 29" if length == 29 else str(length)
        names = " and ".join(MONTHS[month - 1] for month in months)
        verb = "has" if len(months) == 1 else "have"
        problem = (
            f"can never occur: {names} {verb} {days} days;"
            f" did you mean {days.split()[0]}?"
        )
    raise ScheduleError(day_field.name, problem)
