"""The embedded default: queues, ledger and term in one SQLite file, on one host.

Tables, statements and what they guarantee: sqlite.sql.
"""

import json
import logging
import os
import re
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias
from urllib.parse import quote

from beatd.brokers.base import (
    ENOUGH,
    DeadLetter,
    Delayed,
    Delivery,
    Done,
    Emission,
    Outcome,
    Outgoing,
    Term,
    idle,
)
from beatd.clock import Clock, SystemClock
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError, TermOver
from beatd.instant import SECOND, Instant, Span
from beatd.routing import PRIORITY_STEPS, Binding, Queue, Route, binding_of, step_of
from beatd.storage.file_lock import FileLock
from beatd.storage.sqlite_file import (
    BROKER,
    BUSY_TIMEOUT,
    Look,
    State,
    connect,
    look_to_write,
    make,
)
from beatd.timetable.ledger import LedgerCopy, Mark

logger = logging.getLogger(__name__)

RELEASE_LOOK: Span = 50
"""How often a standby looks whether the kernel lock is free."""

FIRST_NAP, LONGEST_NAP, NAP_GROWTH = 0.004, 0.02, 1.005
"""Seconds between two looks for what other processes sent, and the factor by which they
grow: short for some seconds after each message, long where nothing happens."""

LARGEST_WAL = 8 * 1024 * 1024
"""Bytes that the WAL has at most, but while somebody reads for long."""

_Row: TypeAlias = tuple[Any, ...]


def _statements() -> dict[str, str]:
    text = Path(__file__).with_suffix(".sql").read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SQL = _statements()
TABLES = [sql for name, sql in SQL.items() if name.startswith("make_")]


class SQLiteBroker:
    """All ports of a broker, on one SQLite file that the processes of a host share.

    A connection is used by one thread at a time and goes back to the idle ones after
    each step, unless the step failed. A forked child opens its own.

    The lead is a kernel lock beside the file: it has no time to live, and a leader
    that is only stopped keeps it.
    """

    def __init__(
        self,
        path: Path,
        *,
        namespace: str,
        priority_steps: Sequence[int] = PRIORITY_STEPS,
        busy_timeout: float = BUSY_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        """Look at the file; it is made when it is first used.

        `busy_timeout` is how many seconds a step waits for the steps of others. Raises
        ConfigError for a file that is not ours, is damaged, or cannot be written.
        """
        self._path = path
        self._namespace = namespace
        self._steps = sorted(priority_steps)
        self._busy_timeout = busy_timeout
        self._clock = clock or SystemClock()
        lock = f"{path.name}.{quote(namespace, safe='')}.lock"
        self._lock = FileLock(path.with_name(lock))
        self._led: Term | None = None
        self._idle: deque[sqlite3.Connection] = deque()
        self._identity: tuple[int, int] | None = None
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._waiting = False
        self._nap = FIRST_NAP
        if problem := self._problem(look_to_write(path, BROKER)):
            raise ConfigError("broker_url", [problem])

    # Lead

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | None:
        if not self._take_lock(holder):
            return None
        try:
            self._led = self._begin_term(floor)
        except BaseException:
            if self._led is None:
                self._lock.unlock()
            raise
        return self._led

    def renew(self, term: Term, ttl: Span) -> bool:
        with self._connection() as db:
            return self._lock.held and self._term(db) == term

    def resign(self, term: Term) -> None:
        if term != self._led:
            return
        try:
            with self._transaction() as db:
                if self._term(db) == term:
                    self._set_term(db, Term(term.number, ""))
        finally:
            # Also when the database did not answer: no time to live ends this lead.
            self.let_go()

    def let_go(self) -> None:
        self._led = None
        self._lock.unlock()

    def leader(self) -> str | None:
        return None if self._lock_is_free() else self._lock.holder()

    def await_release(self, timeout: Span) -> bool:
        end = self._clock.elapsed() + timeout
        while not self._lock_is_free():
            left = end - self._clock.elapsed()
            if left <= 0 or self._closed.wait(min(left, RELEASE_LOOK) / SECOND):
                return False
        return True

    # Emitter

    def emit(self, term: Term, batch: Sequence[Emission], ttl: Span) -> list[Outcome]:
        outcomes = []
        messages: list[_Row] = []
        with self._transaction() as db:
            self._demand(db, term)
            for emission in batch:
                row = (self._namespace, emission.entry, *emission.mark)
                if not db.execute(SQL["advance"], row).rowcount:
                    outcomes.append(Outcome.KNOWN)
                    continue
                rows = self._rows(db, emission.route, emission.message)
                messages += rows
                outcomes.append(Outcome.QUEUED if rows else Outcome.DROPPED)
                if emission.run:
                    run = (self._namespace, emission.entry, emission.run)
                    db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", run)
            db.executemany(SQL["push"], messages)
        self._call()
        return outcomes

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        with self._connection() as db:
            db.execute("BEGIN")
            sql = "SELECT entry, slot, fingerprint, runs, last FROM ledger"
            rows = db.execute(f"{sql} WHERE namespace = ?", (self._namespace,))
            marks = {entry: Mark(*mark) for entry, *mark in rows}
            era = self._era(db)
            db.execute("COMMIT")
        return LedgerCopy(marks, era)

    def write_ledger(
        self, term: Term, marks: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        forget = "DELETE FROM ledger WHERE namespace = ? AND entry = ?"
        set_era = "UPDATE lead SET era = ? WHERE namespace = ?"
        with self._transaction() as db:
            self._demand(db, term)
            db.executemany(forget, [(self._namespace, entry) for entry in gone])
            rows = [(self._namespace, entry, *mark) for entry, mark in marks.items()]
            db.executemany(SQL["set_mark"], rows)
            db.execute(set_era, (era, self._namespace))

    def running(self, entries: Collection[str]) -> dict[str, str]:
        sql = "SELECT run FROM runs WHERE namespace = ? AND entry = ?"
        with self._connection() as db:
            found = {
                entry: db.execute(sql, (self._namespace, entry)).fetchone()
                for entry in entries
            }
        return {entry: row[0] for entry, row in found.items() if row}

    def end_runs(self, runs: Mapping[str, str]) -> None:
        with self._transaction() as db:
            self._end_runs(db, runs.items())

    # Sender

    def declare(self, queues: Collection[Queue]) -> None:
        rows = [(queue.exchange, *binding_of(queue)) for queue in queues]
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?, ?)", rows)

    def purge(self, queues: Collection[str]) -> int:
        with self._transaction() as db:
            gone = [db.execute(SQL["purge"], (name,)).rowcount for name in queues]
        return sum(gone)

    def send(self, batch: Sequence[Outgoing]) -> None:
        with self._transaction() as db:
            self._send(db, batch)
        self._call()

    # Consumer

    def join(self, worker: str, lease: Span) -> None:
        with self._transaction() as db:
            db.execute(SQL["join"], (worker, lease, self._clock.elapsed() + lease))

    def stay(self, worker: str, lease: Span) -> bool:
        ends = self._clock.elapsed() + lease
        with self._transaction() as db:
            return db.execute(SQL["stay"], (lease, ends, worker)).rowcount == 1

    def leave(self, worker: str) -> None:
        with self._transaction() as db:
            self._release(db, worker, deaths=0)
        self._call()

    def take(
        self, worker: str, queues: Sequence[str], limit: int, attempt: str
    ) -> list[Delivery]:
        with self._transaction() as db:
            if not self._joined(db, worker):
                return []
            rows = db.execute(SQL["taken"], (worker, attempt)).fetchall()
            if not rows and (ready := self._ready(db, queues, limit)):
                sql = "SELECT coalesce(max(place), 0) FROM messages WHERE worker = ?"
                (last,) = db.execute(sql, (worker,)).fetchone()
                places = enumerate(ready, start=last + 1)
                flights = [(worker, attempt, place, number) for place, number in places]
                db.executemany(SQL["take"], flights)
                rows = db.execute(SQL["taken"], (worker, attempt)).fetchall()
        return [
            Delivery(f"{attempt}:{number}", queue, message, deaths + 1)
            for number, queue, message, deaths in rows
        ]

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        end = self._clock.elapsed() + timeout
        self._waiting = True
        try:
            with self._connection() as db:
                return self._await_message(db, queues, end)
        finally:
            self._waiting = False

    def interrupt(self) -> None:
        self._calls.put(False)

    def acknowledge(
        self, worker: str, done: Sequence[Done], send: Sequence[Outgoing] = ()
    ) -> None:
        with self._transaction() as db:
            for one in done:
                settled = db.execute(SQL["settle"], _flight(worker, one.delivery))
                if settled.rowcount and one.run:
                    self._end_runs(db, [(one.entry, one.run)])
            if send and self._first_time(db, worker, done):
                self._send(db, send)
        if send:
            self._call()

    def give_back(self, worker: str, deliveries: Sequence[Delivery]) -> None:
        with self._transaction() as db:
            sql = "SELECT id FROM messages WHERE id = ? AND worker = ? AND attempt = ?"
            for delivery in reversed(deliveries):
                found = db.execute(sql, _flight(worker, delivery)).fetchall()
                self._put_in_front(db, found, deaths=0)
        self._call()

    def delay(self, worker: str, delivery: Delivery, until: Instant) -> None:
        with self._transaction() as db:
            db.execute(SQL["delay"], (until, *_flight(worker, delivery)))
        self._call()

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        names = json.dumps(list(queues))
        with self._connection() as db:
            rows = db.execute(SQL["delayed"], (names, limit)).fetchall()
        return [Delayed(*row) for row in rows]

    def bury(
        self,
        worker: str,
        delivery: Delivery,
        reason: str,
        task: str = "",
        task_id: str = "",
    ) -> None:
        flight = _flight(worker, delivery)
        about = (reason, self._clock.now(), task, task_id)
        with self._transaction() as db:
            db.execute(SQL["bury"], (*about, *flight))
            db.execute(SQL["settle"], flight)

    def recover(self) -> int:
        with self._transaction() as db:
            now = self._clock.elapsed()
            lost = db.execute(SQL["lost"], (now, now)).fetchall()
            given = sum(self._release(db, worker, deaths=1) for (worker,) in lost)
        self._call()
        return given

    # Dead letters

    def dead_letters(self) -> list[DeadLetter]:
        with self._connection() as db:
            rows = db.execute(SQL["letters"]).fetchall()
        return [DeadLetter(str(number), *about) for number, *about in rows]

    def dead_message(self, letter: str) -> bytes | None:
        sql = "SELECT message FROM dead WHERE id = ?"
        with self._connection() as db:
            row = db.execute(sql, (letter,)).fetchone()
        return row[0] if row else None

    def retry_dead(self, letters: Collection[str]) -> int:
        with self._transaction() as db:
            db.executemany(SQL["revive"], [(letter,) for letter in letters])
            found = self._forget(db, letters)
        self._call()
        return found

    def drop_dead(self, letters: Collection[str]) -> int:
        with self._transaction() as db:
            return self._forget(db, letters)

    def _forget(self, db: sqlite3.Connection, letters: Collection[str]) -> int:
        rows = [(letter,) for letter in letters]
        return db.executemany("DELETE FROM dead WHERE id = ?", rows).rowcount

    # All

    def ping(self) -> str:
        with self._connection() as db:
            self._term(db)
        return f"sqlite {sqlite3.sqlite_version}, {self._path}"

    def risks(self) -> list[str]:
        return []

    def close(self) -> None:
        self._closed.set()
        self._lock.unlock()
        self._close_idle()

    # The term and the lock

    def _take_lock(self, holder: str) -> bool:
        try:
            return self._lock.try_lock(holder)
        except OSError as error:
            raise self._refused(error) from error

    def _lock_is_free(self) -> bool:
        try:
            return self._lock.is_free()
        except OSError as error:
            raise self._refused(error) from error

    def _begin_term(self, floor: int) -> Term:
        with self._transaction() as db:
            number = max(self._term(db).number, floor) + 1
            term = Term(number, secrets.token_hex(8))
            self._set_term(db, term)
        return term

    def _term(self, db: sqlite3.Connection) -> Term:
        sql = "SELECT number, nonce FROM lead WHERE namespace = ?"
        row = db.execute(sql, (self._namespace,)).fetchone()
        return Term(*row) if row else Term(0, "")

    def _set_term(self, db: sqlite3.Connection, term: Term) -> None:
        db.execute(SQL["set_term"], (self._namespace, *term))

    def _demand(self, db: sqlite3.Connection, term: Term) -> None:
        if not term.nonce or self._term(db) != term:
            raise TermOver(f"term {term.number} is over: someone else may lead")

    def _era(self, db: sqlite3.Connection) -> int:
        sql = "SELECT era FROM lead WHERE namespace = ?"
        row = db.execute(sql, (self._namespace,)).fetchone()
        return int(row[0]) if row else 0

    def _end_runs(
        self, db: sqlite3.Connection, runs: Collection[tuple[str, str]]
    ) -> None:
        sql = "DELETE FROM runs WHERE namespace = ? AND entry = ? AND run = ?"
        db.executemany(sql, [(self._namespace, *run) for run in runs])

    # Messages

    def _send(self, db: sqlite3.Connection, batch: Sequence[Outgoing]) -> None:
        rows: list[_Row] = []
        for outgoing in batch:
            rows += self._rows(db, outgoing.route, outgoing.message, outgoing.due)
        db.executemany(SQL["push"], rows)

    def _rows(
        self,
        db: sqlite3.Connection,
        route: Route | None,
        message: bytes,
        due: Instant | None = None,
    ) -> list[_Row]:
        """Give a row for every queue that the route reaches."""
        if route is None:
            return []
        step = step_of(route.priority, self._steps)
        return [(queue, step, message, due) for queue in self._queues(db, route)]

    def _queues(self, db: sqlite3.Connection, route: Route) -> list[str]:
        if route.queue and route.exchange_type != "fanout":
            return [route.queue]
        sql = "SELECT key, pattern, queue FROM bindings WHERE exchange = ?"
        bindings = map(Binding._make, db.execute(sql, (route.exchange,)))
        key, kind = route.routing_key, route.exchange_type
        queues = sorted({one.queue for one in bindings if one.matches(kind, key)})
        if not queues:
            logger.warning(
                "no queue is bound to exchange %r under %r: the message is dropped",
                route.exchange,
                route.routing_key,
                extra={"event": "route.unbound"},
            )
        return queues

    def _ready(
        self, db: sqlite3.Connection, queues: Sequence[str], limit: int
    ) -> list[int]:
        """Give the ids of what is next: by step, then by the order of the queues."""
        self._put_in_front(db, self._over(db, queues, limit), deaths=0)
        rows: list[_Row] = []
        for queue in queues:
            rows += db.execute(SQL["ready"], (queue, limit))
        # The sort is stable: within a step and queue they stay as they lie.
        rows.sort(key=lambda row: row[1])
        chosen: list[int] = []
        size = 0
        for number, _, length in rows[:limit]:
            if size >= ENOUGH:
                break
            chosen.append(number)
            size += length
        return chosen

    def _over(
        self, db: sqlite3.Connection, queues: Sequence[str], limit: int
    ) -> list[_Row]:
        """Give what is due, the last one first: as many of these queues as are taken.

        What comes due later would be put in front of those that were not.
        """
        over: list[_Row] = []
        for number, queue in db.execute(SQL["over"], (self._clock.now(),)):
            if queue in queues:
                if limit == 0:
                    break
                limit -= 1
            over.append((number,))
        return over[::-1]

    def _release(self, db: sqlite3.Connection, worker: str, *, deaths: int) -> int:
        """End a lease and put in front what was held under it; say how many."""
        db.execute("DELETE FROM workers WHERE worker = ?", (worker,))
        held = db.execute(SQL["held"], (worker,)).fetchall()
        self._put_in_front(db, held, deaths=deaths)
        return len(held)

    def _put_in_front(
        self, db: sqlite3.Connection, messages: Sequence[_Row], *, deaths: int
    ) -> None:
        """Make these ready, one after the other before all others of their queue."""
        rows = [(deaths, number) for (number,) in messages]
        db.executemany(SQL["put_in_front"], rows)

    def _joined(self, db: sqlite3.Connection, worker: str) -> bool:
        sql = "SELECT 1 FROM workers WHERE worker = ?"
        return db.execute(sql, (worker,)).fetchone() is not None

    def _first_time(
        self, db: sqlite3.Connection, worker: str, done: Sequence[Done]
    ) -> bool:
        """Say whether this settlement, which sends something, was not made before."""
        if not done or not self._joined(db, worker):
            return True
        first = done[0].delivery.token
        sql = "UPDATE workers SET sent = ? WHERE worker = ? AND sent <> ?"
        return db.execute(sql, (first, worker, first)).rowcount > 0

    # Waiting

    def _await_message(
        self, db: sqlite3.Connection, queues: Sequence[str], end: Span
    ) -> bool:
        # A call from this process, or SQLite's count of what other connections did.
        seen = due = None
        while True:
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if version != seen:
                if any(self._is_ready(db, queue) for queue in queues):
                    self._nap = FIRST_NAP
                    return True
                seen, (due,) = version, db.execute(SQL["next_due"]).fetchone()
            if due is not None and due <= self._clock.now():
                return True
            left = end - self._clock.elapsed()
            if left <= 0:
                return False
            try:
                if not self._calls.get(timeout=min(self._nap, left / SECOND)):
                    return False
            except Empty:
                self._nap = min(self._nap * NAP_GROWTH, LONGEST_NAP)

    def _is_ready(self, db: sqlite3.Connection, queue: str) -> bool:
        (ready,) = db.execute(SQL["is_ready"], (queue,)).fetchone()
        return bool(ready)

    def _call(self) -> None:
        """Wake the thread that waits in this process, if one does."""
        if self._waiting:
            self._calls.put(True)

    # Connections

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for one step, which is done at the end or not at all."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for this thread; an error closes it and rolls back."""
        db = self._idle_connection()
        try:
            db = db or self._connect()
            yield db
        except BaseException as error:
            if db:
                db.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise self._answer_to(error) from error
            raise
        self._idle.append(db)

    def _idle_connection(self) -> sqlite3.Connection | None:
        if os.getpid() != self._pid:
            # SQLite forbids a child to use, or to close, what its parent opened.
            _of_parents.append(self._idle)
            self._idle, self._pid = deque(), os.getpid()
        if self._identity != self._identity_now():
            self._close_idle()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> sqlite3.Connection:
        found = look_to_write(self._path, BROKER)
        if problem := self._problem(found):
            raise BrokerRefused(problem)
        if found.state is State.ABSENT:
            make(self._path, BROKER, TABLES)
        db = connect(self._path, self._busy_timeout)
        db.execute("PRAGMA synchronous = FULL")
        # What a long reader let it grow to would be kept for good.
        db.execute(f"PRAGMA journal_size_limit = {LARGEST_WAL}")
        self._identity = self._identity_now()
        return db

    def _identity_now(self) -> tuple[int, int] | None:
        """Which file the path names: another one, when somebody removed ours."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _problem(self, found: Look) -> str:
        """Say why the file cannot be used; empty when it can."""
        match found.state:
            case State.REFUSED:
                return (
                    f"{self._path} {found.problem};"
                    " it was left as it is, and sqlite:///PATH names another file"
                )
            case State.DAMAGED:
                return (
                    f"{self._path} is damaged ({found.problem}):"
                    " restore it, or move it away to start with empty queues"
                )
            case _:
                return ""

    def _answer_to(self, error: sqlite3.Error | OSError) -> Exception:
        """Give the error that callers know; one that is a mistake of ours stays."""
        if isinstance(error, OSError) or type(error) in _OUTSIDE:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                return BrokerUnavailable(f"{self._path} is locked by another process")
            return self._refused(error)
        return error

    def _refused(self, error: Exception) -> BrokerRefused:
        return BrokerRefused(f"{self._path} cannot be used: {error}")


_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OUTSIDE = {sqlite3.OperationalError, sqlite3.DatabaseError}
"""What SQLite raises for the disk, the file and its locks."""

_of_parents: list[object] = []
"""Connections that a parent process opened, kept so that nothing closes them."""


def _flight(worker: str, delivery: Delivery) -> tuple[str, str, str]:
    """Give id, worker and attempt: what a message in flight is known by."""
    attempt, _, number = delivery.token.rpartition(":")
    return number, worker, attempt
