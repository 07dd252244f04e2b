"""`beatd alert test`: try who would be told of alerts, before one is needed."""

from collections.abc import Iterator
from typing import Any

import click

from beatd.alerts.courier import (
    COMMAND,
    FAILED,
    FUNCTION,
    OK,
    START,
    Courier,
    Parcel,
    target_of,
)
from beatd.alerts.event import Event
from beatd.alerts.ways import NotTold
from beatd.cli.options import COLOR, SOURCE, wanted
from beatd.cli.output import Failure, screen
from beatd.cli.schedule_view import named
from beatd.cli.usage import CONFIG, NOTHING, USAGE, exit_statuses, group_of
from beatd.clock import SystemClock
from beatd.config.loading import Config, load
from beatd.config.settings import AlertKind
from beatd.instant import SECOND, span_of
from beatd.scheduler.pulse import Pulse
from beatd.text import counted, escaped

EPILOG = exit_statuses(0, 1, USAGE, NOTHING, CONFIG)

_WAYS = (START, FAILED, OK, COMMAND, FUNCTION)
"""In this order: a dead-man's switch is told last that all is well."""


class NoAlerts(Failure):
    """Nobody is told of anything."""

    exit_code = NOTHING


@group_of("alert", EPILOG)
def command() -> None:
    """Alerts: who is told when an entry is late, missed or failed."""


@command.command("test", epilog=EPILOG)
@SOURCE
@click.argument("entries", nargs=-1, metavar="[ENTRY|GLOB]...")
@COLOR
@click.pass_context
def try_alerts(context: click.Context, /, entries: tuple[str, ...], **_: Any) -> None:
    """Call, run and ping all that alerts would, and say what happened with each.

    Each is told of an alert of the kind 'failed' whose text says that it is a test; a
    dead-man's switch is called for a start, a failure and a success. Without ENTRY
    each target is tried once. Nothing is tried a second time.
    """
    config = load(wanted(context))
    out, clock = screen(context), SystemClock()
    known = {entry.name for entry in config.entries}
    chosen = sorted(named(known, entries)) if entries else sorted(known)
    courier = _courier(config, clock)
    failures = tries = 0
    for name, parcel in _parcels(config, chosen, clock.now(), each=bool(entries)):
        began = clock.elapsed()
        try:
            courier.deliver(parcel)
            said = f"ok, {(clock.elapsed() - began) / SECOND:.1f} s"
        except NotTold as error:
            failures += 1
            said = f"FAILED: {escaped(str(error))}"
        tries += 1
        out.say(f"{out.shown(name)}: {_shown(config, parcel)}: {said}")
    if not tries:
        raise NoAlerts(_nobody(config, chosen))
    if failures:
        raise Failure(f"{failures} of {counted(tries, 'try')} failed")


def _courier(config: Config, clock: SystemClock) -> Courier:
    settings = config.settings
    return Courier(
        config.alerts,
        settings.beat_namespace,
        settings.zone,
        span_of(settings.beat_alert_timeout),
        clock,
        Pulse(),
    )


def _parcels(
    config: Config, names: list[str], now: int, *, each: bool
) -> Iterator[tuple[str, Parcel]]:
    """Yield what to try; without `each`, every target once."""
    words = "this is a test of beatd's alerts: nothing has failed"
    seen = set()
    for name in names:
        rule = config.alerts.of(name)
        event = Event(str(AlertKind.FAILED), name, now, words, now, number=1)
        for way in _WAYS if rule else ():
            target = target_of(way, rule) if rule else ""
            if target and (each or target not in seen):
                seen.add(target)
                yield name, Parcel(way, event)


def _shown(config: Config, parcel: Parcel) -> str:
    rule = config.alerts.of(parcel.event.entry)
    if rule and parcel.way == COMMAND and rule.command:
        return f"command {escaped(rule.command[0])}"
    if rule and parcel.way == FUNCTION:
        return f"function {rule.function}"
    return f"ping {parcel.way}"


def _nobody(config: Config, names: list[str]) -> str:
    if any(config.alerts.of(name) for name in names):
        return (
            "alerts go to the log only: there is no ping, command or function to try\n"
            "  give the rule one: docs/alerts.md"
        )
    return (
        "there is no rule of alerts for these entries\n"
        "  set beat_alerts, or an entry's alerts: docs/alerts.md"
    )
