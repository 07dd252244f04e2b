"""Whatever stands for an option or an argument: it is used, or refused in words."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from beatd.cli import beatd
from tests.processes import ended

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


EACH = 4
"""Of an option that so many commands or more have, each of them tries one word of so
many, another one than its neighbours: each word is tried with each option, and each
command with each option and each word."""


PLACES = list(places())
COMMANDS = [name for name, _ in commands()]
NAMES = sorted({option for _, option in PLACES})


def is_shared(option: str) -> bool:
    """Return whether the commands that have an option are of all kinds by number."""
    having = {COMMANDS.index(name) % EACH for name, other in PLACES if other == option}
    return bool(option) and len(having) == EACH


SHARED = [option for option in NAMES if is_shared(option)]


def odd_words(command: str, option: str) -> Iterator[tuple[str, str]]:
    """Yield the words that are tried here, with their kinds."""
    if option not in SHARED:
        yield from ODD.items()
        return
    place = COMMANDS.index(command) + SHARED.index(option)
    for number, (kind, odd) in enumerate(ODD.items()):
        if (number + place) % EACH == 0:
            yield kind, odd


@pytest.mark.parametrize(("command", "option"), PLACES)
def test_any_word_is_used_or_refused_in_words(
    command: str, option: str, folder: Path
) -> None:
    config = folder / "conf.py"
    config.write_text(CONFIG)
    faults = []
    for kind, odd in odd_words(command, option):
        done = ended(*words_of(command, option, odd, str(config)), cwd=folder)
        said = done.stdout + done.stderr
        refused = done.returncode in (1, 2, 3, 64, 69, 73, 74, 75, 77, 78)
        if (
            "Traceback" in said
            or (done.returncode != 0 and not refused)
            or (refused and not said)
            or any(not c.isprintable() and c != "\n" for c in said)
        ):
            faults.append(f"{kind}: {done.returncode}: {said[-600:]!a}")
    assert not faults, "\n".join(faults)


def test_each_word_is_tried_with_each_option_and_each_command() -> None:
    tried = [
        (command, option, kind)
        for command, option in PLACES
        for kind, _ in odd_words(command, option)
    ]

    assert {(option, kind) for _, option, kind in tried} == {
        (option, kind) for option in NAMES for kind in ODD
    }
    assert {(command, option) for command, option, _ in tried} == set(PLACES)
    assert {(command, kind) for command, _, kind in tried} >= {
        (command, kind) for command, option in PLACES if option for kind in ODD
    }
