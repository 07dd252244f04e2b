"""`beatd worker`: options as `celery worker` has them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from beatd.cli.options import DETACH, NODE, PROCESS, SOURCE, Command, given, option_of
from beatd.cli.output import Failure, confirmed
from beatd.cli.usage import CONFIG, USAGE, Seconds, Whole, exit_statuses
from beatd.config.options import Options
from beatd.config.settings import (
    COUNT,
    POSITIVE,
    SECONDS,
    SOME_SECONDS,
    Kind,
    Row,
    table,
)
from beatd.config.switches import HEARTBEAT_INTERVAL, WORKER_NODE
from beatd.instant import SECOND
from beatd.text import counted, escaped
from beatd.worker.autoscale import KEEPALIVE, bounds_of


def setting(name: str) -> Callable[[Command], Command]:
    """Return the option that stands for a setting, made from the setting's row."""
    row = table()[name]
    assert row.switch is not None, f"{name} has no option in its row"
    return option_of(row.switch, _type_of(row), row.default)


_NUMBERS: Mapping[Kind, Whole | Seconds] = {
    COUNT: Whole(0),
    POSITIVE: Whole(1),
    SECONDS: Seconds(0),
    SOME_SECONDS: Seconds(0, min_open=True),
}


def _type_of(row: Row) -> "click.ParamType[Any]":
    """Return click's type for a setting: a number, a choice, either, or text."""
    numbers = [_NUMBERS[kind] for kind in row.kinds if kind in _NUMBERS]
    choices = [word for kind in row.kinds for word in kind.choices]
    match numbers, choices:
        case [number], []:
            return number
        case [], [_, *_]:
            return click.Choice(choices)
        case [number], [_, *_]:
            return _NumberOr(number, choices)
    return click.STRING


class _NumberOr(click.types.StringParamType):
    """A number, or one of a few words."""

    def __init__(self, number: Whole | Seconds, words: Sequence[str]) -> None:
        self._number = number
        self._words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        return value if value in self._words else self._number(value, param, ctx)


def _bounds(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        return bounds_of(value)
    except ValueError:
        expected = f"expected MAX,MIN, as 10,3, or MAX; got {value!r}"
        raise click.BadParameter(expected) from None


@click.command(
    "worker",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE, CONFIG),
)
@SOURCE
@PROCESS
@DETACH
@NODE(help=f"Node name; %h, %n, %d expand.  [default: {WORKER_NODE}]")
@setting("worker_concurrency")
@setting("worker_pool")
@click.option(
    "--autoscale",
    callback=_bounds,
    metavar="MAX,MIN",
    help="Size of the pool: grow with the load, shrink when it was low for"
    f" {KEEPALIVE // SECOND} s.",
)
@click.option(
    "--autoscale-keepalive",
    type=Seconds(0),
    envvar="AUTOSCALE_KEEPALIVE",
    metavar="SECONDS",
    help=f"Instead of these {KEEPALIVE // SECOND} s.",
)
@setting("worker_pool_start_method")
@click.option(
    "-O",
    "--optimization",
    type=click.Choice(["fair", "default"]),
    expose_value=False,
    help="Accepted; both are fair: no task waits behind a long one.",
)
@click.option("-Q", "--queues", metavar="LIST", help="Take from these, by commas.")
@click.option("-X", "--exclude-queues", metavar="LIST", help="Do not take from these.")
@click.option("-I", "--include", metavar="LIST", help="Import these modules too.")
@setting("task_time_limit")
@setting("task_soft_time_limit")
@setting("worker_max_tasks_per_child")
@setting("worker_max_memory_per_child")
@setting("worker_prefetch_multiplier")
@setting("worker_disable_prefetch")
@click.option(
    "--purge",
    "--discard",
    is_flag=True,
    help="First remove what waits in the queues; asks on a terminal.",
)
@setting("worker_send_task_events")
@setting("worker_enable_gossip")
@setting("worker_enable_mingle")
@setting("worker_enable_heartbeat")
@click.option(
    "--heartbeat-interval",
    type=Seconds(0, min_open=True),
    metavar="SECONDS",
    help=f"Between two heartbeats.  [default: {HEARTBEAT_INTERVAL:g}]",
)
@setting("worker_state_db")
@click.option("-B", "--beat", is_flag=True, help="Run the scheduler too; safe on all.")
@click.pass_context
def command(context: click.Context, /, beat: bool, purge: bool, **_: Any) -> None:
    """Run a worker: take tasks from queues and run them."""
    from beatd.service.worker import run_worker

    options = replace(Options.of(given(context)), schedules=beat)
    if purge:
        _purge(options)
    context.exit(run_worker(options, beat=beat))


def _purge(options: Options) -> None:
    """Remove the messages in the worker's queues, once that is confirmed."""
    from beatd import brokers
    from beatd.config.loading import load
    from beatd.service import daemon
    from beatd.service.wiring.choice import queues_of
    from beatd.service.worker import choice_of

    config = load(options.wanted())
    queues = queues_of(config, choice_of(options))
    if sys.stdin.isatty():
        named = ", ".join(map(escaped, queues))
        if not confirmed(f"remove all messages that wait in {named}?"):
            raise Failure("nothing was removed, and no worker started")
    if daemon.wants_detaching(options.detach):
        return  # the process in the background purges, and asks nobody
    broker = brokers.for_workers(config.settings, config.settings.read_urls)
    try:
        number = broker.purge(queues)
    finally:
        broker.close()
    click.echo(f"removed {counted(number, 'message')}", err=True)
