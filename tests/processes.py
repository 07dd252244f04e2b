"""`beatd` and other programs, as users run them: output, signals, exit status.

Most are forks of a process that has imported what they import (`tests/preloaded.py`):
a test that is about how a program starts is to start one of its own.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.preloaded import Forked, Preloaded, preloaded
from tests.servers import PATIENCE, eventually

ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, without variables that configure beatd."""
    ours = ("BEATD_", "CELERY_")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return plain | {"PYTHONPATH": str(ROOT)} | more


_BEATD = (
    *("beatd.service.beat", "beatd.service.worker"),
    *("beatd.brokers.redis", "beatd.brokers.sqlite"),
    *("beatd.results.redis", "beatd.results.sqlite"),
    *("beatd.pools.prefork.pool", "beatd.pools.threads"),
    *("beatd.cli.list", "beatd.cli.next", "beatd.cli.check", "beatd.cli.dead"),
    *("beatd.cli.importing", "beatd.cli.exporting", "beatd.cli.worker"),
)
_IMPORTS: Mapping[str, Sequence[str]] = {
    "beatd": _BEATD,
    "beatd for an app of Celery's": (
        *("celery.app.base", "celery.app.task", "celery.app.trace", "celery.beat"),
        *("celery.app.events", "celery.backends.redis", "celery.worker.request"),
        *("celery.fixups.django", "celery.loaders.app", *_BEATD),
    ),
    "celery": (
        *("celery.bin.celery", "celery.backends.redis", "celery.beat"),
        *("celery.apps.worker", "celery.concurrency.prefork", "kombu.transport.redis"),
        *("celery.worker.components", "celery.worker.consumer", "celery.worker.loops"),
        *("celery.app.log", "celery.apps.beat"),
    ),
}


@dataclass
class Running:
    """A process that runs; both of its outputs go to one file."""

    process: "subprocess.Popen[bytes] | Forked"
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


def started(
    name: str,
    *arguments: str,
    cwd: Path,
    output: IO[Any],
    env: Mapping[str, str],
    leads_group: bool = True,
) -> "subprocess.Popen[bytes] | Forked":
    """Start `python -m name` with these arguments, in a process group of its own."""
    whole = environment(**env)
    if stem := _stem_of(name, arguments, cwd, whole):
        return stem.start(
            name,
            *arguments,
            cwd=cwd,
            env=whole,
            stdout=output,
            stderr=output,
            leads_group=leads_group,
        )
    return subprocess.Popen(
        [sys.executable, "-m", name, *arguments],
        cwd=cwd,
        stdout=output,
        stderr=output,
        env=whole,
        process_group=0 if leads_group else None,
    )


@contextmanager
def module(name: str, *arguments: str, cwd: Path, **env: str) -> Iterator[Running]:
    """Run `python -m name` with these arguments for the block's time."""
    log = cwd / f"{name}-{len(list(cwd.glob(f'{name}-*.log')))}.log"
    with log.open("wb") as output:
        process = started(name, *arguments, cwd=cwd, output=output, env=env)
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
    return ran("beatd", *arguments, cwd=cwd, **env)


def ran(
    name: str, *arguments: str, cwd: Path, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m name` to its end."""
    whole = environment(**env)
    if stem := _stem_of(name, arguments, cwd, whole):
        return stem.run(name, *arguments, cwd=cwd, env=whole, timeout=PATIENCE)
    return subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=whole,
        check=False,
    )


def _stem_of(
    name: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> Preloaded | None:
    """Return what can become this program, if its start is nothing out of the way."""
    # What gevent replaces is replaced before anything is imported.
    is_green = any(word.endswith(("gevent", "eventlet")) for word in arguments)
    if name not in _IMPORTS or is_green:
        return None
    if name == "beatd" and _imports_celery(cwd, env):
        name = "beatd for an app of Celery's"
    stem = preloaded(*_IMPORTS[name])
    return stem if stem.fits(env) else None


def _imports_celery(folder: Path, env: Mapping[str, str]) -> bool:
    """Return whether the program is to work for a project that imports Celery."""
    is_barred = "barred" in env["PYTHONPATH"]  # as `switch/ways.py` does
    return not is_barred and any(
        re.search(
            r"^\s*(from|import) celery\b",
            path.read_text(errors="replace"),
            re.MULTILINE,
        )
        for path in folder.rglob("*.py")
    )
