"""Wrong words on the command line: what is said to them."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from beatd.cli import ALIASES, beatd, main
from tests.processes import environment


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lsit", "no such command 'lsit'\n  did you mean 'list'?   all commands: "),
        ("nonsense", "no such command 'nonsense'\n  all commands: beatd --help\n"),
        ("beat", "no such command 'beat'\n  the scheduler runs without a command: "),
        ("hist", "no such command 'hist'\n  did you mean 'history'?   all commands: "),
        ("list -A a --config b", "-A and --config name a config each, and an app has "),
        ("-A a list --config b", "-A and --config name a config each, and an app has "),
        ("dead lst", "no such command 'lst'\n  did you mean 'list'?   all commands: "),
        ("--confg x", "no such option '--confg'\n  did you mean '--config'?   all "),
        (
            "worker --queus x",
            "no such option '--queus'\n"
            "  did you mean '--queues'?   all options: beatd worker --help\n",
        ),
        ("worker -Z", "no such option '-Z'\n  all options: beatd worker --help\n"),
        (
            "worker -c many",
            "invalid value for '-c' / '--concurrency': 'many' is not a valid whole"
            " number\n  how it is used: beatd worker --help\n",
        ),
        ("--max-interval x", "invalid value for '--max-interval': 'x' is not a valid"),
        ("list --limit 0", "invalid value for '--limit': 0 is not in the range x>=1\n"),
        (
            "explain",
            "missing argument 'EXPR'\n  how it is used: beatd explain --help\n",
        ),
        ("import", "missing command\n  how it is used: beatd import --help\n"),
        ("list --color", "option '--color' requires an argument\n"),
    ],
)
def test_wrong_words_are_named_with_the_way_out(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert main(words.split()) == 2

    output = capsys.readouterr()
    assert output.err.startswith(f"error: {said}")
    assert output.out == ""


COMMANDS = [
    *("pause", "resume", "alert", "alert test"),
    *("", "worker", "list", "ls", "next", "history", "audit", "status", "show"),
    *("check", "explain"),
    *("dead", "dead list", "dead show", "dead retry", "dead drop"),
    *("import", "import celery", "import redbeat", "import django-celery-beat"),
    "import crontab",
    *("export", "export ical", "export json"),
    *("systemd", "systemd print", "systemd install", "systemd verify"),
]


@pytest.mark.parametrize("words", COMMANDS)
def test_the_help_of_every_command_says_what_its_exit_statuses_mean(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert main([*words.split(), "--help"]) == 0

    output = capsys.readouterr()
    assert "Exit status: 0 " in " ".join(output.out.split())
    assert output.err == ""


def test_all_commands_are_tried() -> None:
    context = click.Context(beatd)
    listed = [*beatd.list_commands(context), *ALIASES]
    for name in beatd.list_commands(context):
        group = beatd.get_command(context, name)
        if isinstance(group, click.Group):
            listed += [f"{name} {one}" for one in group.list_commands(context)]

    assert {*listed, ""} == set(COMMANDS)


@pytest.mark.parametrize("words", [["--debug"], ["list", "--debug"]])
def test_an_error_with_its_traceback_has_the_same_status(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (folder / "celeryconfig.py").write_text("timezone = 'Nowhere'")

    assert main(words) == 78

    assert "Traceback" in capsys.readouterr().err


# Where output cannot be written


@pytest.mark.parametrize("words", ["list", "check --json", "--help"])
def test_an_output_that_takes_nothing_is_an_error_in_one_line(
    tmp_path: Path, words: str
) -> None:
    (tmp_path / "celeryconfig.py").write_text("beat_schedule = {}")
    command = [sys.executable, "-m", "beatd", *words.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_who_has_read_enough_of_the_output_is_told_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "beatd", "--help"],
            cwd=tmp_path,
            env=environment(),
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "")
