"""Process 1 of a container; where it is not process 1, a subreaper stands for it."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import environment
from tests.servers import PATIENCE

_BEHIND = """\
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from beatd import process_one
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here
process_one.stay_behind()
"""


_AT_A_TERMINAL = """\
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # who leads a session takes its terminal
"""


@contextmanager
def program(
    source: str, before: str = "", stdin: int | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Run this for the block's time, with a process as process 1 behind it."""
    with subprocess.Popen(
        [sys.executable, "-c", before + _BEHIND + source],
        env=environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_a_program_leaves_behind_is_waited_for() -> None:
    source = f"""
left = subprocess.run(["sh", "-c", "(: & echo $!)"], stdout=subprocess.PIPE)
place = Path("/proc", left.stdout.decode().strip())
end = time.monotonic() + {PATIENCE}
while place.exists() and time.monotonic() < end:
    time.sleep(0.01)
print("gone" if not place.exists() else (place / "stat").read_text(), flush=True)
"""
    with program(source) as process:
        assert said(process) == "gone"
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("sys.exit(7)", 7),
        ("pass", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ("assert subprocess.run(['false']).returncode == 1", 0),
    ],
)
def test_the_exit_status_is_that_of_the_program(source: str, status: int) -> None:
    with program(source) as process:
        assert process.wait(PATIENCE) == status


_COUNTING = """
came = []
signal.signal(signal.SIGINT, lambda *_: (came.append("INT"), print("INT", flush=True)))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(10 + len(came)))
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_a_signal_is_passed_on_to_the_program() -> None:
    with program(_COUNTING) as process:
        assert said(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert said(process) == "INT"
        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE) == 11


def test_ctrl_c_at_a_terminal_comes_once() -> None:
    """The kernel sends it to both: twice would be a cold stop of a worker."""
    ours, theirs = pty.openpty()
    with program(_COUNTING, before=_AT_A_TERMINAL, stdin=theirs) as process:
        assert said(process) == "ready"
        os.write(ours, b"\x03")
        assert said(process) == "INT"
        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE) == 11
    os.close(ours)
    os.close(theirs)


def test_a_socket_that_process_1_was_passed_is_the_programs() -> None:
    source = "print(os.environ['LISTEN_PID'] == str(os.getpid()), flush=True)"
    before = "import os; os.environ['LISTEN_PID'] = str(os.getpid())\n"

    with program(source, before) as process:
        assert said(process) == "True"


def test_beatd_may_be_process_1(tmp_path: Path) -> None:
    words = ["unshare", "--pid", "--fork"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a name-space of processes cannot be made here")

    done = subprocess.run(
        [*words, sys.executable, "-m", "beatd", "list"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78, done.stderr
    assert "no celeryconfig.py" in done.stderr
