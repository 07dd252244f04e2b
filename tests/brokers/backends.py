"""The brokers that the contract is asked of, each behind the same few handles."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from beatd.brokers.base import Broker
from beatd.brokers.memory import MemoryBroker
from beatd.brokers.redis import RedisBroker
from beatd.brokers.redis.requests import script
from beatd.brokers.sqlite import SQLiteBroker
from beatd.clock import SystemClock
from beatd.instant import Instant, Span
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

    def step(self, length: Span) -> None:
        """Set the clock by which the broker tells the time of day."""
        ...

    def set_back(self) -> AbstractContextManager[None]:
        """Undo afterwards what is done meanwhile, as a restored snapshot does."""
        ...

    def close(self) -> None: ...


class SteppedClock(SystemClock):
    """The clocks of this machine, of which the wall clock was set."""

    def __init__(self) -> None:
        self.ahead: Span = 0

    def now(self) -> Instant:
        return super().now() + self.ahead


class SteppedRedis(RedisBroker):
    """On a server whose clock was set: a script that asks for the time is changed."""

    clock = SteppedClock()

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if not self.clock.ahead:
            return super()._run(name, keys, arguments)
        self._greet()
        text, _ = script(name)
        text = text.replace(_SECONDS, f"{_SECONDS} + {self.clock.ahead}")
        with self._server.answering() as client:
            return client.eval(text, len(keys), *keys, *arguments)


_SECONDS = "return time[1] * 1000"


class Memory:
    def __init__(self) -> None:
        self._clock = SteppedClock()
        self.broker = MemoryBroker(self._clock)

    def connect(self) -> Broker:
        return self.broker

    def refuse(self, queue: str) -> None:
        self.broker.closed[queue] = "it is closed"

    def admit(self, queue: str) -> None:
        del self.broker.closed[queue]

    def step(self, length: Span) -> None:
        self._clock.ahead += length

    @contextmanager
    def set_back(self) -> Iterator[None]:
        no_data = ("_changed", "_clock", "_serial", "_nonces", "_leases")
        data = vars(self.broker).items()
        snapshot = deepcopy({key: one for key, one in data if key not in no_data})
        yield
        vars(self.broker).update(snapshot)

    def close(self) -> None: ...


class SQLite:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "broker.db"
        self._clock = SteppedClock()
        self._open: list[Broker] = []

    def connect(self) -> Broker:
        self._open.append(SQLiteBroker(self._path, namespace="test", clock=self._clock))
        return self._open[-1]

    def refuse(self, queue: str) -> None:
        self._execute(
            "CREATE TRIGGER closed BEFORE INSERT ON messages"
            f" WHEN NEW.queue = '{queue}'"
            " BEGIN SELECT RAISE(ABORT, 'it is closed'); END"
        )

    def admit(self, queue: str) -> None:
        self._execute("DROP TRIGGER closed")

    def refuse_dead_letters(self) -> None:
        self._execute(
            "CREATE TRIGGER no_dead BEFORE INSERT ON dead"
            " BEGIN SELECT RAISE(ABORT, 'it is closed'); END"
        )

    def step(self, length: Span) -> None:
        self._clock.ahead += length

    @contextmanager
    def set_back(self) -> Iterator[None]:
        with (
            closing(sqlite3.connect(":memory:")) as snapshot,
            closing(sqlite3.connect(self._path)) as db,
        ):
            db.backup(snapshot)
            yield
            snapshot.backup(db)

    def _execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self._path)) as db:
            db.execute(sql)

    def close(self) -> None:
        for broker in self._open:
            broker.close()


class Redis:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._clock = SteppedClock()
        self._open: list[Broker] = []

    def connect(self) -> Broker:
        broker = SteppedRedis(self._server.url(), namespace="test")
        broker.clock = self._clock
        self._open.append(broker)
        return broker

    def refuse(self, queue: str) -> None:
        with self._server.client() as client:
            client.set(queue, "of another program")

    def admit(self, queue: str) -> None:
        with self._server.client() as client:
            client.delete(queue)

    def refuse_dead_letters(self) -> None:
        with self._server.client() as client:
            client.set("{beatd:test}:dead", "of another program")

    def step(self, length: Span) -> None:
        self._clock.ahead += length

    @contextmanager
    def set_back(self) -> Iterator[None]:
        with self._server.client() as client:
            snapshot = dump(client)
            yield
            restore(client, snapshot)

    def close(self) -> None:
        for broker in self._open:
            broker.close()


Dump: TypeAlias = dict[bytes, tuple[int, bytes]]
"""By key how long it lives on (0: for ever), and its value."""


def dump(client: Any) -> Dump:
    """Return all that is in the database of a Redis server."""
    keys = [*client.scan_iter(count=1000)]
    pipe = client.pipeline()
    for key in keys:
        pipe.pttl(key).dump(key)
    found = iter(pipe.execute())
    return {key: (max(next(found), 0), next(found)) for key in keys}


def restore(client: Any, data: Dump) -> None:
    """Have nothing but these data in the database."""
    pipe = client.pipeline().flushdb()
    for key, (life, value) in data.items():
        pipe.restore(key, life, value)
    pipe.execute()
