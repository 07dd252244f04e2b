"""`beatd import`: last runs, entries and crontabs of other schedulers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from beatd.cli import plan as plans
from beatd.cli.options import COLOR, JSON, SOURCE, given, wanted
from beatd.cli.output import Failure, screen
from beatd.cli.plan import Plan
from beatd.cli.usage import (
    CONFIG,
    NOTHING,
    UNAVAILABLE,
    USAGE,
    Commands,
    exit_statuses,
)
from beatd.clock import SystemClock
from beatd.config.loading import Config, load
from beatd.migrate.found import Found
from beatd.migrate.shelves import read_shelve
from beatd.text import counted

EPILOG = exit_statuses(0, 1, USAGE, NOTHING, UNAVAILABLE, CONFIG)
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


class Nothing(Failure):
    """There is nothing of the other scheduler."""

    exit_code = NOTHING


@click.group(
    "import",
    cls=Commands,
    no_args_is_help=False,
    epilog=EPILOG,
    context_settings={"max_content_width": 100},
)
@SOURCE
def command(**_: Any) -> None:
    """Take over from another scheduler: its last runs, its entries.

    Stop that scheduler first. After the import beatd's first start runs nothing a
    second time, and misses nothing that became due meanwhile.
    """


@command.command("celery", epilog=EPILOG)
@SOURCE
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Pass over objects of this class of the project's, as proj.sched.Ours.",
)
@YES
@DRY_RUN
@JSON
@COLOR
@click.pass_context
def import_celery(
    context: click.Context, /, file: Path, allowed: Sequence[str], **_: Any
) -> None:
    """Take over the last runs in celery beat's schedule file (celerybeat-schedule).

    FILE is named as for `celery beat -s`, and is left as it is; nothing that its
    pickles name is run. If beatd's schedule file is to have the same name, it is
    renamed to FILE.celery.
    """
    config = _config(context)
    found = read_shelve(file, config.settings.zone, allowed)
    _take_over(context, config, found, shelve=file)


def _config(context: click.Context) -> Config:
    return load(replace(wanted(context), unjudged=["beat_scheduler"]))


def _take_over(
    context: click.Context, config: Config, found: Found, shelve: Path | None = None
) -> None:
    """Show what is found, and do it if that is wanted."""
    out, options = screen(context), given(context)
    as_json = options["as_json"]
    plan = Plan.of(config, found, SystemClock().now())
    if not as_json:
        plans.show(plan, out)
    if not found.entries:
        raise Nothing(f"{found.source}: there are no entries")
    aside = None
    if do := plans.is_wanted(plan, yes=options["yes"], dry_run=options["dry_run"]):
        aside = plans.carry_out(plan, shelve)
    if as_json:
        click.echo(plans.as_document(plan, written=do))
    elif do:
        number = counted(len(plan.taken), "last run")
        out.say(f"took over {number}: start beatd, and not the other one again")
        if aside is not None:
            out.say(f"{shelve} is kept as {aside}: beatd's schedule file has its name")
    elif plan.taken:
        hint = "nothing was changed.  With the other scheduler stopped: --yes does it"
        out.say(hint)
