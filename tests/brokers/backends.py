"""The brokers that the contract is asked of, each behind the same few handles."""

import base64
import json
import sqlite3
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
        """Give one more broker object on the same data, as another process would."""
        ...

    def dead(self) -> list[tuple[str, bytes, str, int]]:
        """Read the dead-letter queue: queue, message, reason, deliveries."""
        ...

    def close(self) -> None: ...


class Memory:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def connect(self) -> Broker:
        return self.broker

    def dead(self) -> list[tuple[str, bytes, str, int]]:
        return [
            (
                one.delivery.queue,
                one.delivery.message,
                one.reason,
                one.delivery.deliveries,
            )
            for one in self.broker.dead
        ]

    def close(self) -> None: ...


class SQLite:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "broker.db"
        self._open: list[Broker] = []

    def connect(self) -> Broker:
        self._open.append(SQLiteBroker(self._path, namespace="test"))
        return self._open[-1]

    def dead(self) -> list[tuple[str, bytes, str, int]]:
        with sqlite3.connect(self._path) as connection:
            return connection.execute(
                "SELECT queue, message, reason, deliveries FROM dead ORDER BY rowid"
            ).fetchall()

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

    def dead(self) -> list[tuple[str, bytes, str, int]]:
        with self._server.client() as client:
            raw: list[bytes] = client.lrange("{beatd:test}:dead", 0, -1)
        records = [json.loads(record) for record in reversed(raw)]
        return [
            (r["queue"], base64.b64decode(r["message"]), r["reason"], r["deliveries"])
            for r in records
        ]

    def close(self) -> None:
        for broker in self._open:
            broker.close()
