"""The tests' own way to start programs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import preloaded
from tests.processes import ROOT, environment
from tests.servers import PATIENCE

INTERRUPTED = """
import subprocess
import tests.conftest

print(subprocess.run(["sh", "-c", "kill -INT $$"]).returncode)
"""


def test_programs_can_be_interrupted_where_the_tests_ignore_interrupts() -> None:
    in_background = ["sh", "-c", """trap "" INT; exec "$@" """, "sh"]
    ran = subprocess.run(
        [*in_background, sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout == "-2\n", ran.stderr


PROGRAM = """
import atexit, os, signal, sys, threading, time
atexit.register(print, "the end")
threading.Timer(0.05, print, ["a thread's last words"]).start()
print(__name__, sys.argv[1:], sys.orig_argv[1:], sys.path[0], os.getcwd())
print(os.environ["COLOUR"], time.tzname, "tests" in sys.modules)
print("an error", file=sys.stderr)
exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    "end",
    [
        *("pass", "sys.exit()", "sys.exit(3)", "sys.exit(300)", "sys.exit('why')"),
        *("os._exit(4)", "os.kill(os.getpid(), signal.SIGTERM)", "1 / 0"),
    ],
)
def test_a_forked_program_is_what_a_process_of_its_own_is(
    tmp_path: Path, end: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    env = environment(COLOUR="red", TZ="Asia/Tokyo")
    apart = subprocess.run(
        [sys.executable, "-m", "program", end, "\x1b"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    stem = preloaded("json")
    forked = stem.run("program", end, "\x1b", cwd=tmp_path, env=env)

    assert forked.returncode == apart.returncode
    assert forked.stdout == apart.stdout
    # Whoever runs a module has other lines in a traceback.
    assert forked.stderr.splitlines()[-1] == apart.stderr.splitlines()[-1]


def test_a_forked_program_hears_signals_and_is_awaited(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(600)")
    with (tmp_path / "log").open("w") as log:
        program, other = (
            preloaded("json").start(
                "waits",
                cwd=tmp_path,
                env=environment(),
                stdout=log,
                stderr=log,
                leads_group=True,
            )
            for _ in range(2)
        )

        assert program.poll() is None
        assert os.getpgid(program.pid) == program.pid
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.01)
        program.kill()
        assert program.wait(PATIENCE) == program.poll() == -signal.SIGKILL
        program.terminate()  # it is gone: nobody else is meant

        assert other.poll() is None
        os.killpg(other.pid, signal.SIGINT)
        assert other.wait(PATIENCE) == -signal.SIGINT
