"""`beatd pause` and `beatd resume`: entries that rest while beatd runs."""

import getpass
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import click

from beatd.brokers.base import SendingBroker
from beatd.cli.options import SOURCE, wanted
from beatd.cli.output import Failure
from beatd.cli.schedule_view import named
from beatd.cli.usage import CONFIG, NOTHING, UNAVAILABLE, USAGE, exit_statuses
from beatd.clock import SystemClock
from beatd.config.loading import Config, load
from beatd.scheduler.pauses import BOOK, Pause, pause_notes, read_pauses
from beatd.text import counted, escaped, listed

EPILOG = exit_statuses(0, USAGE, NOTHING, UNAVAILABLE, CONFIG)
ENTRIES = click.argument("entries", nargs=-1, metavar="ENTRY|GLOB...", required=True)


class NothingThere(Failure):
    """There is nothing to pause, or to resume."""

    exit_code = NOTHING


@click.command("pause", context_settings={"max_content_width": 100}, epilog=EPILOG)
@SOURCE
@ENTRIES
@click.option("--note", default="", metavar="TEXT", help="Why, for other people.")
@click.pass_context
def command(
    context: click.Context, /, entries: Sequence[str], note: str, **_: Any
) -> None:
    """Let entries rest until `beatd resume`: their slots are dropped, and recorded.

    The scheduler that leads sees it within some three seconds. It holds across restarts
    and fail-overs.
    """
    with _broker(context) as (config, broker):
        known = {one.name for one in config.entries} | {one.name for one in config.bad}
        chosen = sorted(named(known, entries))
        pause = Pause(note, SystemClock().now(), _user())
        broker.write_notes(BOOK, pause_notes(dict.fromkeys(chosen, pause)))
    names = escaped(listed(chosen, 10))
    click.echo(f"paused {counted(len(chosen), 'entry')}: {names}")
    click.echo(f"undo: beatd resume {escaped(shlex.join(entries))}")


@click.command("resume", context_settings={"max_content_width": 100}, epilog=EPILOG)
@SOURCE
@ENTRIES
@click.pass_context
def resume(context: click.Context, /, entries: Sequence[str], **_: Any) -> None:
    """Let entries go on that were paused, by people or by beatd.

    They go on with their next slots; failures are counted anew.
    """
    with _broker(context) as (_config, broker):
        paused = read_pauses(broker)
        if not paused:
            raise NothingThere("no entry is paused while beatd runs")
        chosen = sorted(named(paused, entries))
        broker.write_notes(BOOK, {}, chosen)
    names = escaped(listed(chosen, 10))
    click.echo(f"resumed {counted(len(chosen), 'entry')}: {names}")


@contextmanager
def _broker(context: click.Context) -> Iterator[tuple[Config, SendingBroker]]:
    """Yield the config, and the broker at which its scheduler leads."""
    from beatd.service.wiring.looking import broker_to_look_at

    config = load(wanted(context))
    broker = broker_to_look_at(config)
    if broker is None:
        text = "no scheduler has run with this config: there is no broker"
        raise NothingThere(text)
    with closing(broker):
        yield config, broker


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""
