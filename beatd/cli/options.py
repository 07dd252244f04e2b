"""Options that several commands share, spelled as `celery` spells them."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from beatd.cli.usage import Number, Whole
from beatd.config.options import LOG_LEVEL, Options
from beatd.config.settings import (
    COUNT,
    POSITIVE,
    SECONDS,
    SOME_SECONDS,
    Kind,
    Row,
    table,
)

if TYPE_CHECKING:
    from beatd.config.loading import Wanted

Command = TypeVar("Command", bound=Callable[..., Any])

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
    if value is not None:
        os.chdir(value)


# Options that stand for settings ---------------------------------------------------


def setting(name: str) -> Callable[[Command], Command]:
    """Return the option that stands for a setting: its row says all of it."""
    row = table()[name]
    switch = row.switch
    assert switch is not None, f"{name} has no option in its row"
    said = switch.help.format(default=row.default)
    if switch.says is not None:
        return click.option(*switch.names, is_flag=True, help=said)
    return click.option(
        *switch.names,
        type=_type_of(row),
        metavar=switch.metavar,
        envvar=switch.variable,
        help=said,
    )


_NUMBERS: Mapping[Kind, Whole | Number] = {
    COUNT: Whole(0),
    POSITIVE: Whole(1),
    SECONDS: Number(0),
    SOME_SECONDS: Number(0, min_open=True),
}


def _type_of(row: Row) -> "click.ParamType[Any]":
    """Return what click makes of a value: a number, a choice, either, or text."""
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

    def __init__(self, number: Whole | Number, words: Sequence[str]) -> None:
        self._number = number
        self._words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        return value if value in self._words else self._number(value, param, ctx)


# Options of several commands -------------------------------------------------------

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
    setting("result_backend"),
    click.option(
        "--loader",
        envvar="LOADER",
        hidden=True,
        help="Accepted; beatd loads apps itself.",
    ),
    click.option("-C", "--no-color", is_flag=True, default=None, help="No colours."),
    click.option("-q", "--quiet", is_flag=True, default=None, help="No banner."),
    click.option("--debug", is_flag=True, default=None, help="Errors with traceback."),
    setting("beat_schedule_filename"),
)

SOURCE = _all_of(CONFIG, setting("broker_url"))

PROCESS = _all_of(
    click.option(
        "-l",
        "--loglevel",
        type=click.Choice(LEVELS, case_sensitive=False),
        help=f"How much to log.  [default: {LOG_LEVEL}]",
    ),
    click.option(
        "-f",
        "--logfile",
        metavar="FILE",
        help="Log there, not to standard error; %n, %h, %d, %i, %I expand.",
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
    setting("beat_scheduler"),
    setting("beat_max_loop_interval"),
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
    return Options.of(given(context)).wanted()
