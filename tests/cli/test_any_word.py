"""Whatever stands for an option or an argument: it is used, or refused in words."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from beatd.cli import beatd, main
from beatd.service import worker  # noqa: F401  (once, not in each fork)

ODD = {
    "empty": "",
    "NUL": "a\0b",
    "a lone surrogate": "a\udcffb",
    "an escape": "\x1b[2Ka\nb",
    "very long": "x" * 100_000,
    "negative": "-1",
    "not a number": "nan",
    "very large": "1e308",
    "digits": "9" * 5000,
    "a directory": ".",
    "a missing path": "no/such/place",
    "a device": "/dev/null",
    "braces": "%(x)s{0}%z*[",
}

CONFIG = """
import os, signal
from beatd import signals

def stop(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)

signals.beat_init.connect(stop)
signals.worker_ready.connect(stop)
beat_schedule = {"a": {"task": "t", "schedule": 60}}
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    yield "", beatd
    context = click.Context(beatd)
    for name in beatd.list_commands(context):
        command = beatd.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), inner)
                assert found is not None
                yield f"{name} {inner}", found


def places() -> Iterator[tuple[str, str]]:
    """Yield each command with each of its options that take a value, and arguments.

    A worker's options that the scheduler has, too, are the same ones.
    """
    shared = {option for one in beatd.params for option in one.opts}
    for name, command in commands():
        for one in command.params:
            if isinstance(one, click.Argument):
                yield name, ""
            elif not isinstance(one, click.Option) or one.is_flag or one.count:
                continue
            elif name != "worker" or one.opts[-1] not in shared:
                yield name, one.opts[-1]


def words_of(command: str, option: str, odd: str, config: str) -> list[str]:
    words = [*command.split()]
    if option != "--config":
        words += ["--config", config]
    if command == "explain":
        words = ["explain"]
    if command == "worker" and option not in ("--pool", "-P"):
        words += ["-P", "solo"]
    return [*words, f"{option}={odd}"] if option else [*words, "--", odd]


def run(words: list[str], output: Path) -> int | None:
    """Run beatd in a fork of this process; return its exit status, None: cut off."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            os.setsid()
            stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(stream, number)
                told = os.fdopen(number, "w", errors="backslashreplace", closefd=False)
                setattr(sys, name, told)
                setattr(sys, f"__{name}__", told)
            status = main(words)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            for file in (sys.stdout, sys.stderr):
                file.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended)


@pytest.mark.parametrize(("command", "option"), list(places()))
def test_any_word_is_used_or_refused_in_words(
    command: str, option: str, folder: Path
) -> None:
    config = folder / "conf.py"
    config.write_text(CONFIG)
    output = folder / "output"
    faults = []
    for kind, odd in ODD.items():
        status = run(words_of(command, option, odd, str(config)), output)
        # The lines of a calendar end so (RFC 5545).
        said = output.read_bytes().replace(b"\r\n", b"\n").decode(errors="replace")
        refused = status in (1, 2, 3, 64, 69, 73, 74, 75, 77, 78)
        if (
            "Traceback" in said
            or (status != 0 and not refused)
            or (refused and not said)
            or any(not c.isprintable() and c != "\n" for c in said)
        ):
            faults.append(f"{kind}: {status}: {said[-600:]!a}")
    assert not faults, "\n".join(faults)
