"""The real brokers that the calls of a simulation are made to again.

They live in simulated time. A script of Redis is told the time of each call, and the
lead's time to live is set to what is left of it before each script that asks for the
lead. In SQLite the lead is a kernel lock, which ends with its process: where a lead has
run out in memory, the process has given it back.

All processes of the simulation share one object, which knows what it saw last: in
Redis, how long the server's clock has gone right.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from beatd.brokers.base import Broker
from beatd.brokers.items import HeldLead, Term
from beatd.brokers.redis import RedisBroker
from beatd.brokers.redis.requests import script
from beatd.brokers.sqlite import SQLiteBroker
from beatd.clock import SystemClock
from beatd.instant import SECOND, Instant, Span
from tests.brokers.backends import Dump, dump, restore
from tests.servers import Server

Changes = Mapping[str, tuple[str, str]]
"""By script a part of its text, and what stands there instead."""


class CallClock(SystemClock):
    """Shows when the present call was made."""

    instant: Instant = 0

    def now(self) -> Instant:
        return self.instant

    def elapsed(self) -> Span:
        return self.instant


class Real(Protocol):
    """A real broker with its data."""

    clock: CallClock

    @property
    def broker(self) -> Broker: ...

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        """Ask for the lead, as another process than the one that holds it."""
        ...

    def end_lead(self) -> None:
        """Have the lead end, if it does not end with its time to live."""
        ...

    def keep(self) -> None:
        """Keep all data as they are now."""
        ...

    def set_back(self) -> None:
        """Go on from the data that were kept last."""
        ...

    def lose_all(self) -> None:
        """Go on without data."""
        ...

    def close(self) -> None: ...


class OnRedis:
    """A Redis server, which is emptied first."""

    def __init__(self, server: Server, changes: Changes) -> None:
        self.clock = CallClock()
        self.broker = TimedRedis(server, self.clock, changes)
        self.acquire = self.broker.acquire
        self._client = server.client()
        self._kept: Dump = {}
        self._kept_lead: Instant | None = None
        self.lose_all()

    def end_lead(self) -> None:
        pass

    def keep(self) -> None:
        self._kept = dump(self._client)
        self._kept_lead = self.broker.lead_ends

    def set_back(self) -> None:
        restore(self._client, self._kept)
        self.broker.lead_ends = self._kept_lead

    def lose_all(self) -> None:
        restore(self._client, {})
        self.broker.lead_ends = None

    def close(self) -> None:
        self.broker.close()
        self._client.close()


class TimedRedis(RedisBroker):
    """On a server that tells the time, and keeps the lead, by a clock of ours."""

    def __init__(self, server: Server, clock: CallClock, changes: Changes) -> None:
        super().__init__(server.url(), namespace="sim", clock=clock)
        self.lead_ends: Instant | None = None
        """None while nobody has the lead."""
        self._lead = self._key("lead")
        self._changes = changes
        self._digests: dict[str, bytes] = {}
        # A client does a lot before and after each request, and these are many.
        self._line: Any = server.client().connection_pool.get_connection()

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if name not in self._digests:
            self._digests[name] = self._load(name)
        run = ("EVALSHA", self._digests[name], len(keys), *keys, *arguments)
        now = self._clock.now()
        if self._lead not in keys:
            return self._exchange(("SET", _TIME, now), run)[1]
        # In a transaction: for the server all of it is one instant.
        left = 0 if self.lead_ends is None else self.lead_ends - now
        *_, (_, answer, left, _) = self._exchange(
            ("SET", _TIME, now),
            ("MULTI",),
            ("PEXPIRE", self._lead, left),
            run,
            ("PTTL", self._lead),
            ("PERSIST", self._lead),
            ("EXEC",),
        )
        self.lead_ends = now + left if left >= 0 else None
        return answer

    def _load(self, name: str) -> bytes:
        """Load a script as it is to be here; return its digest."""
        text = script(name)[0].replace(*self._changes.get(name, ("", "")))
        text = text.replace("redis.call('TIME')", _READ_TIME)
        digest: bytes = self._exchange(("SCRIPT", "LOAD", text))[0]
        return digest

    def _ask(self, *command: Any) -> Any:
        now = self._clock.now()
        if command == ("TIME",):
            return divmod(now * SECOND, SECOND * SECOND)
        if command == ("GET", self._lead) and (self.lead_ends or 0) <= now:
            return None
        return super()._ask(*command)

    def _exchange(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send these commands together; return the answers."""
        self._line.send_packed_command(self._line.pack_commands(commands))
        return [self._line.read_response() for _ in commands]

    def close(self) -> None:
        self._line.disconnect()
        super().close()


_TIME = "the time"
_READ_TIME = f"{{redis.call('GET', '{_TIME}') / {SECOND}, 0}}"
"""What a script reads in the place of the server's clock."""


class OnSQLite:
    """A new SQLite file."""

    def __init__(self, directory: Path) -> None:
        self.clock = CallClock()
        self._path = directory / "broker.db"
        self.broker = SQLiteBroker(self._path, namespace="sim", clock=self.clock)
        self._standby = SQLiteBroker(self._path, namespace="sim", clock=self.clock)
        self.broker.ping()
        self._empty, self._kept = directory / "empty.db", directory / "kept.db"
        self._kept_led: Term | None = None
        self._kept_holder = ""
        _copy(self._path, self._empty)

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        broker = self._standby if self.broker._led else self.broker
        return broker.acquire(holder, ttl, floor)

    def end_lead(self) -> None:
        if self.broker._led:
            self.broker.resign(self.broker._led)

    def keep(self) -> None:
        self._kept_led = self.broker._led
        self._kept_holder = self.broker.leader() or ""
        _copy(self._path, self._kept)

    def set_back(self) -> None:
        self.broker.let_go()
        _copy(self._kept, self._path)
        if self._kept_led:
            self.broker._lock.try_lock(self._kept_holder)
            self.broker._led = self._kept_led

    def lose_all(self) -> None:
        self.broker.let_go()
        _copy(self._empty, self._path)

    def close(self) -> None:
        self.broker.close()
        self._standby.close()


def _copy(path: Path, to: Path) -> None:
    """Make a database what another one is, whoever has it open."""
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(to)) as other:
        one.backup(other)
