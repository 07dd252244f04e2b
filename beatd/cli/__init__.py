"""The command line: options in, one call out to the code that does the work.

Each command's module is imported when the command is run: `--help` costs little. From
then on `list` and `next` are these modules here, not the functions of Python.
"""

import errno
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import click

from beatd.cli.options import DETACH, NODE, PROCESS, SOURCE, given
from beatd.cli.usage import (
    CONFIG,
    UNAVAILABLE,
    USAGE,
    Commands,
    exit_statuses,
    explained,
)
from beatd.config.switches import BEAT_NODE
from beatd.errors import BeatdError, BrokerUnavailable, ConfigError, ScheduleFileError
from beatd.service import daemon
from beatd.version import __version__

COMMANDS: Mapping[str, str] = {
    "worker": "Run a worker (options as `celery worker`).",
    "list": "Entries, their next and last runs.",
    "next": "Coming runs in order of time.",
    "status": "Is it well: leader, lateness, broker, queues, workers.",
    "show": "One entry in full: rules, coming and past runs.",
    "history": "Past runs: when, how late, or why not.",
    "audit": "Account for every slot of a stretch of time.",
    "alert": "Try who is told when entries fail.",
    "pause": "Let entries rest; their slots are dropped.",
    "resume": "Let paused entries go on.",
    "dead": "What workers set aside: list, show, retry, drop.",
    "check": "Say whether the configuration is right.",
    "import": "Take over from Celery's beat and other schedulers.",
    "export": "The schedule as a calendar, or as JSON.",
    "explain": "A cron expression in words, and its next runs.",
    "systemd": "Units for systemd: print, install, verify.",
}
ALIASES = {"ls": "list"}
MODULES = {"import": "importing", "export": "exporting"}
"""Where a command is that no module can be called by."""

_GC_THRESHOLDS = 20_000, 20, 20
"""What a command reads stays until it ends. By Python's own thresholds the collector
went through it again and again, for a tenth of the time of a list of 10,000 entries."""

_ENVIRONMENT = (
    "Environment: each of these options, for all commands, as $BEATD_ and its long"
    " name: $BEATD_APP, $BEATD_CONFIG, $BEATD_SCHEDULE_FILENAME. The command line wins."
)


class _Commands(Commands):
    """Commands that are known by name and imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        if name != "worker":  # there the code of tasks runs
            gc.set_threshold(*_GC_THRESHOLDS)
        module = importlib.import_module(f"beatd.cli.{MODULES.get(name, name)}")
        command: click.Command = module.command
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.command(
    cls=_Commands,
    invoke_without_command=True,
    epilog=f"{_ENVIRONMENT}\n\n{exit_statuses()}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@SOURCE
@PROCESS
@click.option("-S", "scheduler", metavar="CLASS", hidden=True)
@NODE(help=f"Node name, for names of files; %h, %n, %d expand.  [default: {BEAT_NODE}]")
@click.option(
    "--enable-remote-control/--no-enable-remote-control",
    expose_value=False,
    hidden=True,
    help="Accepted; status and log say whether the scheduler is well.",
)
@DETACH
@click.version_option(__version__, message="beatd %(version)s")
@click.pass_context
def beatd(context: click.Context, /, **_: Any) -> None:
    """Run the scheduler: emit each entry's slots, exactly once."""
    if context.invoked_subcommand is None:
        from beatd.config.options import Options
        from beatd.service.beat import run_scheduler

        context.exit(run_scheduler(Options.of(given(context))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        status = _run(arguments)
        if sys.stdout:
            sys.stdout.flush()  # or Python itself meets what is wrong, at its end
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_OUTPUT:
            raise
        _let_go_of_output()
        if error.errno != errno.EPIPE:  # who read it has had enough
            _say(f"cannot write the output: {error.strerror}")
        return 1
    return status


_OF_OUTPUT = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF),
    *(errno.EPIPE, errno.EROFS),
)
"""What the system says of an output that takes nothing."""


def _let_go_of_output() -> None:
    """Have what is left in the buffer go nowhere, and not fail at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _run(arguments: Sequence[str] | None) -> int:
    daemon.remember_start()
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if any("\0" in word for word in words):  # not from a shell: no system lets it pass
        _say("no word of a command line can have a NUL in it")
        return USAGE
    try:
        status = beatd.main(
            args=words,
            prog_name="beatd",
            standalone_mode=False,
            auto_envvar_prefix="CELERY",  # $CELERY_WORKER_CONCURRENCY, as there
        )
    except click.UsageError as error:
        _say(explained(error))
        return USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except BeatdError as error:
        if "--debug" in words or click.BOOL(os.environ.get("BEATD_DEBUG") or "0"):
            traceback.print_exception(error)
        elif not _logs(error):
            _say(str(error))
        return _status_of(error)
    return int(status or 0)


def _say(problem: str) -> None:
    from beatd.text import indented_lines  # only where something is wrong

    with suppress(OSError):  # standard error may be what is full
        click.echo(f"error: {indented_lines(problem, indent='')}", err=True)


def _logs(error: BeatdError) -> bool:
    """Have a scheduler or worker log why it ends; False if its log is for people."""
    log_setup = sys.modules.get("beatd.service.log_setup")
    return log_setup is not None and log_setup.log_failure(error)


def _status_of(error: BeatdError) -> int:
    if isinstance(error, ConfigError):
        return CONFIG
    if isinstance(error, ScheduleFileError):
        return error.exit_code
    return UNAVAILABLE if isinstance(error, BrokerUnavailable) else 1
