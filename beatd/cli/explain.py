"""`beatd explain`: a schedule in words, its next slots, and the next clock change."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from beatd.cli.options import COLOR, JSON
from beatd.cli.output import (
    Failure,
    document,
    screen,
    stamps,
    until,
)
from beatd.cli.usage import USAGE, Whole, exit_statuses
from beatd.clock import SystemClock
from beatd.errors import ScheduleError
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, datetime_of
from beatd.schedules import ScheduleSpec, cron, crontab, every
from beatd.schedules.base import Schedule
from beatd.schedules.clock_changes import ClockChange, clock_change_note
from beatd.schedules.zones import zone_of


class NoSchedule(Failure):
    """The words on the command line are no schedule, or no zone."""

    exit_code = USAGE


_INTERVAL = re.compile(
    r"(?:every\s+)?(\d+(?:\.\d+)?)\s*(ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)?",
    re.ASCII,
)
_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


@click.command(
    "explain",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE),
)
@click.argument("expression", metavar="EXPR")
@click.option(
    "--tz", "--timezone", metavar="ZONE", default="UTC", help="[default: UTC]"
)
@click.option(
    "--count",
    type=Whole(0, 10_000),
    default=3,
    show_default=True,
    metavar="N",
    help="How many next runs.",
)
@click.option(
    "--seconds",
    type=click.Choice(["first", "last"]),
    help="Where the seconds are in 6 or 7 fields.  [default: last]",
)
@click.option("--celery", is_flag=True, help="Read it as Celery's crontab() does.")
@click.option("--name", metavar="ENTRY", help="The entry's name, which decides H.")
@click.option("-C", "--no-color", is_flag=True, default=None, help="No colours.")
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    expression: str,
    tz: str,
    count: int,
    celery: bool,
    seconds: str | None,
    name: str | None,
    as_json: bool,
    **_: Any,
) -> None:
    """A schedule in words, its next runs, and what it does when clocks change.

    EXPR is a cron expression of 5, 6 or 7 fields, an alias such as @daily, or an
    interval: 30, '30 s', 'every 5 min'.
    """
    try:
        zone = zone_of(tz)
        spec = _spec(expression, celery, seconds)
        schedule = spec.in_zone(zone, hash_id=name)
    except ScheduleError as error:
        raise _failure(expression, error, named=name is not None) from error
    other = spec.other_reading if isinstance(spec, cron) else None
    now = SystemClock().now()
    slots = list(islice(_slots(schedule, now), count))
    change = clock_change_note(schedule, zone, now)
    if as_json:
        click.echo(_document(expression, spec, other, zone, now, slots, change))
        return
    out = screen(context)
    # What is counted from the epoch says so, and has no zone.
    where = "" if isinstance(spec, every) else f", {zone}"
    out.say(out.wrapped(f"{spec.describe()}{where}", 2))
    with_seconds = any(slot % MINUTE for slot in slots)
    for slot in slots:
        out.say(f"  {_full(slot, zone, with_seconds)}    {until(slot, now)}")
    if len(slots) < count:
        out.say("  no more runs")
    out.say(out.wrapped(words_of_change(change, zone), 2))
    if other:
        text = f"with the seconds first (--seconds first): {other.describe()}"
        out.say(out.wrapped(text, 2))


def _spec(expression: str, celery: bool, seconds: str | None) -> ScheduleSpec:
    interval = _INTERVAL.fullmatch(expression.strip().lower())
    if interval:
        number, unit = interval.groups()
        size = _UNITS["ms" if unit == "ms" else (unit or "s")[0]]
        return every(float(number) * size / SECOND)
    return (
        crontab.from_string(expression) if celery else cron(expression, seconds=seconds)
    )


def _failure(expression: str, error: ScheduleError, named: bool) -> NoSchedule:
    if error.field == "timezone":
        text = error.problem
    else:
        text = f"cannot use {expression!r}\n  {error.field}: {error.problem}"
    if error.field == "fields":
        text += "\n  an interval is written 30, '30 s' or 'every 5 min'"
    elif not named and "needs an id" in error.problem:
        text += "\n  --name ENTRY gives it"
    return NoSchedule(text.replace("; did you mean", "\n  did you mean"))


def _slots(schedule: Schedule, now: Instant) -> Iterator[Instant]:
    slot = schedule.next_after(now)
    while slot is not None:
        yield slot
        slot = schedule.next_after(slot)


def _full(slot: Instant, zone: ZoneInfo, with_seconds: bool) -> str:
    at = datetime_of(slot, zone)
    clock = f"{at:%H:%M:%S}" if with_seconds else f"{at:%H:%M}"
    return f"{at:%a} {at.day:2} {at:%b %Y} {clock} {at:%Z}"


def words_of_change(change: ClockChange | None, zone: ZoneInfo) -> str:
    """Return what the next clock change does to a schedule."""
    if change is None:
        return f"next clock change: none in {zone} within a year"
    day = f"{change.first:%a} {change.first.day} {change.first:%b %Y}"
    times = f"{change.first:%H:%M}-{change.end:%H:%M}"
    what = f"gap {times}" if change.is_gap else f"{times} comes twice"
    return f"next clock change: {day} ({what}): {change.note}"


def _document(
    expression: str,
    spec: ScheduleSpec,
    other: cron | None,
    zone: ZoneInfo,
    now: Instant,
    slots: list[Instant],
    change: ClockChange | None,
) -> bytes:
    return document(
        "beatd.explain/1",
        now,
        zone,
        expression=expression,
        words=spec.in_words(),
        description=spec.describe(),
        seconds_first=other.describe() if other else None,
        zone=str(zone),
        next=[stamps("at", slot, zone) for slot in slots],
        clock_change=None
        if change is None
        else {
            **stamps("at", change.instant, zone),
            "kind": "gap" if change.is_gap else "repeat",
            "first": f"{change.first:%H:%M}",
            "end": f"{change.end:%H:%M}",
            "affects": change.affects,
            "note": change.note,
        },
    )
