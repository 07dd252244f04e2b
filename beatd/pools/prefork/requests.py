"""Requests of other threads to the thread that supervises a pool's children."""

import socket
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class SupervisorRequests:
    """Functions that are to be called in the supervising thread."""

    def __init__(self) -> None:
        self._functions: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def open(self) -> None:
        """Make the pair of sockets by which the thread is woken."""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def fileno(self) -> int:
        """Return the socket that is readable when the thread has to take a turn."""
        return self._woken.fileno()

    def put(self, function: Callable[[], None]) -> None:
        """Have this function called in the supervising thread."""
        self._functions.put(function)
        self.wake()

    def wake(self) -> None:
        """Have the supervising thread take another turn."""
        with suppress(
            OSError
        ):  # full: the thread wakes up anyway; closed: it has ended
            self._waker.send(b"!")

    def answer(self) -> None:
        """Call all functions that were put; for the supervising thread."""
        self._woken.recv(4096)
        with suppress(Empty):
            while True:
                self._functions.get_nowait()()

    def close(self) -> None:
        """Close the sockets; functions that are put from now on are not called."""
        self._woken.close()
        self._waker.close()
