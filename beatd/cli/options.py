"""Options that several commands share, spelled as `celery` spells them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from beatd.cli.usage import Seconds
from beatd.config import switches
from beatd.config.switches import Switch

if TYPE_CHECKING:
    from beatd.config.loading import Wanted

Command = TypeVar("Command", bound=Callable[..., Any])

FORMS = ("text", "json", "journal")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _change_directory(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> None:
    if value is None:
        return
    try:
        os.chdir(value)
    except OSError as error:
        problem = f"cannot change to {str(value)!r}: {error.strerror}"
        raise click.BadParameter(problem) from error


def option_of(
    switch: Switch, kind: "click.ParamType[Any]" = click.STRING, default: object = None
) -> Callable[[Command], Command]:
    """Return the option that stands for a setting; values of it are of this kind."""
    help_text = switch.help.format(default=default)
    if switch.says is not None:
        return click.option(*switch.names, is_flag=True, help=help_text)
    return click.option(
        *switch.names,
        type=kind,
        metavar=switch.metavar,
        envvar=switch.variable,
        help=help_text,
    )


CONFIG = _all_of(
    click.option(
        "-A",
        "--app",
        metavar="APP",
        envvar=["APP", "CELERY_APP"],
        help="Module with the app: proj, proj.celery or proj:app.",
    ),
    click.option(
        "--config",
        metavar="MODULE|FILE",
        envvar="CONFIG_MODULE",
        help="Config module or file.  [default: $BEATD_CONFIG, else celeryconfig]",
    ),
    click.option(
        "--workdir",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_change_directory,
        help="Change to this directory first.",
    ),
    option_of(switches.RESULT_BACKEND),
    click.option(
        "--loader",
        envvar="LOADER",
        hidden=True,
        help="Accepted; beatd loads apps itself.",
    ),
    click.option("-C", "--no-color", is_flag=True, default=None, help="No colours."),
    click.option("-q", "--quiet", is_flag=True, default=None, help="No banner."),
    click.option("--debug", is_flag=True, default=None, help="Errors with traceback."),
    option_of(switches.SCHEDULE_FILENAME),
)

SOURCE = _all_of(CONFIG, option_of(switches.BROKER))

PROCESS = _all_of(
    click.option(
        "-l",
        "--loglevel",
        type=click.Choice(LEVELS, case_sensitive=False),
        help=f"How much to log.  [default: {switches.LOG_LEVEL}]",
    ),
    click.option(
        "-f",
        "--logfile",
        metavar="FILE",
        help="Log there, not to standard error; %n, %h, %d, %i, %I expand.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(FORMS),
        help="Lines for people, JSON objects, or records of the journal."
        "  [default: journal if standard error goes there, else text]",
    ),
    click.option(
        "--pidfile",
        metavar="FILE",
        help="Hold this file while running; %n, %h, %d expand.",
    ),
    click.option("--uid", metavar="USER", help="Run as this user."),
    click.option("--gid", metavar="GROUP", help="Run as this group."),
    click.option("--umask", metavar="MASK", help="Octal with a leading 0."),
    click.option("--executable", metavar="PYTHON", help="Python to detach with."),
    click.option(
        "--strict", is_flag=True, default=None, help="Refuse to start on a bad entry."
    ),
    option_of(switches.SCHEDULER),
    option_of(switches.MAX_INTERVAL, Seconds(0)),
    option_of(switches.HTTP),
)

DETACH = click.option(
    "-D", "--detach", is_flag=True, default=None, help="Go to the background."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
COLOR = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    help="[default: auto: on a terminal, as NO_COLOR and CLICOLOR_FORCE say]",
)


def given(context: click.Context) -> dict[str, Any]:
    """Return the options that were given, here or before the command's name.

    `beatd -A proj worker` and `beatd worker -A proj` mean the same.
    """
    outer = given(context.parent) if context.parent else {}
    here = {name: value for name, value in context.params.items() if value is not None}
    return outer | here


def wanted(context: click.Context) -> "Wanted":
    """Return which config is meant, by the options that were given."""
    from beatd.config.options import Options

    return Options.of(given(context)).wanted()
