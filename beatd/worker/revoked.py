"""What is not to run any more, and a file that remembers it over restarts."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Generic, TypeVar

from beatd.errors import ConfigError
from beatd.instant import HOUR, Instant, Span
from beatd.sqlite_file import WORKER_STATE, State, connect, look_to_write, make

K = TypeVar("K")

MOST = 50_000
KEPT: Span = 3 * HOUR
"""How many are remembered, and for how long; Celery's."""

_TABLES = ["CREATE TABLE revoked (id TEXT PRIMARY KEY, at INTEGER NOT NULL)"]


class Revoked(Generic[K]):
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
        """Give all that still count."""
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
        """Give id and moment of what still counts, oldest first. Forgets the rest.

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
