"""What is not to run any more, and a file that remembers it over restarts."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import (
    BrokerUnavailable,
    ConfigError,
    MessageError,
    ResultUnavailable,
    Revoked,
)
from beatd.event_log import EventLog
from beatd.instant import HOUR, Instant, Span, datetime_of
from beatd.message import Envelope
from beatd.results.base import Keeper, Meta
from beatd.results.base import State as RunState
from beatd.storage.sqlite_file import WORKER_STATE, State, connect, look_to_write, make

tell = EventLog(__name__)

K = TypeVar("K")

MOST = 50_000
KEPT: Span = 3 * HOUR
"""How many are remembered, and for how long; Celery's."""

UNBEGUN = ("PENDING", "RECEIVED", "RETRY", "REJECTED")
"""States of runs that can be revoked: no worker has them."""

_TABLES = ["CREATE TABLE revoked (id TEXT PRIMARY KEY, at INTEGER NOT NULL)"]


class RevokedKeys(Generic[K]):
    """Keys that were revoked, oldest first; at most `most`, none older than `kept`.

    One that is revoked again counts from then on.
    """

    def __init__(self, most: int = MOST, kept: Span = KEPT) -> None:
        self._most = most
        self._kept = kept
        self._at: dict[K, Instant] = {}

    def add(self, keys: Iterable[K], now: Instant) -> None:
        """Take note of these."""
        for key in keys:
            self._at.pop(key, None)
            self._at[key] = now
        self._forget(now)

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def keys(self, now: Instant) -> list[K]:
        """Return all that still count."""
        self._forget(now)
        return list(self._at)

    def _forget(self, now: Instant) -> None:
        for key, at in list(self._at.items()):
            if len(self._at) <= self._most and at > now - self._kept:
                return
            del self._at[key]


class StateFile:
    """The revoked ids on disk: `--statedb`. One row each, written as they come."""

    def __init__(self, path: Path) -> None:
        """Look at the file and make it if there is none.

        Raises ConfigError for one that is not ours, is damaged, or cannot be written.
        """
        self._path = path
        found = look_to_write(path, WORKER_STATE)
        if found.state in (State.REFUSED, State.DAMAGED):
            raise ConfigError(str(path), [f"--statedb: {found.problem}"])
        if found.state is State.ABSENT:
            try:
                make(path, WORKER_STATE, _TABLES)
            except (OSError, sqlite3.Error) as error:
                raise ConfigError(str(path), [f"--statedb: {error}"]) from error

    def load(self, now: Instant) -> Sequence[tuple[str, Instant]]:
        """Return id and moment of what still counts, oldest first. Forgets the rest.

        Raises ConfigError when the file cannot be read.
        """
        try:
            with closing(connect(self._path)) as db:
                db.execute("DELETE FROM revoked WHERE at <= ?", (now - KEPT,))
                sql = "SELECT id, at FROM revoked ORDER BY at DESC LIMIT ?"
                return db.execute(sql, (MOST,)).fetchall()[::-1]
        except sqlite3.Error as error:
            problem = f"--statedb: {error}; a new file is made where there is none"
            raise ConfigError(str(self._path), [problem]) from error

    def add(self, ids: Iterable[str], now: Instant) -> None:
        """Remember these. Raises sqlite3.Error."""
        with closing(connect(self._path)) as db:
            db.execute("BEGIN IMMEDIATE")
            sql = "INSERT OR REPLACE INTO revoked (id, at) VALUES (?, ?)"
            db.executemany(sql, [(task_id, now) for task_id in ids])
            db.execute("COMMIT")


class Revocations:
    """Which runs must not begin, by their ids and by their stamps."""

    def __init__(
        self,
        *,
        file: StateFile | None,
        results: Keeper | None,
        settings: Settings,
        clock: Clock,
    ) -> None:
        """Go on from the file. Raises ConfigError when it cannot be read."""
        self._ids: RevokedKeys[str] = RevokedKeys()
        self._stamps: RevokedKeys[tuple[str, str]] = RevokedKeys()
        self._file = file
        self._results = results
        self._settings = settings
        self._clock = clock
        for task_id, at in file.load(clock.now()) if file else ():
            self._ids.add([task_id], at)

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope.id in self._ids or any(
            stamp in self._stamps for stamp in stamps_of(envelope)
        )

    def known(self) -> list[str]:
        """Return all ids that still count."""
        return self._ids.keys(self._clock.now())

    def learn(self, task_ids: Iterable[str]) -> None:
        """Take note of what others have revoked."""
        self._ids.add(task_ids, self._clock.now())

    def revoke_stamps(self, stamps: Iterable[tuple[str, str]]) -> None:
        """Let nothing that carries one of these begin any more."""
        self._stamps.add(stamps, self._clock.now())

    def revoke(
        self, task_ids: Collection[str], running: Collection[str]
    ) -> Callable[[], object]:
        """Let these not begin any more; give what is left to do, which takes time.

        Those that are running end as they will.
        """
        self.learn(task_ids)
        waiting = [task_id for task_id in task_ids if task_id not in running]
        return partial(self._keep, task_ids, waiting)

    def _keep(self, task_ids: Collection[str], waiting: Sequence[str]) -> None:
        """Remember these, and let those who wait for them know at once."""
        try:
            if self._file:
                self._file.add(task_ids, self._clock.now())
            if self._results and waiting:
                known = self._results.load(waiting)
                self._results.store(
                    [
                        self._meta(task_id)
                        for task_id in waiting
                        if task_id not in known or known[task_id].status in UNBEGUN
                    ]
                )
        except (ResultUnavailable, MessageError, sqlite3.Error) as error:
            words = "revoked, but not all of it could be kept: %s"
            tell.warning("control.unkept", words, error)

    def _meta(self, task_id: str) -> Meta:
        done = datetime_of(self._clock.now(), self._settings.zone)
        error = Revoked("revoked")
        return Meta(task_id, RunState.REVOKED, error, date_done=done)


def stamps_of(envelope: Envelope) -> Sequence[tuple[str, str]]:
    """Return header and value of each stamp that a message carries."""
    found = []
    for header, value in (envelope.stamps or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        found += [(header, one) for one in values if isinstance(one, str)]
    return found


def mingle(
    ask: Callable[[Sequence[str]], Sequence[str]],
    known: Sequence[str],
    learn: Callable[[Sequence[str]], object],
) -> None:
    """Ask other workers what was revoked, telling them what is known here.

    A broker that is away keeps no worker from starting.
    """
    try:
        learn(ask(known))
    except BrokerUnavailable as error:
        words = "cannot ask other workers what was revoked: %s"
        tell.warning("control.mingle", words, error)
