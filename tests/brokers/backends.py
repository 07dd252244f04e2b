"""The brokers that the contract is asked of, each behind the same few handles."""

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

    def close(self) -> None: ...


class Memory:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def connect(self) -> Broker:
        return self.broker

    def close(self) -> None: ...


class SQLite:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "broker.db"
        self._open: list[Broker] = []

    def connect(self) -> Broker:
        self._open.append(SQLiteBroker(self._path, namespace="test"))
        return self._open[-1]

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

    def close(self) -> None:
        for broker in self._open:
            broker.close()
