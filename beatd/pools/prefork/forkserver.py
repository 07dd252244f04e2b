"""The process from which all children of a pool are forked, as the pool sees it.

Forking a process that has threads copies locks that nobody will ever release. So there
is one process that has none: a copy of the pool's own, forked early, before there are
threads and connections, with all task modules imported; or a new interpreter, which
imports them itself and has nothing of the pool's process. What it does is in
forkserver_main.py.
"""

import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeAlias

from beatd.pools.prefork.forkserver_main import (
    FORK,
    GONE,
    GROUP_SIGNALS,
    KILL,
    OF_THE_SERVICE,
    READY,
    RECORD,
    Life,
    outlive_group_signals,
    tend,
)
from beatd.pools.prefork.frames import Frames, pack


class NurseryDied(Exception):
    """The nursery is gone, and its children with it."""


class Process(Protocol):
    """A process that this one has started."""

    pid: int

    def kill(self) -> object:
        """End it at once."""
        ...

    def wait(self) -> object:
        """Wait until it has ended."""
        ...


Birth: TypeAlias = Callable[[socket.socket, socket.socket], Process]
"""Starts a nursery; is given the pool's end of the socket, and the nursery's."""


class Nursery:
    """The pool's end: ask for children, hear of their ends."""

    def __init__(self, birth: Birth) -> None:
        self._birth = birth
        self.alive = False
        self.ready = False
        """Whether it has said that it can fork children."""
        self.about = b""
        """What it has said then, of its code."""
        self.fault = "it ended before it was ready"
        """Why it died, if that was so."""

    def open(self) -> None:
        """Start the nursery, for the first time or after it died; OSError if not."""
        self._control, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = self._birth(self._control, theirs)
        except OSError:
            self._control.close()
            raise
        self._heard = bytearray()
        self.alive = True

    def fileno(self) -> int:
        """Is readable when `gone` has something to give."""
        return self._control.fileno()

    def fork(self, number: int, place: int, claims: int) -> socket.socket:
        """Have a child forked for a place of the pool; give our end of its channel.

        OSError if it cannot be.
        """
        ours, theirs = socket.socketpair()
        record = RECORD.pack(FORK, number, place)
        try:
            with theirs:
                socket.send_fds(self._control, [record], [theirs.fileno(), claims])
        except (BrokenPipeError, ConnectionResetError):
            pass  # a dead nursery is found by `gone`
        except OSError:
            ours.close()
            raise
        return ours

    def kill(self, number: int, signum: int = signal.SIGKILL) -> None:
        """Kill this child, or send it another signal, unless it is gone already."""
        with suppress(OSError):
            self._control.sendall(RECORD.pack(KILL, number, signum))

    def kill_all(self) -> None:
        """Kill the nursery itself, and by that all its children; `gone` finds that."""
        self._process.kill()

    def gone(self) -> Iterator[tuple[int, int]]:
        """Give number and wait status of children that ended; does not wait for any.

        Takes note when the nursery is ready. Raises NurseryDied.
        """
        try:
            received = self._control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.close()
            raise NurseryDied
        self._heard += received
        while len(self._heard) >= RECORD.size:
            verb, number, status = RECORD.unpack(self._heard[: RECORD.size])
            end = RECORD.size
            if verb != GONE:
                end += number
                if len(self._heard) < end:
                    return
                self._hear(verb, bytes(self._heard[RECORD.size : end]))
            del self._heard[:end]
            if verb == GONE:
                yield number, status

    def _hear(self, verb: bytes, words: bytes) -> None:
        if verb == READY:
            self.about, self.ready = words, True
        else:
            self.fault = words.decode()

    def close(self) -> None:
        """End the nursery, and children if there are any."""
        if not self.ready:
            self._process.kill()  # it has no children, and may load for long
        self.alive = self.ready = False
        self._control.close()
        self._process.wait()


class _Copy:
    """A process that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        with suppress(ChildProcessError):  # somebody waited for any process
            os.waitpid(self.pid, 0)


def forked(life: Life) -> Birth:
    """Have the nursery be a copy of this process as it is when it is opened."""

    def birth(ours: socket.socket, theirs: socket.socket) -> Process:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what is left in the buffer would be printed twice
        with warnings.catch_warnings():
            # A process with threads forks only when a nursery was killed and has to be
            # replaced, or when whoever started the pool had no choice.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            ours.close()
            tend(theirs, life)
        return _Copy(pid)

    return birth


def spawned(command: Sequence[str], words: Callable[[], object]) -> Birth:
    """Have the nursery be a new interpreter, which runs this command.

    The command gets the number of the nursery's end as its last argument, and is to
    `answer_the_call` first; `words`, as they are then, are what it is told.
    """

    def birth(ours: socket.socket, theirs: socket.socket) -> Process:
        fd = theirs.fileno()
        environ = {k: v for k, v in os.environ.items() if k not in OF_THE_SERVICE}
        # It inherits the mask, and takes it off when it outlives these signals.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            process = subprocess.Popen(
                [*command, str(fd)],
                stdin=subprocess.DEVNULL,
                pass_fds=[fd],
                env=environ,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with suppress(OSError):  # it is dead already: `gone` finds that out
            ours.sendall(pack(words()))
        return process

    return birth


def answer_the_call(fd: int) -> tuple[socket.socket, bytes]:
    """Give the nursery's end, in a process that was `spawned`, and what it is told.

    Raises ConnectionResetError when the pool's process is dead.
    """
    outlive_group_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    frames = Frames()
    while received := control.recv(1):  # and none of what comes behind the frame
        for words in frames.feed(received):
            return control, words
    raise ConnectionResetError
