"""`beatd list`: one line for each entry, with its next and its last run."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from beatd.cli.options import COLOR, JSON, SOURCE
from beatd.cli.output import (
    SHORTEST_NAME,
    SQUEEZED_NAME,
    Screen,
    columns_of,
    document,
    padded,
    screen,
    short_moment,
    since,
    stamps,
    together,
    until,
)
from beatd.cli.schedule_view import (
    ScheduleView,
    broker_file,
    chosen,
    schedule_view,
    zone_of,
)
from beatd.cli.strips import HEAD, Strips
from beatd.cli.usage import CONFIG, NOTHING, USAGE, Whole, exit_statuses
from beatd.clock import SystemClock
from beatd.config.settings import safe, safe_items
from beatd.instant import Instant
from beatd.schedules.zones import UTC
from beatd.text import counted, escaped, width_of
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Mark

_TIME = 10  # columns of a point in time, which a length of time follows
_NEXT, _LAST, _STATE = 23, 18, 5
_SQUEEZED_WORDS = 24  # columns that schedules keep on a terminal that is not wide
_REASONS = 3  # entries in trouble whose reasons are shown; all are in the document

_IN_WORDS = {"paus": "paused", "FAIL": "failing"}

EMPTY = """\
no entries in {source}.  One that runs every 30 seconds:

    beat_schedule = {{
        "hello": {{"task": "tasks.hello", "schedule": 30}},
    }}"""


OTHER_ENTRIES = (
    "the scheduler that wrote the state file last goes by other entries than this"
    " config: reload it (SIGHUP); which differ: beatd check --broker"
)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is shown."""

    name: str
    entry: Entry | None = None
    """None: it cannot be used, and `note` says why."""
    mark: Mark | None = None
    next: Instant | None = None
    note: str = ""
    """The text to show where there is no next run."""
    refused: str = ""
    """Why the broker refuses the entry's emission; empty if it does not."""
    held: str = ""
    """Why the entry waits for its run for too long; empty if it does not."""
    ended: str = ""
    """How its last run ended, in one word; empty if nobody knows."""
    paused: str = ""
    """Why the entry is paused; empty if it is not."""

    @property
    def last(self) -> Instant | None:
        """The last slot that was emitted."""
        return self.mark.last if self.mark else None

    @property
    def state(self) -> str:
        """The entry's state in one word: how its last run ended, if that is known."""
        if self.entry is None:
            return "bad"
        if self.paused:
            return "paus"
        if self.refused:
            return "refused"
        if self.next is None:
            return "over"
        if self.held:
            return "held"
        return "" if self.last is None else self.ended or "sent"


def _by_next(line: Line) -> tuple[object, ...]:
    if line.next is None:
        return 1, line.entry is None, line.name
    return 0, line.next, line.name


_SORTED: Mapping[str, Callable[[Line], tuple[Any, ...]]] = {
    "next": _by_next,
    "name": lambda line: (line.name,),
    "last": lambda line: (-(line.last or 0), line.name),
}


@click.command(
    "list",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE, NOTHING, CONFIG),
)
@SOURCE
@click.argument("entries", nargs=-1, metavar="[ENTRY|GLOB]...")
@click.option("--utc", is_flag=True, help="Times in UTC.")
@click.option("--wide", is_flag=True, help="Also task, queue, arguments, description.")
@click.option("--limit", type=Whole(1), metavar="N", help="At most N entries.")
@click.option(
    "--sort", type=click.Choice(list(_SORTED)), default="next", show_default=True
)
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    entries: Sequence[str],
    utc: bool,
    wide: bool,
    limit: int | None,
    sort: str,
    as_json: bool,
    **_: Any,
) -> None:
    """Entries, with their next and last runs.

    NEXT is the moment at which an entry will be emitted, LAST the one at which it was.
    STATE has how that run ended, if the results know; 'sent' does not say that a worker
    ran it. LAST 15, where there is room, has a sign for each of the last slots, the
    newest at the right.
    """
    known = schedule_view(context)
    now = SystemClock().now()
    usable, bad = chosen(known.config, entries)
    coming = known.coming(usable, now)
    lines = [_line(known, entry, coming[entry.name].first()) for entry in usable]
    lines += [Line(entry.name, note=entry.why) for entry in bad]
    lines.sort(key=_SORTED[sort])
    zone = UTC if utc else known.zone
    out = screen(context)
    past = Strips(known.config, out, [line.name for line in lines[:limit]])
    if as_json:
        recent = past.data(zone)
        click.echo(_document(known, lines[:limit], len(lines), now, zone, recent))
        return
    if not lines:
        out.say(EMPTY.format(source=known.config.source.name))
        return
    lines = [replace(one, ended=past.state(one.name, one.last)) for one in lines]
    table = _Table(known, now, zone, out, wide)
    out.say("\n".join(past.beside([*table.rows(lines[:limit])])))
    out.say()
    if past.legend:
        out.say(out.wrapped(f"{HEAD}: {past.legend}", len(HEAD) + 2))
    for line in islice(filter(_has_reason, lines), _REASONS):
        why = line.refused or line.held
        text = f"{out.shown(line.name)} is {line.state}: {escaped(why)}"
        out.say(out.wrapped(text, 2))
    for text in _summary(known, lines, limit, now):
        out.say(out.wrapped(text))
    out.say(out.wrapped(f"source: {known.source}", 2))
    if file := broker_file(known.config.settings.write_urls[0]):
        out.say(f"broker: {escaped(file)}")


def _line(known: ScheduleView, entry: Entry, at: Instant | None) -> Line:
    paused = known.paused(entry)
    note = paused.partition(":")[0] or "no more runs"
    refused, held = known.refused(entry), known.held(entry)
    return Line(
        entry.name, entry, known.mark(entry), at, note, refused, held, paused=paused
    )


def _has_reason(line: Line) -> bool:
    return line.state in ("refused", "held")


# For people ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    known: ScheduleView
    now: Instant
    zone: ZoneInfo
    screen: Screen
    wide: bool

    def rows(self, lines: Sequence[Line]) -> Iterator[str]:
        """Return the head and a row for each line.

        Where they do not fit, long names lose their middle, then schedules go; times
        are never cut.
        """
        names = [self.screen.shown(line.name) for line in lines]
        words = [self._words(line) for line in lines]
        head = f"NEXT ({self.zone})"
        next_width = max(_NEXT, len(head))
        name_width = max(SHORTEST_NAME, *map(width_of, names))
        words_width = max(len("SCHEDULE"), *map(len, words))
        state_width = max(_STATE, *(len(line.state) for line in lines))
        if self.screen.width is not None and not self.wide:
            left = self.screen.width - next_width - _LAST - state_width - 6
            name_least = min(name_width, SQUEEZED_NAME)
            if left - words_width - 1 < name_least:
                words_width = min(words_width, _SQUEEZED_WORDS)
            if left - words_width - 1 < name_least:
                words_width = 0
            else:
                left -= words_width + 1
            name_width = min(name_width, left)
        details = [""] * (len(lines) + 1)
        if self.wide:
            heads = ("TASK", "QUEUE", "ARGS", "DESCRIPTION")
            shown = [heads, *map(self._details, lines)]
            if not any(description for *_, description in shown[1:]):
                shown = [columns[:-1] for columns in shown]
            details = columns_of(shown)
        runs = [self._runs(line, next_width) for line in lines]
        table = zip(
            ["ENTRY", *names],
            ["SCHEDULE", *words],
            [f"{head:{next_width}}  {'LAST':{_LAST}}", *runs],
            ["STATE", *(line.state for line in lines)],
            details,
            strict=True,
        )
        for name, wording, run, state, detail in table:
            entry = f"{padded(self.screen.cut(name, name_width), name_width)}  "
            words_cut = self.screen.cut_end(wording, words_width)
            schedule = f"{words_cut:{words_width}} " if words_width else ""
            word = self.screen.style(state) + " " * (state_width - len(state))
            yield f"{entry}{schedule}{run}  {word}  {detail}".rstrip()

    def _words(self, line: Line) -> str:
        return escaped(self.known.words(line.entry)) if line.entry else ""

    def _runs(self, line: Line, next_width: int) -> str:
        """Return the text under NEXT and LAST; for a bad entry, the reason."""
        if line.entry is None:
            width = next_width + 2 + _LAST
            note = self.screen.shown(line.note)
            if self.screen.width is not None and not self.wide:
                note = self.screen.cut_end(note, width)
            return padded(note, width)
        return f"{self._next(line, next_width)}  {self._last(line)}"

    def _next(self, line: Line, width: int) -> str:
        if line.next is None:
            return f"{line.note:{width}}"
        if line.next <= self.now:
            return self.screen.style(f"{'due now':{width}}", like="due now")
        return _ahead(line.next, self.now, self.zone, width)

    def _last(self, line: Line) -> str:
        if line.last is None:
            return f"{'never' if self.known.file else '':{_LAST}}"
        return _ago(line.last, self.now, self.zone)

    def _details(self, line: Line) -> tuple[str, ...]:
        if line.entry is None:
            return "", "", "", ""
        args = arguments_of(self.known.written(line.name))
        way = way_of(line.entry)
        texts = (line.entry.message.task, way, args, line.entry.description)
        return tuple(map(self.screen.shown, texts))


@lru_cache(maxsize=4096)  # many entries run at the same instant
def _ahead(at: Instant, now: Instant, zone: ZoneInfo, width: int) -> str:
    """Return an instant to come, and how far ahead it lies."""
    return f"{short_moment(at, now, zone):{_TIME}}{until(at, now):>{width - _TIME}}"


@lru_cache(maxsize=4096)
def _ago(at: Instant, now: Instant, zone: ZoneInfo) -> str:
    """Return an instant of the past, and how long ago that was."""
    return f"{short_moment(at, now, zone):{_TIME}}{since(at, now):>{_LAST - _TIME}}"


def way_of(entry: Entry) -> str:
    """Return the queue, or the exchange and key, that an entry's messages go to."""
    route = entry.message.route
    return route.queue or f"{route.exchange} {route.routing_key}"


def arguments_of(written: Mapping[str, Any]) -> str:
    """Return an entry's arguments as they would be written, with secrets masked."""
    args, kwargs = written.get("args") or (), written.get("kwargs") or {}
    return ", ".join([*map(safe, args), *safe_items(kwargs)])


def _summary(
    known: ScheduleView, lines: Sequence[Line], limit: int | None, now: Instant
) -> Iterator[str]:
    total = len(known.config.entries) + len(known.config.bad)
    number = counted(total, "entry")
    if len(lines) < total:
        number = f"{len(lines)} of {number}"
    parts = [number]
    states = Counter(line.state for line in lines)
    for state in ("bad", "FAIL", "refused", "held", "paus", "over"):
        if found := states[state]:
            parts.append(f"{found} {_IN_WORDS.get(state, state)}")
    if uncertain := known.uncertain(line.entry for line in lines if line.entry):
        parts.append(f"{counted(uncertain, 'slot')} uncertain")
    text = f"{', '.join(parts)}."
    coming = [line for line in lines if line.next is not None]
    if coming:
        first = min(coming, key=_by_next)
        at = first.next or now
        text += f"  Next: {escaped(first.name)} {until(at, now)}."
    if limit is not None and limit < len(lines):
        shown = f"Showing {limit}: --limit {len(lines)} shows all."
        text += f"  {together(shown)}"
    if known.config.bad:
        text += f"  {together('What is wrong: beatd check.')}"
    yield text
    if known.differs:
        yield OTHER_ENTRIES


# For programs ----------------------------------------------------------------------


def _document(
    known: ScheduleView,
    lines: Sequence[Line],
    matched: int,
    now: Instant,
    zone: ZoneInfo,
    recent: Mapping[str, object],
) -> bytes:
    return document(
        "beatd.list/1",
        now,
        zone,
        zone=str(zone),
        source={
            "kind": "configuration" if known.file is None else "state file",
            "config": known.config.source.name,
            "state_file": str(known.path),
            "differs": known.differs,
            "scheduler": known.scheduler or None,
        },
        total=len(known.config.entries) + len(known.config.bad),
        matched=matched,
        uncertain=known.uncertain(known.config.entries),
        entries=[
            {**_data(known, line, now, zone), "recent": recent.get(line.name, [])}
            for line in lines
        ],
    )


def _data(
    known: ScheduleView, line: Line, now: Instant, zone: ZoneInfo
) -> dict[str, object]:
    entry = line.entry
    if entry is None:
        return {"name": line.name, "state": "bad", "reason": line.note}
    return {
        "name": line.name,
        "state": line.state or "new",
        "task": entry.message.task,
        "queue": entry.message.route.queue or None,
        "exchange": entry.message.route.exchange,
        "routing_key": entry.message.route.routing_key,
        "schedule": known.words(entry),
        "zone": str(zone_of(entry, known.zone)),
        "enabled": not line.paused,
        "description": entry.description,
        **stamps("next", line.next, zone),
        "due_now": line.next is not None and line.next <= now,
        **stamps("last_run_at", line.last, zone),
        "total_run_count": line.mark.runs if line.mark else 0,
        "dropped": known.dropped(entry),
        **({"reason": why} if (why := line.refused or line.held) else {}),
        **({"reason": line.paused} if entry.name in known.pauses else {}),
    }
