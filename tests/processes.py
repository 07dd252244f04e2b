"""`beatd` and other programs, as users run them: output, signals, exit status."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import PATIENCE, eventually

ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, without variables that configure beatd."""
    ours = ("BEATD_", "CELERY_")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return plain | {"PYTHONPATH": str(ROOT)} | more


@dataclass
class Running:
    """A process that runs; both of its outputs go to one file."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, words: str, times: int = 1) -> None:
        """Wait until the output has these words so many times."""

        def look() -> bool:
            assert self.process.poll() is None or words in self.output, self.output
            return self.output.count(words) >= times

        eventually(look, f"{words!r}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def interrupt(self) -> int:
        """Interrupt the process and its children, as Ctrl-C does; return its status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=PATIENCE)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to stop; return its exit status."""
        self.send(number)
        return self.process.wait(timeout=PATIENCE)


@contextmanager
def module(name: str, *arguments: str, cwd: Path, **env: str) -> Iterator[Running]:
    """Run `python -m name` with these arguments for the block's time."""
    log = cwd / f"{name}-{len(list(cwd.glob(f'{name}-*.log')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", name, *arguments],
            cwd=cwd,
            stdout=output,
            stderr=output,
            env=environment(**env),
            process_group=0,
        )
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def beatd(*arguments: str, cwd: Path, **env: str) -> AbstractContextManager[Running]:
    """Run `beatd` with these arguments for the block's time."""
    return module("beatd", *arguments, cwd=cwd, **env)


def ended(*arguments: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run `beatd` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "beatd", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(**env),
        check=False,
    )
