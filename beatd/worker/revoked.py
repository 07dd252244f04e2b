"""The runs that must not begin any more, and a file that keeps them over restarts."""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

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
from beatd.instant import HOUR, LATEST, Instant, Span, datetime_of
from beatd.message import Envelope
from beatd.results.base import Keeper, Meta
from beatd.results.base import State as RunState
from beatd.results.readable import load_readable
from beatd.storage.sqlite_file import (
    WORKER_STATE,
    FileState,
    connect,
    look_to_write,
    make,
    missing_tables,
)
from beatd.text import counted

tell = EventLog(__name__)

K = TypeVar("K")

Stamp: TypeAlias = tuple[str, str | int | float]
"""The name and the value of a header by which calls are revoked; 1 is not "1"."""

MOST = 50_000
KEPT: Span = 3 * HOUR
"""How many revoked ids are kept, and for how long; Celery's numbers."""

UNBEGUN = ("PENDING", "RECEIVED", "RETRY", "REJECTED")
"""States of runs that no worker has begun: these can be revoked."""

_TABLES = ["CREATE TABLE revoked (id TEXT PRIMARY KEY, at INTEGER NOT NULL)"]


_ODD = """FROM revoked
WHERE typeof(at) != 'integer' OR typeof(id) != 'text' OR at > ?"""

_NEWEST = """SELECT CAST(id AS BLOB), at FROM revoked
WHERE typeof(at) = 'integer' AND typeof(id) = 'text' AND at <= ?
ORDER BY at DESC LIMIT ?"""


class RevokedKeys(Generic[K]):
    """Keys that were revoked, oldest first; at most `most`, none older than `kept`.

    The age of a key counts from the last time that it was revoked.
    """

    def __init__(self, most: int = MOST, kept: Span = KEPT) -> None:
        self._most = most
        self._kept = kept
        # Unlike a dict's, its first key is found at once after many were removed there.
        self._at: OrderedDict[K, Instant] = OrderedDict()

    def add(self, keys: Iterable[K], now: Instant) -> None:
        """Add these keys, as revoked at `now`."""
        for key in keys:
            self._at[key] = now
            self._at.move_to_end(key)
        self._forget(now)

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def keys(self, now: Instant) -> list[K]:
        """Return all keys that are not too old, oldest first."""
        self._forget(now)
        return list(self._at)

    def _forget(self, now: Instant) -> None:
        while self._at:
            oldest = next(iter(self._at.values()))
            if len(self._at) <= self._most and oldest > now - self._kept:
                return
            self._at.popitem(last=False)


class StateFile:
    """The revoked ids on disk: `--statedb`. One row each, written as they come."""

    def __init__(self, path: Path) -> None:
        """Look at the file and make it if there is none.

        Raises ConfigError for one that is not ours, is damaged, or cannot be written.
        """
        self._path = path
        found = look_to_write(path, WORKER_STATE)
        if found.state in (FileState.REFUSED, FileState.DAMAGED):
            raise ConfigError(str(path), [f"--statedb: {found.problem}"])
        if found.state is FileState.ABSENT:
            try:
                make(path, WORKER_STATE, _TABLES)
            except (OSError, sqlite3.Error) as error:
                raise ConfigError(str(path), [f"--statedb: {error}"]) from error

    def load(self, now: Instant) -> Sequence[tuple[str, Instant]]:
        """Return each id that is not too old, and when it was revoked; delete the rest.

        The oldest one comes first.

        Raises ConfigError when the file cannot be read.
        """
        try:
            # A view of that name may have rows without an end.
            if missing_tables(self._path, ["revoked"]):
                raise sqlite3.OperationalError("no such table: revoked")
            with closing(connect(self._path)) as db:
                db.execute("DELETE FROM revoked WHERE at <= ?", (now - KEPT,))
                (odd,) = db.execute(f"SELECT count(*) {_ODD}", [LATEST]).fetchone()
                if odd:
                    words = "%s: %s that cannot be understood: passed over"
                    told = counted(odd, "row")
                    tell.warning("control.bad_rows", words, self._path, told)
                rows = db.execute(_NEWEST, (LATEST, MOST)).fetchall()
                # What a wrong clock wrote counts from now on: it must not make all
                # others look old.
                return [
                    (str(task_id, "utf-8", "replace"), min(at, now))
                    for task_id, at in rows[::-1]
                ]
        except (OSError, sqlite3.Error) as error:
            problem = f"--statedb: {error}; a new file is made where there is none"
            raise ConfigError(str(self._path), [problem]) from error

    def add(self, ids: Iterable[str], now: Instant) -> None:
        """Write these ids. Raises sqlite3.Error."""
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
        """Begin with what the file has. Raises ConfigError when it cannot be read."""
        self._ids: RevokedKeys[str] = RevokedKeys()
        self._stamps: RevokedKeys[Stamp] = RevokedKeys()
        self._file = file
        self._results = results
        self._settings = settings
        self._clock = clock
        for task_id, at in file.load(clock.now()) if file else ():
            self._ids.add([task_id], at)

    def __contains__(self, envelope: Envelope) -> bool:
        if envelope.id in self._ids:
            return True
        if not envelope.stamps:
            return False
        return any(stamp in self._stamps for stamp in stamps_of(envelope))

    def known(self) -> list[str]:
        """Return all ids that are not too old."""
        return self._ids.keys(self._clock.now())

    def learn(self, task_ids: Iterable[str]) -> None:
        """Add ids that other workers know as revoked."""
        self._ids.add(task_ids, self._clock.now())

    def revoke_stamps(self, stamps: Iterable[Stamp]) -> None:
        """Let no run begin any more that carries one of these stamps."""
        self._stamps.add(stamps, self._clock.now())

    def revoke(
        self, task_ids: Collection[str], running: Collection[str]
    ) -> Callable[[], object]:
        """Let these runs not begin any more; return a slow function that stores that.

        Those that are `running` are left alone.
        """
        self.learn(task_ids)
        waiting = [task_id for task_id in task_ids if task_id not in running]
        return partial(self._keep, task_ids, waiting)

    def _keep(self, task_ids: Collection[str], waiting: Sequence[str]) -> None:
        """Write ids to the file, and REVOKED as the results that clients wait for."""
        # One is of use without the other.
        for keep in (partial(self._write, task_ids), partial(self._store, waiting)):
            try:
                keep()
            except (ResultUnavailable, MessageError, sqlite3.Error) as error:
                words = "revoked, but not all of it could be kept: %s"
                tell.warning("control.unkept", words, error)

    def _write(self, task_ids: Collection[str]) -> None:
        if self._file:
            self._file.add(task_ids, self._clock.now())

    def _store(self, waiting: Sequence[str]) -> None:
        if self._results and waiting:
            known, unreadable = load_readable(self._results, waiting)
            kept = {key for key, one in known.items() if one.status not in UNBEGUN}
            kept |= unreadable.keys()  # it may be the end of a run
            self._results.store([self._meta(one) for one in waiting if one not in kept])
            if unreadable:
                raise next(iter(unreadable.values()))

    def _meta(self, task_id: str) -> Meta:
        done = datetime_of(self._clock.now(), self._settings.zone)
        error = Revoked("revoked")
        return Meta(task_id, RunState.REVOKED, error, date_done=done)


def stamps_of(envelope: Envelope) -> Sequence[Stamp]:
    """Return header and value of each stamp that a message carries."""
    return stamps_in(envelope.stamps or {})


def stamps_in(headers: Mapping[str, object]) -> Sequence[Stamp]:
    """Return header and value of each stamp: a text, a number, or a list of them."""
    found: list[Stamp] = []
    for header, value in headers.items():
        values = value if isinstance(value, list | tuple) else [value]
        found += [(header, one) for one in values if isinstance(one, str | int | float)]
    return found


def mingle(
    ask: Callable[[Sequence[str]], Sequence[str]],
    known: Sequence[str],
    learn: Callable[[Sequence[str]], object],
) -> None:
    """Exchange revoked ids with the other workers.

    Only logs if the broker is away: the worker starts all the same.
    """
    try:
        learn(ask(known))
    except BrokerUnavailable as error:
        words = "cannot ask other workers what was revoked: %s"
        tell.warning("control.mingle", words, error)
