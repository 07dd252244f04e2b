"""What other threads ask of the thread that supervises a pool's children."""

import socket
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class SupervisorRequests:
    """Functions to be called in the supervising thread, which `wake` wakes up."""

    def __init__(self) -> None:
        self._functions: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def open(self) -> None:
        """Make the pair of sockets that wakes the thread up."""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def fileno(self) -> int:
        """Return the socket that is readable when the thread has to take a turn."""
        return self._woken.fileno()

    def put(self, function: Callable[[], None]) -> None:
        """Have this called in the supervising thread."""
        self._functions.put(function)
        self.wake()

    def wake(self) -> None:
        """Have the supervising thread take another turn."""
        with suppress(OSError):  # full: it wakes up anyway; closed: nobody is there
            self._waker.send(b"!")

    def answer(self) -> None:
        """Do all that was asked for; called in the supervising thread."""
        self._woken.recv(4096)
        with suppress(Empty):
            while True:
                self._functions.get_nowait()()

    def close(self) -> None:
        """Let go of the sockets; what is asked for from now on is not done."""
        self._woken.close()
        self._waker.close()
