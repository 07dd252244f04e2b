"""Programs of Python's that tests run often: each is a fork of one process.

That process (`tests/stem.py`) has imported what they import, which takes them longer
than most tests do. A program has its own environment, folder, output and modules; it
starts and ends as any process does.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from tests.stem import LENGTH

_FIXED = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
"""Variables with which a process begins, and that mean nothing to it later."""


class Forked:
    """A program that was forked: what tests ask of `subprocess.Popen`."""

    def __init__(self, pid: int, ends: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ends = open(ends, "rb", buffering=0)  # noqa: SIM115  (a descriptor)

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status when it has ended."""
        if (status := self._look(timeout)) is None:
            raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            ready, _, _ = select.select([self._ends], [], [], timeout)
            if ready:
                self.returncode = int(self._ends.read())
                self._ends.close()
        return self.returncode

    def __del__(self) -> None:
        self._ends.close()


class Preloaded:
    """A process that has imported these modules, and becomes others by forks."""

    def __init__(self, *imports: str) -> None:
        self._lock = threading.Lock()
        self._environment = dict(os.environ)
        ours, theirs = socket.socketpair()
        self._control = ours
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, Path(__file__).with_name("stem.py")),
                    *(str(theirs.fileno()), *imports),
                ],
                env=self._environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> "Preloaded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End this process; what was forked goes on."""
        self._control.close()
        self._process.wait()

    def fits(self, env: Mapping[str, str]) -> bool:
        """Return whether a fork can be what a program with this environment is."""
        return _fixed(env) == _fixed(self._environment)

    def start(
        self,
        module: str,
        *words: str,
        cwd: Path,
        env: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
        leads_group: bool = False,
    ) -> Forked:
        """Start `python -m module` with these words, and without input."""
        assert self.fits(env), "it would have to be a process of its own from the start"
        request = {
            "module": module,
            "words": words,
            "cwd": str(cwd),
            "env": dict(env),
            "leads_group": leads_group,
        }
        told = json.dumps(request).encode()
        listening, telling = os.pipe()
        try:
            with open(os.devnull) as null, self._lock:  # noqa: PTH123
                streams = [null.fileno(), stdout.fileno(), stderr.fileno(), telling]
                socket.send_fds(self._control, [LENGTH.pack(len(told))], streams)
                self._control.sendall(told)
                (pid,) = LENGTH.unpack(self._control.recv(LENGTH.size))
        finally:
            os.close(telling)
        return Forked(pid, listening)

    def run(
        self,
        module: str,
        *words: str,
        cwd: Path,
        env: Mapping[str, str],
        timeout: float = 60,
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python -m module` with these words to its end."""
        with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
            program = self.start(
                module, *words, cwd=cwd, env=env, stdout=output, stderr=errors
            )
            try:
                status = program.wait(timeout)
            finally:
                program.kill()
            texts = [(file.seek(0), file.read())[1] for file in (output, errors)]
        return subprocess.CompletedProcess([module, *words], status, *texts)


@cache
def preloaded(*imports: str) -> Preloaded:
    """Return the process of this run of the tests that has imported these modules."""
    stem = Preloaded(*imports)
    atexit.register(stem.close)
    return stem


def _fixed(env: Mapping[str, str]) -> Mapping[str, str]:
    return {
        name: text
        for name, text in env.items()
        if name.startswith(_FIXED) and name != "PYTHONPATH"
    }
