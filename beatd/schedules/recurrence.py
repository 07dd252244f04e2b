"""Reading an RFC 5545 recurrence rule, strictly: `FREQ=WEEKLY;BYDAY=MO,FR`."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from beatd.errors import ScheduleError

_FREQUENCIES = (
    *("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY"),
)
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_NTH_WEEKDAY = re.compile(r"([+-]?[1-9]\d?)?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)

_BOUNDS = {
    "INTERVAL": (1, 999_999_999),
    "COUNT": (1, 10_000),  # each is computed when the rule is loaded
    "BYSECOND": (0, 59),
    "BYMINUTE": (0, 59),
    "BYHOUR": (0, 23),
    "BYMONTHDAY": (-31, 31),
    "BYYEARDAY": (-366, 366),
    "BYWEEKNO": (-53, 53),
    "BYMONTH": (1, 12),
    "BYSETPOS": (-366, 366),
}
_FROM_THE_END = {"BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS"}  # and never 0
_ONLY_WITH = {
    "BYYEARDAY": {"SECONDLY", "MINUTELY", "HOURLY", "YEARLY"},
    "BYMONTHDAY": {*_FREQUENCIES} - {"WEEKLY"},
    "BYSETPOS": {*_FREQUENCIES} - {"SECONDLY"},
}


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The parts of a rule; an empty tuple stands for a part that is not given."""

    text: str
    """The rule with its parts in alphabetic order."""
    freq: str
    interval: int
    count: int | None
    until: datetime | None
    """Inclusive; naive when it is a local time."""
    week_start: int
    """The weekday on which weeks begin: Monday is 0."""
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    weekdays: tuple[tuple[int, int], ...]
    """(weekday, n): the n-th in the month or year, from its end if n is negative."""
    month_days: tuple[int, ...]
    year_days: tuple[int, ...]
    weeks: tuple[int, ...]
    months: tuple[int, ...]
    positions: tuple[int, ...]


def read_recurrence(text: str) -> Recurrence:
    """Return the rule that `text` is; ScheduleError names a part that is wrong."""
    parts = _parts(text)
    freq = parts.get("FREQ", "")
    if freq not in _FREQUENCIES:
        raise _error(f"FREQ={freq}: expected one of {', '.join(_FREQUENCIES)}")
    for name, frequencies in _ONLY_WITH.items():
        if name in parts and freq not in frequencies:
            raise _error(f"{name} means nothing with FREQ={freq}")
    if "COUNT" in parts and "UNTIL" in parts:
        raise _error("COUNT and UNTIL exclude each other")
    weekdays = _weekdays(parts)
    if any(n for _, n in weekdays) and freq not in ("MONTHLY", "YEARLY"):
        raise _error(f"a number in BYDAY means nothing with FREQ={freq}")
    week_start = parts.get("WKST", "MO")
    if week_start not in _WEEKDAYS:
        raise _error(f"WKST={week_start}: expected one of {', '.join(_WEEKDAYS)}")
    return Recurrence(
        text=";".join(f"{name}={parts[name]}" for name in sorted(parts)),
        freq=freq,
        interval=_number(parts, "INTERVAL") or 1,
        count=_number(parts, "COUNT"),
        until=_until(parts["UNTIL"]) if "UNTIL" in parts else None,
        week_start=_WEEKDAYS.index(week_start),
        seconds=_numbers(parts, "BYSECOND"),
        minutes=_numbers(parts, "BYMINUTE"),
        hours=_numbers(parts, "BYHOUR"),
        weekdays=weekdays,
        month_days=_numbers(parts, "BYMONTHDAY"),
        year_days=_numbers(parts, "BYYEARDAY"),
        weeks=_numbers(parts, "BYWEEKNO"),
        months=_numbers(parts, "BYMONTH"),
        positions=_numbers(parts, "BYSETPOS"),
    )


def _parts(text: str) -> dict[str, str]:
    if not isinstance(text, str):
        raise _error(f"expected text such as 'FREQ=DAILY', got {text!r}")
    known = {"FREQ", "UNTIL", "BYDAY", "WKST", *_BOUNDS}
    parts: dict[str, str] = {}
    rule = text.strip().upper().removeprefix("RRULE:").removesuffix(";")
    for part in rule.split(";"):
        name, is_there, value = part.partition("=")
        if not is_there or name not in known or name in parts:
            raise _error(f"cannot read {part!r} in {text!r}; expected 'FREQ=DAILY;...'")
        parts[name] = value
    return parts


def _number(parts: dict[str, str], name: str) -> int | None:
    numbers = _numbers(parts, name)
    if len(numbers) > 1:
        raise _error(f"{name}={parts[name]}: expected one number")
    return numbers[0] if numbers else None


def _numbers(parts: dict[str, str], name: str) -> tuple[int, ...]:
    if name not in parts:
        return ()
    low, high = _BOUNDS[name]
    numbers = [int(n) for n in parts[name].split(",") if _NUMBER.fullmatch(n)]
    if (
        len(numbers) <= parts[name].count(",")
        or not low <= min(numbers) <= max(numbers) <= high
        or (name in _FROM_THE_END and 0 in numbers)
    ):
        raise _error(f"{name}={parts[name]}: expected {low} to {high}")
    return tuple(sorted(set(numbers)))


def _weekdays(parts: dict[str, str]) -> tuple[tuple[int, int], ...]:
    weekdays = []
    for item in parts["BYDAY"].split(",") if "BYDAY" in parts else []:
        match = _NTH_WEEKDAY.fullmatch(item)
        if match is None:
            raise _error(f"BYDAY={parts['BYDAY']}: expected days such as MO or -1FR")
        weekdays.append((_WEEKDAYS.index(match[2]), int(match[1] or 0)))
    return tuple(sorted(set(weekdays)))


def _until(text: str) -> datetime:
    for form, zone in (
        ("%Y%m%dT%H%M%SZ", UTC),
        ("%Y%m%dT%H%M%S", None),
        ("%Y%m%d", None),
    ):
        try:
            return datetime.strptime(text, form).replace(tzinfo=zone)
        except ValueError:
            continue
    raise _error(f"UNTIL={text}: expected a date such as 20271231T235959Z")


def _error(problem: str) -> ScheduleError:
    return ScheduleError("rrule", problem)
