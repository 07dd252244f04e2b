"""`beatd worker`: options as `celery worker` has them."""

from typing import Any

import click

from beatd.cli.options import PROCESS, SOURCE, given
from beatd.pools import NAMES
from beatd.worker.autoscale import bounds_of


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


@click.command("worker", context_settings={"max_content_width": 100})
@SOURCE
@PROCESS
@click.option("-n", "--hostname", metavar="NAME", help="Node name; %h, %n, %d expand.")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Size of the pool.")
@click.option("-P", "--pool", type=click.Choice(NAMES), help="[default: prefork]")
@click.option(
    "--autoscale",
    callback=_bounds,
    metavar="MAX,MIN",
    help="Size of the pool: grow with the load, shrink when it was low for 30 s.",
)
@click.option(
    "--autoscale-keepalive",
    type=click.FloatRange(0),
    envvar="AUTOSCALE_KEEPALIVE",
    metavar="SECONDS",
    help="Instead of these 30 s.",
)
@click.option(
    "--pool-start-method",
    type=click.Choice(["fork", "spawn"]),
    expose_value=False,
    help="Accepted; children are forked, from a process that has no threads.",
)
@click.option(
    "-O",
    "optimization",
    type=click.Choice(["fair", "default"]),
    expose_value=False,
    help="Accepted; both are fair: no task waits behind a long one.",
)
@click.option("-Q", "--queues", metavar="LIST", help="Take from these, by commas.")
@click.option("-X", "--exclude-queues", metavar="LIST", help="Do not take from these.")
@click.option("-I", "--include", metavar="LIST", help="Import these modules too.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="End a run by force.")
@click.option(
    "--soft-time-limit", type=float, metavar="SECONDS", help="Raise inside the task."
)
@click.option(
    "--max-tasks-per-child",
    "--maxtasksperchild",
    type=click.IntRange(1),
    metavar="N",
    help="Replace a child after N tasks.",
)
@click.option(
    "--max-memory-per-child",
    "--maxmemperchild",
    type=click.IntRange(1),
    metavar="KIB",
    help="Replace a child that grew beyond.",
)
@click.option(
    "--prefetch-multiplier", type=click.IntRange(0), metavar="N", help="[default: 4]"
)
@click.option("-B", "--beat", is_flag=True, help="Run the scheduler too; safe on all.")
@click.pass_context
def command(context: click.Context, /, beat: bool, **_: Any) -> None:
    """Run a worker: take tasks from queues and run them."""
    from beatd.options import Options
    from beatd.service import run_worker

    options = given(context)
    options.pop("beat", None)
    context.exit(run_worker(Options(**options), beat=beat))
