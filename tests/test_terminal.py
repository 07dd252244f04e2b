"""Programs on a terminal, a real one: what they say there, Ctrl-C, and its end."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import environment
from tests.servers import PATIENCE, eventually

CONF = """
import os, time
from pathlib import Path
from beatd import Beatd

HERE = Path(__file__).parent
app = Beatd("proj", broker=f"sqlite:///{HERE}/b.db", backend=f"sqlite:///{HERE}/r.db")
app.conf.beat_schedule_filename = str(HERE / "schedule.db")
app.conf.timezone = "Europe/Berlin"
app.conf.beat_schedule = {
    "yearly": {"task": "proj.wait", "schedule": 31_536_000, "run_on_start": RUN},
}


@app.task(name="proj.wait")
def wait():
    (HERE / "begun").write_text(str(os.getpid()))
    (HERE / "begun").rename(HERE / "waits")  # it is there with all that is in it
    while not (HERE / "go").exists():
        time.sleep(0.01)
    (HERE / "done").touch()
"""

LOGGED = ("-l", "INFO", "-f", "beatd.log")


@dataclass
class Typed:
    """A program that a terminal controls, and the other side of the terminal."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    keys: int
    _came: bytearray = field(default_factory=bytearray, init=False)

    @property
    def shown(self) -> str:
        return self._came.decode(errors="replace").replace("\r\n", "\n")

    def until(self, words: str) -> None:
        """Read until a line with these words is on the screen, all of it."""
        line = re.compile(re.escape(words) + ".*\n")
        deadline = time.monotonic() + PATIENCE
        while not line.search(self.shown):
            left = deadline - time.monotonic()
            assert left > 0, self.shown
            if select.select([self.keys], [], [], left)[0]:
                try:
                    self._came += os.read(self.keys, 4096)
                except OSError:  # the program has ended
                    pytest.fail(self.shown)

    def type(self, keys: str) -> None:
        os.write(self.keys, keys.encode())

    def close(self) -> None:
        """Close the terminal, as its window is closed, or its connection lost."""
        os.close(self.keys)
        self.keys = -1

    def status(self) -> int:
        """Return the exit status, once the program has ended."""
        return self.process.wait(timeout=PATIENCE)

    @property
    def log(self) -> str:
        return (self.folder / "beatd.log").read_text()

    def children(self) -> list[int]:
        """Return the processes that the program has started, and theirs."""
        group = os.getpgid(self.process.pid)
        return [pid for pid in _processes() if _group_of(pid) == group]


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _group_of(pid: int) -> int | None:
    with suppress(OSError):
        return os.getpgid(pid)
    return None


@contextmanager
def typed(
    folder: Path, *words: str, run: bool = False, nohup: bool = False
) -> Iterator[Typed]:
    """Run `beatd` with these words on a terminal of its own."""
    (folder / "proj.py").write_text(CONF.replace("RUN", str(run)))
    keys, terminal = pty.openpty()

    def control() -> None:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-m", "beatd", *words, "-A", "proj"],
        cwd=folder,
        env=environment(TERM="xterm"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=control,
    )
    os.close(terminal)
    made = Typed(process, folder, keys)
    try:
        yield made
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if made.keys >= 0:
            os.close(keys)


def test_a_scheduler_says_what_it_is_who_leads_and_what_comes_next(
    tmp_path: Path,
) -> None:
    with typed(tmp_path) as beat:
        beat.until("next: ")
        beat.type("\x03")
        assert beat.status() == 0

    first, second, *rest = beat.shown.splitlines()
    assert re.fullmatch(r"beatd \S+   config proj   state \S+/schedule\.db", first)
    assert re.fullmatch(
        r"broker sqlite:\S+b\.db   results sqlite:\S+r\.db   zone Europe/Berlin"
        r"   1 entry",
        second,
    )
    assert rest[0] == "stop: Ctrl-C"
    assert re.match(r"leader: this process, term 1   next: yearly in \d+d", rest[1])


def test_a_worker_says_what_it_has_and_that_a_second_ctrl_c_ends_what_runs(
    tmp_path: Path,
) -> None:
    with typed(tmp_path, "worker", "-B", "-c", "2", "-n", "w@h", run=True) as worker:
        worker.until("leader: this process")
        eventually((tmp_path / "waits").exists, "the task to run")
        worker.type("\x03")
        worker.until("Ctrl-C again ends what runs")
        worker.type("\x03")
        assert worker.status() == 0

    about = "worker w@h   pool prefork, 2 at a time   queue celery   1 task\n"
    assert about in worker.shown
    assert "\nstop: Ctrl-C, which waits for running tasks; a second" in worker.shown
    assert "\nstopping: 1 task running; Ctrl-C again ends" in worker.shown
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("words", [(), ("worker", "-c", "2")])
def test_it_stops_when_its_terminal_goes_away(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with typed(tmp_path, *words, *LOGGED) as program:
        program.until("stop: Ctrl-C")
        if words:
            eventually(lambda: "is ready" in program.log)
        program.close()
        assert program.status() == 0

    assert "stopped" in program.log


def test_a_worker_whose_terminal_goes_away_ends_its_tasks_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    with typed(tmp_path, "worker", "-B", "-c", "2", *LOGGED, run=True) as worker:
        eventually((tmp_path / "waits").exists, "the task to run")
        processes = worker.children()
        assert int((tmp_path / "waits").read_text()) in processes
        worker.close()
        eventually(lambda: "stopping, warm" in worker.log)
        (tmp_path / "go").touch()
        assert worker.status() == 0

    assert (tmp_path / "done").exists()
    eventually(lambda: not {*processes} & {*_processes()}, "its processes to end")


def test_a_hang_up_is_a_reload_while_the_terminal_is_there(tmp_path: Path) -> None:
    with typed(tmp_path, *LOGGED) as beat:
        beat.until("leader: ")
        os.kill(beat.process.pid, signal.SIGHUP)
        eventually(lambda: "reloaded: 1 entry" in beat.log)
        beat.type("\x03")
        assert beat.status() == 0


def test_what_was_started_with_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    with typed(tmp_path, *LOGGED, nohup=True) as beat:
        beat.until("leader: ")
        beat.close()
        os.kill(beat.process.pid, signal.SIGHUP)
        eventually(lambda: "reloaded: 1 entry" in beat.log)
        beat.process.terminate()
        assert beat.status() == 0
