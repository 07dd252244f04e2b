"""`beatd export`: the schedule for calendars and for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import click
import msgspec

from beatd.cli.options import SOURCE
from beatd.cli.output import document, stamps
from beatd.cli.schedule_view import ScheduleView, chosen, schedule_view, zone_of
from beatd.cli.usage import CONFIG, NOTHING, USAGE, Whole, exit_statuses, group_of
from beatd.clock import SystemClock
from beatd.instant import DAY, Instant
from beatd.migrate.calendar import Forecast, calendar, forecast
from beatd.text import counted
from beatd.version import __version__

EPILOG = exit_statuses(0, USAGE, NOTHING, CONFIG)
ENTRIES = click.argument("entries", nargs=-1, metavar="[ENTRY|GLOB]...")
DAYS = click.option(
    "--days",
    type=Whole(1, 3660),
    default=30,
    show_default=True,
    metavar="N",
    help="How far to look ahead.",
)
LIMIT = click.option(
    "--limit",
    type=Whole(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="At most N runs of an entry.",
)


@group_of("export", EPILOG)
@SOURCE
def command(**_: Any) -> None:
    """The schedule for calendars and for programs; arguments of tasks are left out."""


@command.command("ical", epilog=EPILOG)
@SOURCE
@ENTRIES
@DAYS
@LIMIT
@click.pass_context
def export_ical(context: click.Context, /, **_: Any) -> None:
    """As a calendar (RFC 5545): `beatd export ical > beatd.ics`.

    An entry is one event that recurs, where a rule says exactly when it runs. Else, as
    where its clock changes, it has an event for each run of the next days.
    """
    ahead = Ahead.of(context)
    namespace = ahead.known.config.settings.beat_namespace
    lines = calendar(f"beatd {namespace}", ahead.forecasts, ahead.now, __version__)
    click.echo("".join(lines).encode(), nl=False)
    dated = [one for one in ahead.forecasts if one.rule is None and one.runs]
    if dated:
        number, days = counted(len(dated), "entry"), context.params["days"]
        why = "no recurrence rule says exactly when they run"
        click.echo(f"{number} run by run for {days} days (--days): {why}", err=True)
    if idle := sum(not one.runs for one in ahead.forecasts):
        click.echo(f"{counted(idle, 'entry')} without a coming run", err=True)
    for one in dated:
        if one.is_cut:
            text = f"{one.entry.name!r}: only the first {counted(len(one.runs), 'run')}"
            click.echo(f"{text}, --limit N has more", err=True)


@command.command("json", epilog=EPILOG)
@SOURCE
@ENTRIES
@DAYS
@LIMIT
@click.option("--lines", is_flag=True, help="An entry in each line, and no document.")
@click.pass_context
def export_json(context: click.Context, /, lines: bool, **_: Any) -> None:
    """As JSON: each entry, its rule if one is exact, and its coming runs."""
    ahead = Ahead.of(context)
    entries = [ahead.data(one) for one in ahead.forecasts]
    if lines:
        for entry in entries:
            click.echo(msgspec.json.encode({"schema": "beatd.export.entry/1", **entry}))
        return
    click.echo(
        document(
            "beatd.export/1",
            ahead.now,
            ahead.zone,
            zone=str(ahead.zone),
            **stamps("until", ahead.end, ahead.zone),
            entries=entries,
        )
    )


@dataclass(frozen=True, slots=True)
class Ahead:
    """The entries that were asked for, and when they run from now on."""

    known: ScheduleView
    forecasts: Sequence[Forecast]
    now: Instant
    end: Instant

    @classmethod
    def of(cls, context: click.Context) -> "Ahead":
        """Return what the command line asks for; say what cannot be used."""
        options, now = context.params, SystemClock().now()
        end = now + options["days"] * DAY
        known = schedule_view(context)
        usable, bad = chosen(known.config, options["entries"])
        coming = known.coming(usable, now)
        found = [
            forecast(entry, coming[entry.name], now, end, options["limit"])
            for entry in usable
        ]
        if bad:
            hint = f"{counted(len(bad), 'entry')} cannot be used: beatd check"
            click.echo(hint, err=True)
        return cls(known, found, now, end)

    @property
    def zone(self) -> ZoneInfo:
        """The zone of all times."""
        return self.known.zone

    def data(self, one: Forecast) -> dict[str, object]:
        """Return what programs get of an entry."""
        entry = one.entry
        return {
            "name": entry.name,
            "task": entry.message.task,
            "schedule": self.known.words(entry),
            "zone": str(zone_of(entry, self.zone)),
            "enabled": entry.policy.enabled,
            "description": entry.description,
            "rrule": one.rule,
            "runs": [stamps("at", run, self.zone) for run in one.runs],
            "more": one.is_cut,
        }
