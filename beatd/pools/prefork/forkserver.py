"""The fork server, the process that forks all children of a pool: the pool's side.

To fork a process that has threads copies locks that nobody will ever release. So there
is one process without threads: either a copy of the pool's own process, forked early,
before there are threads and connections, with all task modules imported; or a new
interpreter, which imports them itself. Its code is in forkserver_main.py.
"""

import gc
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
    RunChild,
    outlive_group_signals,
    serve,
)
from beatd.pools.prefork.frames import Frames, pack


class ForkServerDied(Exception):
    """The fork server is gone, and its children with it."""


class ServerProcess(Protocol):
    """The process of a fork server, started by this one."""

    pid: int

    def kill(self) -> object:
        """Kill the process."""
        ...

    def wait(self) -> object:
        """Wait until the process has ended."""
        ...


Starter: TypeAlias = Callable[[socket.socket, socket.socket], ServerProcess]
"""Starts a fork server, given both ends of a socket: the pool's and the server's."""


class ForkServer:
    """The fork server, as the pool sees it: forks children, and reports their ends."""

    def __init__(self, start: Starter) -> None:
        self._start = start
        self.alive = False
        self.ready = False
        """Whether the process has reported that it can fork children."""
        self.about = b""
        """What the process told of its code when it was ready."""
        self.fault = "it ended before it was ready"
        """Why the process died before it was ready, if it did."""

    def open(self) -> None:
        """Start the process, for the first time or after it died. Raises OSError."""
        self._control, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = self._start(self._control, theirs)
        except OSError:
            self._control.close()
            raise
        self._received = bytearray()
        self.alive = True

    def fileno(self) -> int:
        """Return the socket that is readable when `gone` has something to yield."""
        return self._control.fileno()

    def fork(self, number: int, place: int, claims: int) -> socket.socket:
        """Have a child forked for a place of the pool; return our end of its channel.

        Raises OSError if the request cannot be sent.
        """
        ours, theirs = socket.socketpair()
        record = RECORD.pack(FORK, number, place)
        try:
            with theirs:
                socket.send_fds(self._control, [record], [theirs.fileno(), claims])
        except (BrokenPipeError, ConnectionResetError):
            pass  # a dead fork server is found by `gone`
        except OSError:
            ours.close()
            raise
        return ours

    def kill(self, number: int, signum: int = signal.SIGKILL) -> None:
        """Kill this child, or send it another signal, unless it is gone already."""
        with suppress(OSError):
            self._control.sendall(RECORD.pack(KILL, number, signum))

    def kill_all(self) -> None:
        """Kill the fork server, and by that its children; `gone` will raise."""
        self._process.kill()

    def gone(self) -> Iterator[tuple[int, int]]:
        """Yield number and wait status of each child that has ended; do not wait.

        Also reads whether the process is ready. Raises ForkServerDied.
        """
        try:
            received = self._control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.close()
            raise ForkServerDied
        self._received += received
        while len(self._received) >= RECORD.size:
            verb, number, status = RECORD.unpack(self._received[: RECORD.size])
            end = RECORD.size
            if verb != GONE:
                end += number
                if len(self._received) < end:
                    return
                self._take_words(verb, bytes(self._received[RECORD.size : end]))
            del self._received[:end]
            if verb == GONE:
                yield number, status

    def _take_words(self, verb: bytes, words: bytes) -> None:
        if verb == READY:
            self.about, self.ready = words, True
        else:
            self.fault = words.decode()

    def close(self) -> None:
        """End the fork server, and its children if there are any."""
        if not self.ready:
            self._process.kill()  # it has no children, and may load for long
        self.alive = self.ready = False
        self._control.close()
        self._process.wait()


class _Copy:
    """A fork server that was forked from this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        with suppress(ChildProcessError):  # other code has waited for any process
            os.waitpid(self.pid, 0)


def forked(run_child: RunChild) -> Starter:
    """Return a starter that forks this process, as it is at that time."""

    def start(ours: socket.socket, theirs: socket.socket) -> ServerProcess:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what is left in the buffer would be printed twice
        # What exists now is shared by all processes of the pool, this one among them: a
        # collection that touches it would copy its pages.
        gc.collect()
        gc.freeze()
        with warnings.catch_warnings():
            # A process with threads forks only when a fork server was killed and has to
            # be replaced, or when the pool could not be started earlier.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            ours.close()
            serve(theirs, run_child)
        return _Copy(pid)

    return start


def spawned(command: Sequence[str], words: Callable[[], object]) -> Starter:
    """Return a starter of a new interpreter that runs this command.

    The command gets the number of the server's end of the socket as its last argument,
    and calls `handshake` first, which returns what `words` returns at that time.
    """

    def start(ours: socket.socket, theirs: socket.socket) -> ServerProcess:
        fd = theirs.fileno()
        environ = {k: v for k, v in os.environ.items() if k not in OF_THE_SERVICE}
        # The new process inherits the mask, and `handshake` takes it off again.
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
        with suppress(OSError):  # it is dead already, which `gone` finds
            ours.sendall(pack(words()))
        return process

    return start


def handshake(fd: int) -> tuple[socket.socket, bytes]:
    """Return the fork server's end of the socket, and the words of the pool.

    For a process that was started by `spawned`. Raises ConnectionResetError when the
    pool's process is dead.
    """
    outlive_group_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    frames = Frames()
    while received := control.recv(1):  # never reads beyond the frame
        for words in frames.feed(received):
            return control, words
    raise ConnectionResetError
