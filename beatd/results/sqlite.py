"""Results in an SQLite file, shared by all processes of one host.

    results   task_id (key), status, data, expires

`data` is the encoded meta, `expires` the instant from which it is ignored (NULL:
never). Rows that have expired are removed a few at a time, whenever others are stored.
"""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beatd.background import do_in_halves
from beatd.clock import Clock, SystemClock
from beatd.errors import ConfigError, ItemRefused, ResultRefused, ResultUnavailable
from beatd.instant import SECOND, Span
from beatd.results.base import READY_STATES, Lifetime, Meta, State, Stored
from beatd.results.encoding import Encoding
from beatd.storage.open_files import note_open
from beatd.storage.sqlite_file import (
    RESULTS,
    ROW_REFUSALS,
    FileState,
    Look,
    connect,
    look_to_write,
    make,
)

TABLES = (
    """
    CREATE TABLE results (
        task_id TEXT PRIMARY KEY,
        status TEXT NOT NULL,
        data BLOB NOT NULL,
        expires INTEGER
    )
    """,
    "CREATE INDEX results_expire ON results (expires) WHERE expires IS NOT NULL",
)

_REPLACE = """
    INSERT INTO results VALUES (:task_id, :status, :data, :expires)
    ON CONFLICT (task_id) DO UPDATE
    SET status = excluded.status, data = excluded.data, expires = excluded.expires
"""

_KEEP = f"""{_REPLACE}
    WHERE results.status <> 'SUCCESS' OR results.expires <= :now
"""

_SWEEP = """
    DELETE FROM results WHERE rowid IN (
        SELECT rowid FROM results WHERE expires <= ? ORDER BY expires LIMIT ?
    )
"""

GROUP = "celery-taskset-meta-"
"""Precedes a group's id in the rows that have the ids of its runs."""

SWEPT = 100
"""Expired rows that are removed with each step, besides one for each row stored."""

FIRST_NAP, LONGEST_NAP = 0.002, 0.02
"""Seconds between two looks at what other processes stored; they grow with time."""


class SQLiteResults:
    """Results in one file; any thread may use them, and a forked child reopens it."""

    def __init__(
        self,
        path: Path,
        *,
        encoding: Encoding,
        lifetime: Lifetime,
        clock: Clock | None = None,
    ) -> None:
        """Look at the file; it is made when it is first used.

        Raises ConfigError for a file that is not ours, or cannot be written.
        """
        self._path = path
        self._encoding = encoding
        self._lifetime = lifetime
        self._clock = clock or SystemClock()
        self._idle: deque[sqlite3.Connection] = deque()
        self._pid = os.getpid()
        self._closed = threading.Event()
        if problem := self._problem(look_to_write(path, RESULTS)):
            raise ConfigError("result_backend", [problem])
        note_open(self)

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        self._store(metas, _KEEP)

    def correct(self, metas: Sequence[Meta | Stored]) -> None:
        self._store(metas, _REPLACE)

    def _store(self, metas: Sequence[Meta | Stored], statement: str) -> None:
        now = self._clock.now()
        rows = []
        for one in map(self._encoding.store, metas):
            ttl = self._lifetime.of(one.status)
            rows.append(
                {
                    "task_id": one.task_id,
                    "status": str(one.status),
                    "data": one.data,
                    "expires": None if ttl is None else now + ttl,
                    "now": now,
                }
            )
        refused: dict[int, str] = {}
        with self._connection() as db:
            do_in_halves(
                lambda some: self._write(db, statement, [row for _, row in some]),
                list(enumerate(rows)),
                lambda one, refusal: refused.update({one[0]: str(refusal)}),
            )
        if refused:
            raise ResultRefused(refused)

    def _write(
        self, db: sqlite3.Connection, statement: str, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Write rows in one step; ItemRefused, and nothing is done, if one is bad."""
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(_SWEEP, (self._clock.now(), SWEPT + len(rows)))
            db.executemany(statement, rows)
        except ROW_REFUSALS as error:
            if db.in_transaction:  # a trigger may have rolled it back
                db.execute("ROLLBACK")
            raise ItemRefused(f"{self._path} refuses a result: {error}") from error
        db.execute("COMMIT")

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        with self._connection() as db:
            found = {task_id: self._data(db, task_id) for task_id in task_ids}
        return {
            task_id: self._encoding.decode(task_id, data)
            for task_id, data in found.items()
            if data is not None
        }

    def wait(self, task_id: str, timeout: Span | None) -> Meta | None:
        end = None if timeout is None else self._clock.elapsed() + timeout
        nap, seen = FIRST_NAP, None
        with self._connection() as db:
            while True:
                # SQLite's count of others' commits: cheaper to read than the row.
                (version,) = db.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen = version
                    if meta := self._ended(db, task_id):
                        return meta
                left = nap if end is None else (end - self._clock.elapsed()) / SECOND
                if left <= 0 or self._closed.wait(min(nap, left)):
                    return None
                nap = min(nap * 1.1, LONGEST_NAP)

    def forget(self, task_id: str) -> None:
        with self._connection() as db:
            db.execute("DELETE FROM results WHERE task_id = ?", (task_id,))

    def save_group(self, group_id: str, members: Any) -> None:
        self.correct([Meta(GROUP + group_id, State.SUCCESS, members)])

    def load_group(self, group_id: str) -> Any:
        found = self.load([GROUP + group_id]).get(GROUP + group_id)
        return None if found is None else found.result

    def forget_group(self, group_id: str) -> None:
        self.forget(GROUP + group_id)

    def close(self) -> None:
        self._closed.set()
        while self._idle:
            self._idle.pop().close()

    def _ended(self, db: sqlite3.Connection, task_id: str) -> Meta | None:
        data = self._data(db, task_id)
        meta = None if data is None else self._encoding.decode(task_id, data)
        return meta if meta and meta.status in READY_STATES else None

    def _data(self, db: sqlite3.Connection, task_id: str) -> bytes | None:
        sql = "SELECT data FROM results WHERE task_id = ? AND ifnull(expires > ?, 1)"
        row = db.execute(sql, (task_id, self._clock.now())).fetchone()
        return row[0] if row else None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for this thread; an error closes it and rolls back."""
        db = None
        try:
            db = self._idle_connection() or self._connect()
            yield db
        except BaseException as error:  # whatever it is, it goes on up
            if db:
                db.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise ResultUnavailable(f"results: {self._path}: {error}") from error
            raise
        if self._closed.is_set():
            db.close()  # nobody else will
        else:
            self._idle.append(db)

    def _idle_connection(self) -> sqlite3.Connection | None:
        if os.getpid() != self._pid:
            # SQLite forbids a child to use, or to close, its parent's connections.
            _of_parents.append(self._idle)
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> sqlite3.Connection:
        found = look_to_write(self._path, RESULTS)
        if problem := self._problem(found):
            raise ResultUnavailable(f"results: {problem}")
        if found.state is FileState.ABSENT:
            make(self._path, RESULTS, TABLES)
        db = connect(self._path)
        # Not what this SQLite was built with: a result that was stored stays.
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _problem(self, found: Look) -> str:
        """Return why the file cannot be used; an empty text if it can."""
        if found.state is FileState.DAMAGED:
            return (
                f"{self._path} is damaged ({found.problem}):"
                " restore it, or move it away to start without results"
            )
        return f"{self._path} {found.problem}" if found.problem else ""


_of_parents: list[deque[sqlite3.Connection]] = []
"""Connections of parent processes: never used and never freed."""
