"""`beatd worker`: options as `celery worker` has them."""

import sys
from typing import TYPE_CHECKING, Any

import click

from beatd.cli.options import DETACH, PROCESS, SOURCE, given
from beatd.cli.output import Failure, confirmed, counted, printable
from beatd.cli.usage import CONFIG, USAGE, Number, Whole, exit_statuses
from beatd.pools import NAMES
from beatd.worker.autoscale import bounds_of

if TYPE_CHECKING:
    from beatd.config.options import Options


LIMIT = Number(0, min_open=True)


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


def _size(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | str | None:
    if value is None or value == "auto":
        return value
    number: int = Whole(0)(value, parameter, context)
    return number


@click.command(
    "worker",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, USAGE, CONFIG),
)
@SOURCE
@PROCESS
@DETACH
@click.option(
    "-n",
    "--hostname",
    metavar="NAME",
    help="Node name; %h, %n, %d expand.  [default: celery@%h]",
)
@click.option(
    "-c",
    "--concurrency",
    callback=_size,
    metavar="N|auto",
    help="Size of the pool.  [default: auto, the number of processors]",
)
@click.option(
    "-P",
    "--pool",
    type=click.Choice([*NAMES, "processes"]),
    help="What runs the tasks.  [default: prefork, also called processes]",
)
@click.option(
    "--autoscale",
    callback=_bounds,
    metavar="MAX,MIN",
    help="Size of the pool: grow with the load, shrink when it was low for 30 s.",
)
@click.option(
    "--autoscale-keepalive",
    type=Number(0),
    envvar="AUTOSCALE_KEEPALIVE",
    metavar="SECONDS",
    help="Instead of these 30 s.",
)
@click.option(
    "--pool-start-method",
    type=click.Choice(["fork", "spawn"]),
    help="Fork children from the worker's process, or from a new one.  [default: fork]",
)
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
@click.option("--time-limit", type=LIMIT, metavar="SECONDS", help="End a run by force.")
@click.option(
    "--soft-time-limit", type=LIMIT, metavar="SECONDS", help="Raise inside the task."
)
@click.option(
    "--max-tasks-per-child",
    "--maxtasksperchild",
    type=Whole(1),
    metavar="N",
    help="Replace a child after N tasks.",
)
@click.option(
    "--max-memory-per-child",
    "--maxmemperchild",
    type=Whole(1),
    metavar="KIB",
    help="Replace a child that grew beyond.",
)
@click.option(
    "--prefetch-multiplier",
    type=Whole(0),
    metavar="N",
    help="Messages held for each run at the same time.  [default: 4]",
)
@click.option(
    "--disable-prefetch",
    is_flag=True,
    help="Take a message only when a run can begin.",
)
@click.option(
    "--purge",
    "--discard",
    is_flag=True,
    help="First remove what waits in the queues; asks on a terminal.",
)
@click.option(
    "-E", "--task-events", "--events", is_flag=True, help="Send events of tasks."
)
@click.option(
    "--without-gossip", is_flag=True, help="Accepted; no worker needs others."
)
@click.option(
    "--without-mingle", is_flag=True, help="Do not ask others what was revoked."
)
@click.option("--without-heartbeat", is_flag=True, help="No events of the worker.")
@click.option(
    "--heartbeat-interval",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help="Between two heartbeats.  [default: 2]",
)
@click.option(
    "-S",
    "--statedb",
    metavar="FILE",
    help="Remember there what was revoked; %n, %h, %d expand.",
)
@click.option("-B", "--beat", is_flag=True, help="Run the scheduler too; safe on all.")
@click.pass_context
def command(context: click.Context, /, beat: bool, purge: bool, **_: Any) -> None:
    """Run a worker: take tasks from queues and run them."""
    from beatd.config.options import Options
    from beatd.service.running import run_worker

    words = given(context)
    del words["beat"], words["purge"]
    options = Options(**words)
    if purge:
        _purge(options)
    context.exit(run_worker(options, beat=beat))


def _purge(options: "Options") -> None:
    """Remove what waits in the worker's queues, if that is really meant."""
    from beatd import brokers
    from beatd.config.loading import load
    from beatd.service import daemon, wiring
    from beatd.service.running import choice_of

    config = load(options.wanted())
    queues = wiring.queues_of(config, choice_of(options))
    if sys.stdin.isatty():
        named = ", ".join(map(printable, queues))
        if not confirmed(f"remove all messages that wait in {named}?"):
            raise Failure("nothing was removed, and no worker started")
    if daemon.wants_detaching(options.detach):
        return  # the process in the background does it, and nobody is asked there
    broker = brokers.of_settings(config.settings, config.settings.read_urls)
    try:
        number = broker.purge(queues)
    finally:
        broker.close()
    click.echo(f"removed {counted(number, 'message')}", err=True)
