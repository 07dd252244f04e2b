"""Commands that `beatd.run` runs: what goes in and out, and how they are ended."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from beatd.errors import CommandFailed
from beatd.pools.limits import soft_limit
from beatd.runs.command import KEPT, Command, run
from tests.commands import FAMILY, FAMILY_DONE, gone, pids
from tests.servers import eventually


class TooLong(Exception):
    pass


def shell(text: str, **more: object) -> dict[str, object]:
    return run(Command(command=text, shell=True, **more), {})  # type: ignore[arg-type] # of each its own


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_exit_status_are_the_result() -> None:
    command = Command(command=["sh", "-c", "echo out; echo err >&2"])

    assert run(command, {}) == {"status": 0, "output": "out\nerr\n", "omitted": 0}


def test_no_shell_reads_a_list() -> None:
    assert run(Command(command=["echo", "$HOME; *"]), {})["output"] == "$HOME; *\n"


def test_input_is_passed_on_whole_while_output_is_read() -> None:
    text = "é" * 300_000

    result = run(Command(command=["wc", "-c"], input=text), {})

    assert result["output"].strip() == "600000"


def test_a_command_need_not_read_its_input() -> None:
    assert run(Command(command=["true"], input="x" * 1_000_000), {})["status"] == 0


def test_without_input_there_is_nothing_to_read() -> None:
    assert run(Command(command=["cat"]), {})["output"] == ""


def test_the_end_of_a_long_output_is_kept() -> None:
    code = "print('begins'); print('x' * 1_000_000); print('ends')"

    result = run(Command(command=python(code)), {})

    assert len(result["output"]) == KEPT
    assert result["output"].endswith("x\nends\n")
    assert result["omitted"] == len("begins\nends\n\n") + 1_000_000 - KEPT


def test_folder_and_variables_are_those_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/of/the/service")
    command = Command(
        command="pwd; echo $NAME $OWN $HOME${NOTIFY_SOCKET-}",
        shell=True,
        cwd=str(tmp_path),
        env={"NAME": "a b"},
    )

    output = run(command, {"OWN": "marks", "NAME": "goes"})["output"]

    assert output == f"{tmp_path}\na b marks {os.environ['HOME']}\n"


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("echo why; exit 3", "the command ended with status 3; its last lines:\n  why"),
        ("exit 4", "the command ended with status 4"),
        ("kill -KILL $$", "the command was ended by SIGKILL"),
        (
            "seq 100; echo password=hunter2; exit 1",
            "the command ended with status 1; its last lines:\n  92\n  93\n  94\n  95"
            "\n  96\n  97\n  98\n  99\n  100\n  password=***",
        ),
    ],
)
def test_a_failure_says_how_and_shows_the_last_lines(text: str, how: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        shell(text)

    assert str(raised.value) == how


def test_other_statuses_may_be_well() -> None:
    assert shell("exit 24", ok_statuses=[0, 24])["status"] == 24

    with pytest.raises(CommandFailed, match="status 0"):
        shell("exit 0", ok_statuses=[1])


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (
            Command(command=["no-such-program"]),
            "cannot start 'no-such-program': No such file or directory",
        ),
        (
            Command(command=["/etc/passwd"]),
            "cannot start '/etc/passwd': Permission denied",
        ),
        (
            Command(command=["true"], cwd="/no/such"),
            "cannot start 'true' in '/no/such': No such file or directory",
        ),
        (
            Command(command=["true", "x" * 3_000_000]),
            "cannot start 'true': Argument list too long",
        ),
    ],
)
def test_what_cannot_be_started_says_why(command: Command, problem: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        run(command, {})

    assert str(raised.value) == problem


# How it is ended


def test_a_command_past_its_time_is_ended_with_all_that_it_has_started(
    tmp_path: Path,
) -> None:
    with pytest.raises(CommandFailed) as raised:
        shell(f"echo said\n{FAMILY}wait", timeout=2, cwd=str(tmp_path))

    assert str(raised.value) == (
        "the command took longer than 2 s, and was ended; its last lines:\n  said"
    )
    assert all(map(gone, pids(tmp_path)))


def test_a_command_may_clean_up_when_it_is_ended(tmp_path: Path) -> None:
    text = "trap 'sleep 0.3; touch cleaned; exit' TERM; sleep 600 & wait"

    with pytest.raises(CommandFailed):
        shell(text, timeout=0.5, cwd=str(tmp_path))

    assert (tmp_path / "cleaned").exists()


def test_a_command_that_ignores_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "trap '' TERM; touch begun; while :; do sleep 1; done"

    with pytest.raises(CommandFailed, match="took longer"):
        shell(text, timeout=0.5, cwd=str(tmp_path))

    assert (tmp_path / "begun").exists()


def test_nothing_is_left_of_a_command_that_has_ended(tmp_path: Path) -> None:
    shell(f"{FAMILY}{FAMILY_DONE}", cwd=str(tmp_path))

    left = pids(tmp_path)
    eventually(lambda: all(map(gone, left)), "the end of all")


def test_what_left_its_group_is_neither_awaited_nor_ended(tmp_path: Path) -> None:
    text = (
        "setsid sh -c 'echo $$ >> pids; exec sleep 600' & until [ -s pids ]; do :; done"
    )

    assert shell(text, cwd=str(tmp_path))["status"] == 0

    (pid,) = pids(tmp_path, 1)
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def in_main_thread(function: Callable[[], object]) -> None:
    function()


def in_another_thread(function: Callable[[], object]) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise raised[0]


@pytest.mark.parametrize("somewhere", [in_main_thread, in_another_thread])
def test_a_soft_time_limit_ends_it_and_goes_on(
    somewhere: Callable[[Callable[[], object]], None], tmp_path: Path
) -> None:
    def limited() -> None:
        with soft_limit(2, TooLong):
            shell(f"{FAMILY}wait", cwd=str(tmp_path))

    with pytest.raises(TooLong):
        somewhere(limited)

    assert all(map(gone, pids(tmp_path)))


def test_it_ends_when_nobody_waits_for_the_run_any_more() -> None:
    with pytest.raises(CommandFailed, match="took longer"):
        run(Command(command=["sleep", "600"], timeout=60), {}, 0.3)


def test_a_killed_guard_leaves_nothing_behind(tmp_path: Path) -> None:
    text = f"{FAMILY}{FAMILY_DONE}\n"
    text += "kill -KILL $PPID; wait"

    with pytest.raises(CommandFailed, match="was lost"):
        shell(text, cwd=str(tmp_path))

    left = pids(tmp_path)
    eventually(lambda: all(map(gone, left)), "the end of all")


def test_signals_that_the_worker_ignores_are_not_ignored_by_it() -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT))"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        output = run(Command(command=python(code)), {})["output"]
    finally:
        signal.signal(signal.SIGINT, before)

    assert "default_int_handler" in output
