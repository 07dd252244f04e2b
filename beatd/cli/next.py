"""`beatd next`: the coming runs, in order of time."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import merge
from itertools import groupby, islice, takewhile
from operator import attrgetter, itemgetter
from typing import Any
from zoneinfo import ZoneInfo

import click

from beatd.cli.options import COLOR, JSON, SOURCE
from beatd.cli.output import (
    SHORTEST_NAME,
    SQUEEZED_NAME,
    Screen,
    document,
    moment,
    padded,
    screen,
    stamps,
    until,
)
from beatd.cli.progress import Progress
from beatd.cli.schedule_view import ScheduleView, chosen, schedule_view
from beatd.cli.times import coming_instant
from beatd.cli.usage import CONFIG, NOTHING, USAGE, Whole, exit_statuses
from beatd.clock import SystemClock
from beatd.instant import DAY, MINUTE, Instant, datetime_of
from beatd.text import counted, escaped, width_of
from beatd.timetable.entry import Entry
from beatd.timetable.preview import ComingRuns

_RELATIVE = 11  # columns: `in 24m 48s`, and `in 100d 12h` still fits
_CLOCK = 8  # columns: `14:05:14`

_COUNTED = 100_000
"""Runs of one entry that are counted; there may be more."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, and how many later ones of its entry it stands for."""

    at: Instant
    entry: Entry
    more: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of time whose runs are shown, both ends included."""

    now: Instant
    begin: Instant
    end: Instant | None
    """None: as far as there are runs."""
    zone: ZoneInfo

    def holds(self, instant: Instant) -> bool:
        """Return whether `instant`, not before the beginning, is not after the end."""
        return self.end is None or instant <= self.end


@click.command(
    "next",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE, NOTHING, CONFIG),
)
@SOURCE
@click.argument("entries", nargs=-1, metavar="[ENTRY|GLOB]...")
@click.option("--at", metavar="TIME", help="From then on.  [default: now]")
@click.option("--until", "end", metavar="TIME", help="[default: 24 hours later]")
@click.option(
    "--limit",
    type=Whole(1),
    default=20,
    show_default=True,
    metavar="N",
    help="At most N lines.",
)
@click.option("--all", "every", is_flag=True, help="Each run on a line of its own.")
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    entries: Sequence[str],
    at: str | None,
    end: str | None,
    limit: int,
    every: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Coming runs in order of time.

    An entry that runs more than once has one line, with a count. A single ENTRY has a
    line for each run, however far ahead. TIME is '15:00', '2027-03-28' or
    '2027-03-28 02:30', in the config's time zone.
    """
    known = schedule_view(context)
    usable, bad = chosen(known.config, entries)
    alone = bool(entries) and len(usable) == 1
    window = _window(known.zone, at, end, bounded=not alone)
    coming = known.coming(usable, window.now)
    with Progress("runs found", sys.stderr, SystemClock()) as found:
        if every or alone:
            # One more than is shown, to know whether there are more.
            each = each_run(usable, coming, window)
            runs = list(found.counting(islice(each, limit + 1)))
            closing = _closing(runs, limit, window)
        else:
            runs = _folded(usable, coming, window, found)
            closing = _closing_folded(runs, limit, window)
    if bad:
        hint = f"{counted(len(bad), 'entry')} cannot be used: beatd check"
        click.echo(hint, err=True)
    click.echo(f"source: {known.source}", err=True)
    if as_json:
        more = len(runs) > limit
        click.echo(_document(known, runs[:limit], window, truncated=more))
        return
    out = screen(context)
    lines = [*_lines(known, runs[:limit], window, out)]
    lines.append(closing if runs else _nothing(known, usable, coming, window))
    out.say("\n".join(lines))


# When ------------------------------------------------------------------------------


def _window(zone: ZoneInfo, at: str | None, end: str | None, bounded: bool) -> Window:
    now = SystemClock().now()
    begin = now if at is None else coming_instant("--at", at, zone, after=now)
    last = (begin + DAY) // MINUTE * MINUTE if bounded else None
    if end is not None:
        last = coming_instant("--until", end, zone, after=begin)
        if last < begin:
            problem = f"{end!r} lies before the beginning"
            raise click.BadParameter(problem, param_hint="--until")
    return Window(now, begin, last, zone)


# Which runs ------------------------------------------------------------------------


def each_run(
    entries: Sequence[Entry], coming: Mapping[str, ComingRuns], window: Window
) -> Iterator[Run]:
    """Yield all runs in the window, in order of time, then of the entries' names."""
    # Of equal schedules, which are often many, the runs are computed once.
    alike: dict[ComingRuns, list[Entry]] = {}
    for entry in entries:
        alike.setdefault(coming[entry.name], []).append(entry)

    def runs(some: ComingRuns) -> Iterator[tuple[Instant, list[Entry]]]:
        for at in takewhile(window.holds, some.since(window.begin)):
            yield at, alike[some]

    in_order = merge(*map(runs, alike), key=itemgetter(0))
    for at, found in groupby(in_order, key=itemgetter(0)):
        together = [entry for _, some in found for entry in some]
        for entry in sorted(together, key=attrgetter("name")):
            yield Run(at, entry)


def _folded(
    entries: Sequence[Entry],
    coming: Mapping[str, ComingRuns],
    window: Window,
    progress: Progress,
) -> list[Run]:
    """Return one run for each entry, with the number of those that come after it."""

    @cache  # of equal schedules, which are often many, runs are counted once
    def count(runs: ComingRuns) -> tuple[Instant | None, int]:
        instants = takewhile(window.holds, runs.since(window.begin))
        later = progress.counting(islice(instants, _COUNTED + 1))
        return next(instants, None), sum(1 for _ in later)

    found: list[Run] = []
    for entry in entries:
        first, more = count(coming[entry.name])
        if first is not None:
            found.append(Run(first, entry, more))
    return sorted(found, key=lambda run: (run.at, run.entry.name))


# For people ------------------------------------------------------------------------


def _lines(
    known: ScheduleView, runs: Sequence[Run], window: Window, out: Screen
) -> Iterator[str]:
    """Return a line for each run; where it does not fit, names lose their middle."""
    # Many runs may be of one entry, or at one instant.
    whens = _times({run.at for run in runs}, window)
    names = {run.entry.name: out.shown(run.entry.name) for run in runs}
    words = [_words(known, run, window) for run in runs]
    time_width = max([_CLOCK, *map(len, whens.values())])
    name_width = max([SHORTEST_NAME, *map(width_of, names.values())])
    if out.width is not None:
        left = _room(out.width, time_width, words)
        if left < min(name_width, SQUEEZED_NAME):
            # The end of the window stands below as well.
            ending = f" {_until(window)}"
            words = [text.removesuffix(ending) for text in words]
            left = _room(out.width, time_width, words)
        name_width = max(min(name_width, left), SHORTEST_NAME)
    times = {
        at: f"{when:{time_width}}  {until(at, window.now):{_RELATIVE}}"
        for at, when in whens.items()
    }
    shown = {
        name: padded(out.cut(text, name_width), name_width)
        for name, text in names.items()
    }
    for run, text in zip(runs, words, strict=True):
        yield f"{times[run.at]}  {shown[run.entry.name]}  {text}".rstrip()


def _room(width: int, time_width: int, words: Sequence[str]) -> int:
    """Return how many columns names may have beside the others."""
    return width - time_width - _RELATIVE - max(map(len, words), default=0) - 6


def _words(known: ScheduleView, run: Run, window: Window) -> str:
    if not run.more:
        return ""
    return f"{known.words(run.entry)}, {_number(run.more)} more {_until(window)}"


def _times(instants: Iterable[Instant], window: Window) -> dict[Instant, str]:
    """Return times with their day, and their zone if the clock changes among them."""
    moments = {instant: datetime_of(instant, window.zone) for instant in instants}
    today = datetime_of(window.now, window.zone).date()
    changes = len({at.utcoffset() for at in moments.values()}) > 1
    return {
        instant: (
            f"{at:%H:%M:%S}"
            if at.date() == today
            else moment(instant, window.now, window.zone)
        )
        + (f" {at:%Z}" if changes else "")
        for instant, at in moments.items()
    }


def _number(more: int) -> str:
    return str(more) if more <= _COUNTED else f"over {_COUNTED}"


def _until(window: Window) -> str:
    assert window.end is not None  # without an end nothing is folded
    return f"until {moment(window.end, window.now, window.zone)}"


def _closing_folded(runs: Sequence[Run], limit: int, window: Window) -> str:
    verb = "runs" if len(runs) == 1 else "run"
    text = f"{counted(len(runs), 'entry')} {verb} {_until_in_zone(window)}"
    if len(runs) > limit:
        return f"{text}, the first {limit} are shown: --limit {len(runs)} shows all."
    return f"{text}."


def _closing(runs: Sequence[Run], limit: int, window: Window) -> str:
    if len(runs) > limit:
        shown = f"{counted(limit, 'run')} shown, times in {window.zone}"
        return f"{shown}: --limit N shows more."
    end = f"and no more, times in {window.zone}"
    return (
        f"{counted(len(runs), 'run')} {_until_in_zone(window) if window.end else end}."
    )


def _nothing(
    known: ScheduleView,
    entries: Sequence[Entry],
    coming: Mapping[str, ComingRuns],
    window: Window,
) -> str:
    """Return that nothing runs, and which run comes next, or why none does."""
    text = f"nothing runs {_until_in_zone(window)}" if window.end else "nothing runs"
    firsts = [
        (at, entry.name)
        for entry in entries
        for at in islice(coming[entry.name].since(window.begin), 1)
    ]
    if firsts:
        at, name = min(firsts)
        then = moment(at, window.now, window.zone)
        return f"{text}; then {escaped(name)}, {then}, {until(at, window.now)}."
    pauses = [known.paused(entry).partition(":")[0] for entry in entries]
    if pauses and all(pauses):
        return f"{text}: {', '.join(sorted({*pauses}))}."
    return f"{text}, nor later."


def _until_in_zone(window: Window) -> str:
    assert window.end is not None
    return f"{_until(window)} {datetime_of(window.end, window.zone):%Z}"


# For programs ----------------------------------------------------------------------


def _document(
    known: ScheduleView, runs: Sequence[Run], window: Window, *, truncated: bool
) -> bytes:
    return document(
        "beatd.next/1",
        window.now,
        window.zone,
        zone=str(window.zone),
        **stamps("from", window.begin, window.zone),
        **stamps("until", window.end, window.zone),
        truncated=truncated,
        runs=[
            {
                "entry": run.entry.name,
                **stamps("at", run.at, window.zone),
                "due_now": run.at <= window.now,
                "schedule": known.words(run.entry),
                "more": run.more if run.more <= _COUNTED else None,
            }
            for run in runs
        ],
    )
