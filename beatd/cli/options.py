"""Options that several commands share, spelled as `celery` spells them."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from beatd.cli.usage import Seconds
from beatd.config import switches
from beatd.config.switches import Switch

if TYPE_CHECKING:
    from beatd.config.host import Host
    from beatd.config.loading import Wanted

Command = TypeVar("Command", bound=Callable[..., Any])

FORMS = ("text", "json", "journal")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


class Global(click.Option):
    """An option that may stand before a command, after it, or in the environment.

    There it is called `$BEATD_` and its long name; other names come after that.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        others = [self.envvar] if isinstance(self.envvar, str) else self.envvar or ()
        self.envvar = [f"BEATD_{str(self.name).upper()}", *others]


_option = partial(click.option, cls=Global)


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _change_directory(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> None:
    if value is None or (
        # Relative to where the process began: the first to read it has changed there.
        context.parent and _source(context, "workdir") is ParameterSource.ENVIRONMENT
    ):
        return
    try:
        os.chdir(value)
    except OSError as error:
        problem = f"cannot change to {str(value)!r}: {error.strerror}"
        raise click.BadParameter(problem) from error


def option_of(
    switch: Switch,
    kind: "click.ParamType[Any]" = click.STRING,
    default: object = None,
    cls: type[click.Option] = click.Option,
) -> Callable[[Command], Command]:
    """Return the option that stands for a setting; values of it are of this kind."""
    help_text = switch.help.format(default=default)
    if switch.says is not None:
        return click.option(*switch.names, cls=cls, is_flag=True, help=help_text)
    return click.option(
        *switch.names,
        cls=cls,
        type=kind,
        metavar=switch.metavar,
        envvar=switch.variable,
        help=help_text,
    )


_of = partial(option_of, cls=Global)

CONFIG = _all_of(
    _option(
        "-A",
        "--app",
        metavar="APP",
        envvar=["APP", "CELERY_APP"],
        help="Module with the app: proj, proj.celery or proj:app.",
    ),
    _option(
        "--config",
        metavar="MODULE|FILE",
        envvar="CONFIG_MODULE",
        help="Config module or file.  [default: $BEATD_CONFIG, else celeryconfig]",
    ),
    _option(
        "--workdir",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_change_directory,
        help="Change to this directory first.",
    ),
    _of(switches.RESULT_BACKEND),
    _option(
        "--loader",
        envvar="LOADER",
        hidden=True,
        help="Accepted; beatd loads apps itself.",
    ),
    _option("-C", "--no-color", is_flag=True, default=None, help="No colours."),
    _option("-q", "--quiet", is_flag=True, default=None, help="No banner."),
    _option("--debug", is_flag=True, default=None, help="Errors with traceback."),
    _of(switches.SCHEDULE_FILENAME),
)

SOURCE = _all_of(CONFIG, _of(switches.BROKER))

PROCESS = _all_of(
    _option(
        "-l",
        "--loglevel",
        type=click.Choice(LEVELS, case_sensitive=False),
        help=f"How much to log.  [default: {switches.LOG_LEVEL}]",
    ),
    _option(
        "-f",
        "--logfile",
        metavar="FILE",
        help="Log there, not to standard error; %n, %h, %d, %i, %I expand.",
    ),
    _option(
        "--log-format",
        type=click.Choice(FORMS),
        help="Lines for people, JSON objects, or records of the journal."
        "  [default: journal if standard error goes there, else text]",
    ),
    _option(
        "--pidfile",
        metavar="FILE",
        help="Hold this file while running; %n, %h, %d expand.",
    ),
    _option("--uid", metavar="USER", help="Run as this user."),
    _option("--gid", metavar="GROUP", help="Run as this group."),
    _option("--umask", metavar="MASK", help="Octal with a leading 0."),
    _option("--executable", metavar="PYTHON", help="Python to detach with."),
    _option(
        "--strict", is_flag=True, default=None, help="Refuse to start on a bad entry."
    ),
    _of(switches.SCHEDULER),
    _of(switches.MAX_INTERVAL, Seconds(0)),
    _of(switches.HTTP),
)

NODE = partial(_option, "-n", "--hostname", metavar="NAME")
DETACH = _option(
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

    `beatd -A proj worker` and `beatd worker -A proj` mean the same. The command line
    wins over the environment, wherever an option stands in it. Raises UsageError if -A
    and --config were both typed.
    """
    chain = [context]
    while parent := chain[0].parent:
        chain.insert(0, parent)
    found = [
        (_WEIGHT.get(_source(one, name), 0), name, value)
        for one in chain
        for name, value in one.params.items()
        if value is not None
    ]
    found.sort(key=itemgetter(0))
    weights = {name: weight for weight, name, _ in found}
    options = {name: value for _, name, value in found}
    if {"app", "config"} <= weights.keys():
        if min(weights["app"], weights["config"]) == _TYPED:
            words = "-A and --config name a config each, and an app has its own"
            raise click.UsageError(f"{words}: leave one of them out", context)
        # What the environment has is for when the command line names neither.
        del options["config" if weights["app"] >= weights["config"] else "app"]
    return options


_TYPED = 2
_WEIGHT: Mapping[ParameterSource | None, int] = {
    ParameterSource.ENVIRONMENT: 1,
    ParameterSource.COMMANDLINE: _TYPED,
}


def _source(context: click.Context, name: str) -> ParameterSource | None:
    return context.get_parameter_source(name)


def asked(context: click.Context) -> dict[str, Any]:
    """Return the options of a command that looks at what runs, or is to run.

    Where none of them names a config, and there is none here, the options with which
    the units of this host start the scheduler come before them.
    """
    options = given(context)
    if options.keys() & {"app", "config"}:
        return options
    units: dict[str, Any] | None = context.meta.get(_UNITS)
    if units is None:  # once: it may change to the folder that the units name
        from beatd.config.host import Host  # only where no config is named

        host = context.find_object(Host) or Host()
        units = _started_by(host, context) if host.is_meant(os.environ) else {}
        context.meta[_UNITS] = units
    return units | options


_UNITS = f"{__name__}.units"


def _started_by(host: "Host", context: click.Context) -> dict[str, Any]:
    """Return the options with which the units of a host start the scheduler."""
    from beatd.config.options import secret_files
    from beatd.errors import ConfigError

    variables = host.variables()
    command = context.find_root().command
    by_name = {
        str(option.name): variables[name]
        for option in command.params
        if isinstance(option, Global)
        for name in reversed(option.envvar or ())
        if name in variables
    }
    try:
        started = command.make_context(
            "beatd", host.words(variables), default_map=by_name
        )
    except click.UsageError as error:
        raise ConfigError(str(host.defaults), [error.format_message()]) from error
    return given(started) | {"around": secret_files(host.credentials, variables)}


def wanted(context: click.Context) -> "Wanted":
    """Return which config is meant: by the options that were given, else the units."""
    from beatd.config.options import Options

    return Options.of(asked(context)).wanted()
