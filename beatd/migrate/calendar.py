"""The schedule as a calendar of RFC 5545, in UTC."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice, takewhile

from beatd.instant import SECOND, Instant, datetime_of
from beatd.migrate.recurrence import rule_of
from beatd.text import escaped
from beatd.timetable.entry import Entry
from beatd.timetable.preview import ComingRuns

_LONGEST = 75
"""Octets of a line, without its end."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When an entry runs from now on: by a rule for ever, or at dates up to an end."""

    entry: Entry
    runs: Sequence[Instant]
    """The runs up to the end; of those with a rule too, as many as were asked for."""
    rule: str | None
    """The RRULE that says exactly all runs, the first of `runs` being its DTSTART."""
    is_cut: bool
    """Whether there are more runs before the end than were asked for."""


def forecast(
    entry: Entry, coming: ComingRuns, now: Instant, end: Instant, limit: int
) -> Forecast:
    """Return an entry's runs after `now` and up to `end`, at most `limit` of them.

    The first one is there even if it comes later.
    """
    after = coming.since(now + 1)
    runs = [*islice(after, 1)]
    runs += islice(takewhile(lambda at: at <= end, after), limit)
    rule = _rule(entry, coming, now) if runs else None
    return Forecast(entry, runs[:limit], rule, len(runs) > limit)


def _rule(entry: Entry, coming: ComingRuns, now: Instant) -> str | None:
    """Return the rule of an entry with its bounds; None if it has none."""
    rule = rule_of(entry.schedule, now)
    # What is spread lies beside the hours and minutes that a rule names.
    if rule is None or (entry.offset and "BY" in rule):
        return None
    match coming.left, coming.end:
        case None, None:
            return rule
        case None, end if end is not None:
            last = datetime_of((end + entry.offset) // SECOND * SECOND)
            return f"{rule};UNTIL={last:%Y%m%dT%H%M%SZ}"
        case left, None:
            return f"{rule};COUNT={left}" if left else None
    return None  # RFC 5545 allows one of both


def calendar(
    name: str, forecasts: Iterable[Forecast], now: Instant, version: str
) -> Iterator[str]:
    """Yield the lines of a calendar, each with its end."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        f"PRODID:-//beatd//beatd {version}//EN",
        "CALSCALE:GREGORIAN",
        f"X-WR-CALNAME:{_text(name)}",
    ]
    for line in lines:
        yield from _folded(line)
    for one in forecasts:
        for run in one.runs[:1] if one.rule else one.runs:
            for line in _event(name, one, run, now):
                yield from _folded(line)
    yield from _folded("END:VCALENDAR")


def _event(name: str, one: Forecast, run: Instant, now: Instant) -> Iterator[str]:
    entry = one.entry
    key = sha256(f"{name}\0{entry.name}".encode()).hexdigest()[:32]
    yield "BEGIN:VEVENT"
    yield f"UID:{key}{'' if one.rule else f'-{run}'}@beatd"
    yield f"DTSTAMP:{_date(now)}"
    yield f"DTSTART:{_date(run)}"
    if one.rule:
        yield f"RRULE:{one.rule}"
    yield f"SUMMARY:{_text(entry.name)}"
    about = [entry.description, f"task {entry.message.task}"]
    yield f"DESCRIPTION:{_text('; '.join(filter(None, about)))}"
    yield "TRANSP:TRANSPARENT"
    yield "END:VEVENT"


def _date(instant: Instant) -> str:
    return f"{datetime_of(instant):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    """Return foreign text as a value: on one line, with its signs escaped."""
    shown = escaped(text).replace("\\", "\\\\")
    return shown.replace(";", "\\;").replace(",", "\\,")


def _folded(line: str) -> Iterator[str]:
    """Yield a line in parts of at most 75 octets; no character is cut."""
    part, size = "", 0
    for character in line:
        length = len(character.encode())
        if size + length > _LONGEST:
            yield f"{part}\r\n"
            part, size = " ", 1
        part += character
        size += length
    yield f"{part}\r\n"
