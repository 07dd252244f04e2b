"""`beatd show`: all that is known of one entry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import click

from beatd.cli.explain import words_of_change
from beatd.cli.list import arguments_of, way_of
from beatd.cli.options import COLOR, JSON, SOURCE
from beatd.cli.output import (
    Failure,
    Screen,
    document,
    moment,
    screen,
    stamps,
    together,
    until,
)
from beatd.cli.past import (
    PastView,
    Run,
    at_second,
    lateness,
    past_view,
    run_data,
    table,
)
from beatd.cli.schedule_view import (
    ScheduleView,
    chosen,
    line_of,
    schedule_view,
    zone_of,
)
from beatd.cli.usage import CONFIG, NOTHING, USAGE, exit_statuses
from beatd.clock import SystemClock
from beatd.config.alert_rules import AlertRule
from beatd.config.entries import spec_of
from beatd.config.settings import safe
from beatd.errors import BeatdError
from beatd.instant import SECOND, Instant, Span, delay, duration
from beatd.schedules.clock_changes import clock_change_note
from beatd.text import counted, escaped
from beatd.timetable.entry import Entry, Overlap, Policy
from beatd.timetable.pages import What

_NEXT = 5
_LAST = 10

_RUN_TIMES = 24
"""Runs of which the run times are looked at: results may be large."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry, and what is known of it."""

    known: ScheduleView
    entry: Entry
    now: Instant
    coming: Sequence[Instant]
    past: PastView | None
    """None: the broker does not answer."""
    runs: Sequence[Run]
    """The last ones, the newest first."""

    @property
    def ran(self) -> list[Span]:
        """How long the last of these runs ran of which that is known, in order."""
        return [run.ran for run in reversed(self.runs) if run.ran is not None]

    @property
    def late(self) -> list[Span]:
        """How late slots were sent, in order of that."""
        if self.past is None:
            return []
        records = self.past.history.of(self.entry.name).records
        offset = self.entry.offset
        return sorted(one.late - offset for one in records if one.what is What.SENT)


@click.command(
    "show",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE, NOTHING, CONFIG),
)
@SOURCE
@click.argument("name", metavar="ENTRY")
@JSON
@COLOR
@click.pass_context
def command(context: click.Context, /, name: str, as_json: bool, **_: Any) -> None:
    """One entry: what it sends, when, by which rules, and what became of it.

    A glob shows each entry that it matches, but as JSON one only.
    """
    known = schedule_view(context)
    now = SystemClock().now()
    usable, bad = chosen(known.config, [name])
    coming = known.coming(usable, now)
    past = _past(known) if usable else None
    shown = []
    for entry in usable:
        runs = past.newest([entry.name], _RUN_TIMES) if past else []
        nexts = [*islice(coming[entry.name].since(now), _NEXT)]
        shown.append(Shown(known, entry, now, nexts, past, runs))
    if as_json and len(shown) + len(bad) > 1:
        raise click.BadParameter(f"{name!r} matches several entries: name one")
    if as_json and shown:
        click.echo(_document(shown[0]))
        return
    out = screen(context)
    parts = ["\n".join(_lines(one, out)) for one in shown]
    parts += [f"{out.shown(one.name)}: bad\n  {escaped(one.why)}" for one in bad]
    out.say("\n\n".join(parts))


def _past(known: ScheduleView) -> PastView | None:
    try:
        return past_view(known.config)
    except (BeatdError, Failure) as error:
        click.echo(f"no history: {error}", err=True)
        return None


def _lines(shown: Shown, out: Screen) -> Iterator[str]:
    known, entry, now = shown.known, shown.entry, shown.now
    zone, line = known.zone, partial(_line, out)
    written = known.written(entry.name)
    yield out.shown(entry.name)
    if entry.description:
        yield line("what", out.shown(entry.description))
    args = out.shown(arguments_of(written))
    yield line("task", f"{out.shown(entry.message.task)}({args})")
    options = written.get("options") or {}
    more = "".join(
        f"   {key} {safe(options[key])}" for key in sorted({*options} & _SAID)
    )
    yield line("queue", out.shown(way_of(entry) + more))
    own_zone = zone_of(entry, zone)
    # What is counted from the epoch says so, and has no zone.
    where = f", {own_zone}" if hasattr(entry.schedule, "zone") else ""
    yield line("schedule", out.shown(f"{_schedule(written)}{where}"))
    if place := line_of(known.config, entry.name):
        yield line("defined", out.shown(f"{place.file}:{place.line}"))
    yield line("policy", _apart(_policy(entry.policy, entry.offset), "   "))
    if rule := known.config.alerts.of(entry.name):
        told = ", ".join(rule.told)
        yield line("alerts", _apart(f"{told}   to: {', '.join(rule.ways)}", "   "))
    yield line("next", _apart(_next(shown), ", "))
    change = clock_change_note(entry.schedule, own_zone, now)
    yield line("clocks", out.shown(words_of_change(change, own_zone)))
    for trouble in (known.refused(entry), known.held(entry)):
        if trouble:
            yield line("trouble", escaped(trouble))
    yield line("counters", _counters(shown))
    yield line("lateness", _apart(_lateness(shown), "   "))
    yield line("run time", _run_time(shown.ran, out))
    if failed := next((run for run in shown.runs if run.error), None):
        slot = at_second(failed.record.slot, now, zone)
        yield line("failed", out.shown(f"{slot}   {failed.error}"))
    if shown.runs:
        yield ""
        yield from table(shown.runs[:_LAST], now, zone, out, named=False)
    if shown.past:
        yield ""
        yield out.wrapped(shown.past.reach)
    yield out.wrapped(f"source: {known.source}", 2)


_SAID = {"priority", "expires"}


def _schedule(written: Mapping[str, Any]) -> str:
    """Return the schedule of an entry in words."""
    spec: Any = spec_of(written["schedule"], relative=bool(written.get("relative")))
    return str(spec.describe())


def _line(out: Screen, head: str, text: str) -> str:
    lead = f"  {head:12} "
    return out.wrapped(lead + text, len(lead))


def _policy(policy: Policy, offset: Span) -> str:
    """Return the rules of an entry in words."""
    late = "only the latest late slot"
    if not policy.coalesce:
        late = f"each late slot, {policy.max_catchup} at most"
    parts = [f"catch-up: {late}"]
    if policy.misfire_grace is not None:
        parts.append(f"late by {duration(policy.misfire_grace)}: dropped")
    overlap = f"overlap: {policy.overlap.value}"
    if policy.overlap is not Overlap.ALLOW and policy.overlap_timeout is not None:
        overlap += f", for {duration(policy.overlap_timeout)} at most"
    parts += [overlap, f"jitter: {duration(offset) if offset else 'none'}"]
    if policy.max_runs is not None:
        parts.append(f"at most {counted(policy.max_runs, 'run')}")
    if policy.run_on_start:
        parts.append("runs at its first start")
    return "   ".join(parts)


def _apart(text: str, gap: str) -> str:
    """Return a text whose lines end only at these gaps."""
    return gap.join(map(together, text.split(gap)))


def _next(shown: Shown) -> str:
    if paused := shown.known.paused(shown.entry):
        return paused
    if not shown.coming:
        return "no more runs"
    zone, now = shown.known.zone, shown.now
    first, *others = shown.coming
    words = f"{moment(first, now, zone)} {zone} ({until(first, now)})"
    return ", ".join([words, *(moment(one, now, zone) for one in others)])


def _counters(shown: Shown) -> str:
    mark = shown.known.mark(shown.entry)
    dropped = shown.known.dropped(shown.entry)
    sent = f"{mark.runs} sent by this schedule" if mark else "none sent yet"
    if not dropped:
        return sent
    drops = ", ".join(f"{number} {why}" for why, number in sorted(dropped.items()))
    return f"{sent}; dropped: {drops}"


def _lateness(shown: Shown) -> str:
    late = shown.late
    if not late:
        return "unknown: the history has no run"
    p50, p99 = _share(late, 50), _share(late, 99)
    return (
        f"p50 {lateness(p50)}   p99 {lateness(p99)}   worst {lateness(late[-1])}"
        f"   over {counted(len(late), 'run')}"
    )


def _run_time(ran: Sequence[Span], out: Screen) -> str:
    if not ran:
        return "unknown: no result has it"
    p50, over = _share(sorted(ran), 50), counted(len(ran), "run")
    return f"p50 {delay(p50)}   {_picture(ran, out)}   over {over}"


_BARS = "_.-:=+*#", "▁▂▃▄▅▆▇█"
"""For eighths of the longest, in ASCII and in other text."""


def _picture(spans: Sequence[Span], out: Screen) -> str:
    """Return a bar for each length, the longest one full."""
    bars, most = _BARS[out.utf8], max(spans)
    return "".join(bars[span * 7 // most if most else 0] for span in spans)


def _share(sorted_spans: Sequence[Span], percent: int) -> Span:
    """Return what so many in a hundred do not exceed."""
    return sorted_spans[min(len(sorted_spans) * percent // 100, len(sorted_spans) - 1)]


def _alerts(rule: AlertRule | None) -> dict[str, object] | None:
    """Return for a JSON document what is told of an entry, and by which ways."""
    return {"told": rule.told, "ways": rule.ways} if rule else None


def _document(shown: Shown) -> bytes:
    known, entry = shown.known, shown.entry
    zone, late, ran = known.zone, shown.late, sorted(shown.ran)
    place = line_of(known.config, entry.name)
    history = shown.past.history if shown.past else None
    mark = known.mark(entry)
    return document(
        "beatd.show/1",
        shown.now,
        zone,
        zone=str(zone),
        name=entry.name,
        description=entry.description,
        task=entry.message.task,
        queue=way_of(entry),
        schedule=_schedule(known.written(entry.name)),
        schedule_zone=str(zone_of(entry, zone)),
        defined=f"{place.file}:{place.line}" if place else None,
        policy=_policy(entry.policy, entry.offset),
        alerts=_alerts(known.config.alerts.of(entry.name)),
        paused=known.paused(entry) or None,
        next=[stamps("at", one, zone) for one in shown.coming],
        refused=known.refused(entry) or None,
        held=known.held(entry) or None,
        sent=mark.runs if mark else 0,
        dropped=[
            {"reason": why, "slots": number}
            for why, number in sorted(known.dropped(entry).items())
        ],
        late={
            "runs": len(late),
            "p50": _share(late, 50) / SECOND if late else None,
            "p99": _share(late, 99) / SECOND if late else None,
            "worst": late[-1] / SECOND if late else None,
        },
        run_time={
            "runs": len(ran),
            "p50": _share(ran, 50) / SECOND if ran else None,
            "p99": _share(ran, 99) / SECOND if ran else None,
            "worst": ran[-1] / SECOND if ran else None,
        },
        **stamps("since", history.since if history else None, zone),
        runs=[run_data(run, zone) for run in shown.runs[:_LAST]],
    )
