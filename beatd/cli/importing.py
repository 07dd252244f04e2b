"""`beatd import`: last runs, entries and crontabs of other schedulers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from beatd.cli import plan as plans
from beatd.cli.config_out import question, write_entries, write_module
from beatd.cli.crontab_out import crontab_module
from beatd.cli.options import COLOR, JSON, SOURCE, given
from beatd.cli.output import Failure, screen
from beatd.cli.plan import Plan
from beatd.cli.usage import (
    CONFIG,
    NOTHING,
    UNAVAILABLE,
    USAGE,
    exit_statuses,
    group_of,
)
from beatd.clock import SystemClock
from beatd.config.loading import Config, examine_source, load
from beatd.config.options import Options
from beatd.config.places import DEFAULT_MODULE
from beatd.config.settings import file_of_url, mask_url
from beatd.config.source import Source
from beatd.errors import ConfigError
from beatd.migrate.django_tables import read_database, read_django
from beatd.migrate.found import Found
from beatd.migrate.redbeat import RedBeat
from beatd.migrate.shelves import read_shelve
from beatd.text import counted

EPILOG = exit_statuses(0, 1, USAGE, NOTHING, UNAVAILABLE, CONFIG)
CONFIG_OUT = click.option(
    "--config-out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Only write those entries that the config lacks, as a config module.",
)
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


class Nothing(Failure):
    """There is nothing of the other scheduler."""

    exit_code = NOTHING


@group_of("import", EPILOG)
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


@command.command("redbeat", epilog=EPILOG)
@SOURCE
@click.option(
    "--key-prefix",
    metavar="PREFIX",
    help="What RedBeat's keys begin with.  [default: redbeat_key_prefix, or redbeat:]",
)
@CONFIG_OUT
@YES
@DRY_RUN
@JSON
@COLOR
@click.pass_context
def import_redbeat(
    context: click.Context,
    /,
    key_prefix: str | None,
    config_out: Path | None,
    **_: Any,
) -> None:
    """Take over RedBeat's last runs, or write its entries as a config module.

    Its Redis is what redbeat_redis_url names, else the broker.
    """
    config = _config(context, may_lack=config_out is not None)
    _bring(context, config, RedBeat(config, key_prefix).read(), config_out)


@command.command("django-celery-beat", epilog=EPILOG)
@SOURCE
@click.option(
    "--database",
    metavar="URL",
    help="Its database without Django, if that is SQLite: sqlite:///db.sqlite3.",
)
@CONFIG_OUT
@YES
@DRY_RUN
@JSON
@COLOR
@click.pass_context
def import_django_celery_beat(
    context: click.Context,
    /,
    database: str | None,
    config_out: Path | None,
    **_: Any,
) -> None:
    """Take over the last runs in Django's tables, or write a config module of them.

    Django is asked, by the settings of the project that -A names. Without -A,
    $DJANGO_SETTINGS_MODULE or --database says where the tables are.
    """
    config = _config(context, may_lack=config_out is not None)
    if database is None:
        found = read_django()
    else:
        found = read_database(_path_of(database), config.settings.zone)
    _bring(context, config, found, config_out)


def _path_of(url: str) -> Path:
    path = file_of_url(url)
    if path is None or not path.name or urlsplit(url).netloc:
        problem = f"expected sqlite:///path, got {mask_url(url)!r}"
        way = "for other databases name the project with -A: Django is asked then"
        raise click.BadParameter(f"{problem}; {way}", param_hint="'--database'")
    return path


@command.command("crontab", epilog=exit_statuses(0, 1, USAGE, NOTHING))
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE")
@click.option(
    "--system", is_flag=True, help="Each job names its user, as in /etc/crontab."
)
@click.option(
    "--config-out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the module there, and not to standard output.",
)
@click.pass_context
def import_crontab(
    context: click.Context,
    /,
    file: str,
    system: bool,
    config_out: Path | None,
) -> None:
    """Make a config module of a crontab; - reads standard input.

    Each job becomes an entry of the task beatd.run. What no entry can say stands in the
    module as a comment with its reason.
    """
    try:
        with click.open_file(file, "rb") as opened:
            data = opened.read()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error
    name = "standard input" if file == "-" else file
    text, summary = crontab_module(data, name, system=system)
    if config_out is None:
        click.echo(text, nl=False)
    else:
        write_module(config_out, text)
        click.echo(f"wrote {config_out}")
        click.echo(question(config_out))
    for line in summary:
        click.echo(line, err=True)


def _bring(
    context: click.Context, config: Config, found: Found, config_out: Path | None
) -> None:
    if config_out is None:
        _take_over(context, config, found)
    else:
        write_entries(config_out, config, found, screen(context))


def _config(context: click.Context, *, may_lack: bool = False) -> Config:
    """Return the config; `may_lack`: an empty one, if there is none and none is named.

    Raises ConfigError.
    """
    wants = replace(Options.of(given(context)).wanted(), unjudged=["beat_scheduler"])
    is_named = wants.app or wants.config or _CONFIG_NAMES & wants.environ.keys()
    if may_lack and not is_named and not Path(f"{DEFAULT_MODULE}.py").exists():
        nothing = Source("the command line", {})
        report = examine_source(nothing, wants.environ, wants.command_line)
        if report.config is None or report.errors:
            raise ConfigError(report.name, [str(error) for error in report.errors])
        return report.config
    return load(wants)


_CONFIG_NAMES = {"BEATD_CONFIG", "CELERY_CONFIG_MODULE"}


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
