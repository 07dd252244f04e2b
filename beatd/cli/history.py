"""`beatd history`: what became of the last slots."""

from collections.abc import Sequence
from typing import Any

import click

from beatd.cli.options import COLOR, JSON, SOURCE, wanted
from beatd.cli.output import document, screen, stamps
from beatd.cli.past import lost_data, past_view, run_data, table
from beatd.cli.schedule_view import named
from beatd.cli.times import past_instant
from beatd.cli.usage import (
    CONFIG,
    NOTHING,
    UNAVAILABLE,
    USAGE,
    Whole,
    exit_statuses,
)
from beatd.clock import SystemClock
from beatd.config.loading import load


@click.command(
    "history",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE, NOTHING, UNAVAILABLE, CONFIG),
)
@SOURCE
@click.argument("entries", nargs=-1, metavar="[ENTRY|GLOB]...")
@click.option("--from", "begin", metavar="TIME", help="Only slots from then on.")
@click.option("--to", "end", metavar="TIME", help="Only slots up to then.")
@click.option(
    "--limit",
    type=Whole(1),
    default=20,
    show_default=True,
    metavar="N",
    help="At most N lines.",
)
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    entries: Sequence[str],
    begin: str | None,
    end: str | None,
    limit: int,
    as_json: bool,
    **_: Any,
) -> None:
    """Past runs, the newest first: sent and how late, or dropped and why.

    'sent' says that a message was put on a queue; STATE and ENDED are what the result
    backend knows of its run, 'unknown' where it knows nothing. TIME is '15:00',
    '2027-03-28' or '2027-03-28 02:30', in the config's time zone.
    """
    now = SystemClock().now()
    known = past_view(load(wanted(context)))
    zone = known.zone
    first = None if begin is None else past_instant("--from", begin, zone, now)
    last = None if end is None else past_instant("--to", end, zone, now)
    names = {entry.name for entry in known.config.entries} | {*known.history}
    chosen = named(names, entries) if entries else names
    total = sum(1 for _ in known.runs(chosen, first, last))
    runs = known.newest(sorted(chosen), limit, first, last)
    if as_json:
        data = {
            **stamps("since", known.history.since, zone),
            "lost": lost_data(known.history, zone),
            "total": total,
            "runs": [run_data(run, zone) for run in runs],
        }
        name = "beatd.history/1"
        click.echo(
            document(name, now, zone, zone=str(zone), broker=known.place, **data)
        )
        return
    out = screen(context)
    if runs:
        out.say("\n".join(table(runs, now, zone, out, named=len(chosen) > 1)))
        out.say()
    more = f"the last {len(runs)} of {total}: --limit {total} shows all.  "
    hidden = more if len(runs) < total else ""
    out.say(out.wrapped(f"{hidden}{known.reach}"))
