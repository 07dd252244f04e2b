"""A command that a task runs: its input, the end of its output, its exit status.

Between it and this process is a guard (command_guard.py), which ends all that the
command has started when this process is killed, closes its socket or asks for it.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from beatd.clock import Clock, SystemClock
from beatd.config.settings import mask
from beatd.errors import CommandFailed
from beatd.instant import SECOND, Span, span_of
from beatd.pools.prefork.forkserver_main import OF_THE_SERVICE
from beatd.runs import command_guard
from beatd.text import quoted

KEPT = 64 * 1024
"""Bytes of the end of the output that are kept."""

LINES, LETTERS = 10, 2000
"""How much of the end of the output an error shows."""

_CHUNK = 1 << 16
_PARTS = 64
"""A pipe holds no more of these than some."""

_LOOK: Span = SECOND
"""A thread has its soft time limit raised only between two instructions of Python."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command, as the arguments of `beatd.run` say it."""

    command: str | Sequence[str]
    shell: bool = False
    timeout: float | None = None
    cwd: str | None = None
    env: Mapping[str, str] = {}
    input: str | None = None
    ok_statuses: Sequence[int] = (0,)

    @property
    def name(self) -> str:
        """What errors call it."""
        return "the command" if self.shell else quoted(self.command[0])

    @property
    def words(self) -> list[str]:
        """The program and its arguments."""
        return ["/bin/sh", "-c", str(self.command)] if self.shell else [*self.command]


def run(
    command: Command,
    variables: Mapping[str, str],
    at_most: float | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Run a command to its end; return its exit status and the end of its output.

    `variables` are added to the worker's; `at_most` are the seconds after which nobody
    waits for the run any more. Raises CommandFailed. What else is raised meanwhile,
    a soft time limit say, ends the command, and goes on.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in OF_THE_SERVICE}
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = _guard_of(
                command, {**inherited, **variables, **command.env}, theirs
            )
    except BaseException:  # goes on up
        ours.close()
        raise
    # Our end is closed before the guard is waited for, which has the guard end.
    with process, ours:
        return _Run(command, process, ours, clock or SystemClock()).result(at_most)


def _guard_of(
    command: Command, variables: Mapping[str, str], control: socket.socket
) -> "subprocess.Popen[bytes]":
    fd = control.fileno()
    # -I and -S: it begins within some milliseconds, and finds nothing of the user's.
    guard = [sys.executable, "-I", "-S", command_guard.__file__, str(fd)]
    try:
        return subprocess.Popen(
            [*guard, *command.words],
            stdin=subprocess.DEVNULL if command.input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=command.cwd,
            env=variables,
            pass_fds=[fd],
            start_new_session=True,
        )
    except OSError as error:
        where = f" in {command.cwd!r}" if error.filename == command.cwd else ""
        text = f"cannot start {command.name}{where}: {error.strerror}"
        raise CommandFailed(text) from None


class _Run:
    """One command that runs, until its guard has ended."""

    def __init__(
        self,
        command: Command,
        process: "subprocess.Popen[bytes]",
        control: socket.socket,
        clock: Clock,
    ) -> None:
        assert process.stdout
        self._command = command
        self._control = control
        self._output = process.stdout
        self._clock = clock
        self._unsent = memoryview((command.input or "").encode())
        self._kept = bytearray()
        self._omitted = 0
        self._said = bytearray()
        self._selector = selectors.DefaultSelector()
        for stream, read in ((control, self._hear), (process.stdout, self._read)):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, read)
        if process.stdin:
            self._input = process.stdin
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE, self._write)

    def result(self, at_most: float | None) -> dict[str, Any]:
        """Return what the task returns. Raises CommandFailed."""
        limits = [limit for limit in (self._command.timeout, at_most) if limit]
        with self._selector:
            try:
                in_time = self._attend(min(limits, default=None))
            except BaseException:  # whatever it is, the command does not outlive it
                self._end()
                raise
            if not in_time:
                self._end()
        status = self._status()
        if not in_time:
            raise self._failed(f"took longer than {min(limits):g} s, and was ended")
        if status not in self._command.ok_statuses:
            raise self._failed(_how(status))
        output = bytes(self._kept).decode(errors="replace")
        return {"status": status, "output": output, "omitted": self._omitted}

    def _attend(self, seconds: float | None) -> bool:
        """Pass input and output on until the guard has ended; False: it is too late."""
        deadline = None if seconds is None else self._clock.elapsed() + span_of(seconds)
        while self._is_watched(self._control):
            nap = _LOOK
            if deadline is not None:
                nap = min(nap, deadline - self._clock.elapsed())
                if nap <= 0:
                    return False
            for key, _ in self._selector.select(nap / SECOND):
                key.data()
        # What escaped from its group may hold the output open: the rest is not awaited.
        for _ in range(_PARTS):
            if not self._is_watched(self._output) or not self._read():
                break
        return True

    def _end(self) -> None:
        """Have the guard end the command, and wait for that."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self._attend(None)

    def _is_watched(self, stream: Any) -> bool:
        return stream in self._selector.get_map()

    def _hear(self) -> None:
        try:
            received = self._control.recv(_CHUNK)
        except ConnectionResetError:
            received = b""
        self._said += received
        if not received:
            self._selector.unregister(self._control)

    def _read(self) -> bool:
        """Read some output; return False if there is none for now."""
        try:
            received = os.read(self._output.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        if not received:
            self._selector.unregister(self._output)
            return False
        self._kept += received
        too_much = max(0, len(self._kept) - KEPT)
        self._omitted += too_much
        del self._kept[:too_much]
        return True

    def _write(self) -> None:
        try:
            number = os.write(self._input.fileno(), self._unsent[:_CHUNK])
            self._unsent = self._unsent[number:]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command does not read it: that is its own affair
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._selector.unregister(self._input)
            self._input.close()

    def _words(self, name: str) -> int | None:
        """Return the number that the guard has said under this name."""
        for line in self._said.decode().splitlines():
            word, _, number = line.partition(" ")
            if word == name:
                return int(number)
        return None

    def _status(self) -> int:
        """Return the exit status, or the number of a signal below 0.

        What a guard that was killed has left behind is killed here.
        """
        if number := self._words("error"):
            text = f"cannot start {self._command.name}: {os.strerror(number)}"
            raise CommandFailed(text)
        status = self._words("status")
        if status is None:
            if group := self._words("started"):
                with suppress(OSError):  # all of it is gone, or another user's
                    os.killpg(group, signal.SIGKILL)
            raise self._failed("was lost: its guard was killed, or it does not end")
        return os.waitstatus_to_exitcode(status)

    def _failed(self, how: str) -> CommandFailed:
        tail = bytes(self._kept[-LETTERS:]).decode(errors="replace").rstrip()
        lines = tail.splitlines()[-LINES:]
        last = "\n  ".join(["; its last lines:", *map(mask, lines)]) if lines else ""
        return CommandFailed(f"{self._command.name} {how}{last}")


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-status}"
