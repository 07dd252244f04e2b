"""The brokers that the contract is asked of, each behind the same few handles."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

from beatd.brokers.base import Broker
from beatd.brokers.memory import MemoryBroker
from beatd.brokers.redis import RedisBroker
from beatd.brokers.sqlite import SQLiteBroker
from tests.servers import Server

LEASED = ["memory", "redis"]
"""Where a lead has a time to live; the kernel lock of SQLite ends with its process."""


class Backend(Protocol):
    """Data that survives the objects that look at it."""

    def connect(self) -> Broker:
        """Return one more broker object on the same data, as another process would."""
        ...

    def refuse(self, queue: str) -> None:
        """Have the broker refuse every message to this queue, which is empty."""
        ...

    def admit(self, queue: str) -> None:
        """Have the broker take messages to this queue again."""
        ...

    def close(self) -> None: ...


class Memory:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def connect(self) -> Broker:
        return self.broker

    def refuse(self, queue: str) -> None:
        self.broker.closed[queue] = "it is closed"

    def admit(self, queue: str) -> None:
        del self.broker.closed[queue]

    def close(self) -> None: ...


class SQLite:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "broker.db"
        self._open: list[Broker] = []

    def connect(self) -> Broker:
        self._open.append(SQLiteBroker(self._path, namespace="test"))
        return self._open[-1]

    def refuse(self, queue: str) -> None:
        self._execute(
            "CREATE TRIGGER closed BEFORE INSERT ON messages"
            f" WHEN NEW.queue = '{queue}'"
            " BEGIN SELECT RAISE(ABORT, 'it is closed'); END"
        )

    def admit(self, queue: str) -> None:
        self._execute("DROP TRIGGER closed")

    def _execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self._path)) as db:
            db.execute(sql)

    def close(self) -> None:
        for broker in self._open:
            broker.close()


class Redis:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._open: list[Broker] = []

    def connect(self) -> Broker:
        self._open.append(RedisBroker(self._server.url(), namespace="test"))
        return self._open[-1]

    def refuse(self, queue: str) -> None:
        with self._server.client() as client:
            client.set(queue, "of another program")

    def admit(self, queue: str) -> None:
        with self._server.client() as client:
            client.delete(queue)

    def close(self) -> None:
        for broker in self._open:
            broker.close()
