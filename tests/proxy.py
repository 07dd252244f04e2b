"""A TCP proxy on 127.0.0.1 that does to a connection what networks do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Fault(Enum):
    """What happens to one request; the connection is closed after it."""

    LOSE_REQUEST = "it does not arrive"
    HALVE_REQUEST = "half of it arrives"
    LOSE_REPLY = "it arrives, and its answer is lost"


class Proxy:
    """Carries bytes to `port` until it is told to do worse."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[socket.socket] = []
        self._dead: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self.latency = 0.0
        """Seconds that each piece of a request is under way."""
        self._fault: tuple[Fault, bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Proxy":
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self._threads[0].join()  # which accepts: there are no new ones to cut
        self.cut()
        for thread in self._threads:
            thread.join()

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    def arm(self, fault: Fault, request: bytes) -> None:
        """Do this once, to the next request that has `request` in it."""
        with self._lock:
            self._fault = fault, request

    @property
    def armed(self) -> bool:
        return self._fault is not None

    def cut(self) -> None:
        """Close all connections; new ones are let in."""
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Carry nothing, close nothing: as when a cable is pulled."""
        self._flowing.clear()

    def swallow(self) -> int:
        """Let all connections that are open die without a word, and count them.

        New ones live.
        """
        links = [link for link in self._links if link.fileno() != -1]
        self._dead.update(links)
        return len(links) // 2

    def let_through(self) -> None:
        """Carry on, with what was held first."""
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return  # we are closed
            try:
                there = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                here.close()  # the server is away
                continue
            for link in (here, there):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links.append(link)
            losing = threading.Event()
            self._spawn(self._carry_requests, here, there, losing)
            self._spawn(self._carry_replies, there, here, losing)

    def _carry_requests(
        self, here: socket.socket, there: socket.socket, losing: threading.Event
    ) -> None:
        with _both(here, there):
            while piece := here.recv(1 << 20):
                if here in self._dead:
                    continue
                self._flowing.wait()
                if self.latency:
                    threading.Event().wait(self.latency)
                match self._fault_for(piece):
                    case None:
                        there.sendall(piece)
                    case Fault.LOSE_REQUEST:
                        return
                    case Fault.HALVE_REQUEST:
                        there.sendall(piece[: len(piece) // 2])
                        return
                    case Fault.LOSE_REPLY:
                        losing.set()
                        there.sendall(piece)

    def _carry_replies(
        self, there: socket.socket, here: socket.socket, losing: threading.Event
    ) -> None:
        with _both(there, here):
            while (piece := there.recv(1 << 20)) and not losing.is_set():
                self._flowing.wait()
                if there not in self._dead:
                    here.sendall(piece)

    def _fault_for(self, piece: bytes) -> Fault | None:
        with self._lock:
            if self._fault is None or self._fault[1] not in piece:
                return None
            fault, self._fault = self._fault[0], None
            return fault

    def _spawn(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


@contextmanager
def _both(one: socket.socket, other: socket.socket) -> Iterator[None]:
    """Close both ends when either is done; the other thread notices."""
    try:
        yield
    except OSError:
        pass  # the other thread closed them
    finally:
        for link in (one, other):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
