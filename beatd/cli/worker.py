"""`beatd worker`: options as `celery worker` has them."""

from typing import Any

import click

from beatd.cli.options import PROCESS, SOURCE, given

POOLS = ("prefork", "threads", "solo")


@click.command("worker", context_settings={"max_content_width": 100})
@SOURCE
@PROCESS
@click.option("-n", "--hostname", metavar="NAME", help="Node name; %h, %n, %d expand.")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Size of the pool.")
@click.option("-P", "--pool", type=click.Choice(POOLS), help="[default: prefork]")
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
    from beatd.service import Options, run_worker

    options = given(context)
    options.pop("beat", None)
    context.exit(run_worker(Options(**options), beat=beat))
