"""The broker's file: connections to it, and steps that are done whole or not at all."""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beatd.brokers.sqlite.rest import Rest
from beatd.brokers.sqlite.statements import LATER_COLUMNS, LATER_TABLES, TABLES
from beatd.clock import Clock
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.event_log import EventLog
from beatd.storage.open_files import note_open
from beatd.storage.sqlite_file import (
    BROKER,
    ROW_REFUSALS,
    FileState,
    Look,
    connect,
    look_to_write,
    make,
)

tell = EventLog(__name__)

LARGEST_WAL = 8 * 1024 * 1024
"""The most bytes that the WAL has, except while some reader takes long."""


class PartKnown(Exception):
    """Of a batch, some are known and some are not: each is to be done alone."""


UNDONE = (*ROW_REFUSALS, PartKnown)
"""What undoes the part of a step in which it is raised."""


class BrokerFile:
    """Lends connections to one SQLite file, which is made when it is first used.

    A connection is used by one thread at a time and goes back to the idle ones after
    each step, unless the step failed. A forked child opens its own.
    """

    def __init__(self, path: Path, busy_timeout: float, clock: Clock) -> None:
        """Raises ConfigError for a file that cannot be used."""
        self._path = path
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._idle: deque[sqlite3.Connection] = deque()
        self._identity: tuple[int, int] | None = None
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._rest = Rest(path.with_name(f"{path.name}-wal"), self._closed)
        if problem := self._problem(look_to_write(path, BROKER)):
            raise ConfigError("broker_url", [problem])
        note_open(self)

    def close(self) -> None:
        self._closed.set()
        self._rest.close()
        self._close_idle()

    @property
    def place(self) -> Path:
        return self._path.absolute()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for one step, which is done at the end or not at all."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    @contextmanager
    def _savepoint(self, db: sqlite3.Connection) -> Iterator[None]:
        """Undo, within the transaction, what was done in here if one row is refused.

        So it is after PartKnown, which the caller raises in here.

        Raises BrokerRefused if all of the transaction was undone: what the caller did
        next would be done outside of one, without what was checked at its beginning.
        """
        db.execute("SAVEPOINT part")
        try:
            yield
        except UNDONE as error:
            if not db.in_transaction:
                raise BrokerRefused(
                    f"{self._path} cannot be used: a trigger or a constraint that is"
                    " none of beatd's undoes all of a step for one row (ROLLBACK, where"
                    f" ABORT would refuse only the row): {error}"
                ) from error
            db.execute("ROLLBACK TO part")
            raise
        finally:
            if db.in_transaction:  # SQLite itself may have rolled all of it back
                db.execute("RELEASE part")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to this thread; an error closes it and rolls back."""
        db = self._idle_connection()
        try:
            db = db or self._connect()
            yield db
        except BaseException as error:  # whatever it is, it goes on up
            if db:
                db.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise self._answer_to(error) from error
            raise
        if self._closed.is_set():
            db.close()  # nobody else will
        else:
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
        if found.state is FileState.ABSENT and make(self._path, BROKER, TABLES):
            # Who meant another one would wait for ever for what is sent there.
            words = "made %s: a new broker, to which nobody has sent anything yet"
            path = self._path.absolute()
            tell.info("broker.made", words, path, path=str(path))
        db = connect(self._path, self._busy_timeout)
        _add_later_columns(db)
        for table in LATER_TABLES:
            db.execute(table)
        db.execute("PRAGMA synchronous = FULL")
        # Without a limit, the WAL would keep the size that a long reader lets it have.
        db.execute(f"PRAGMA journal_size_limit = {LARGEST_WAL}")
        self._identity = self._identity_now()
        return db

    def _identity_now(self) -> tuple[int, int] | None:
        """Return device and inode of the file that the path names just now, if any."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _is_there(self) -> bool:
        """Return whether there is a file: who only looks is not to make one.

        It would belong to that user, who need not be the one that runs beatd.
        """
        return self._identity_now() is not None

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _problem(self, found: Look) -> str:
        """Return why the file cannot be used; empty when it can."""
        match found.state:
            case FileState.REFUSED:
                left = "it was left as it is, and " if self._path.exists() else ""
                return (
                    f"{self._path} {found.problem};"
                    f" {left}sqlite:///PATH names another file"
                )
            case FileState.DAMAGED:
                return (
                    f"{self._path} is damaged ({found.problem}):"
                    " restore it, or move it away to start with empty queues"
                )
            case _:
                return ""

    def _answer_to(self, error: sqlite3.Error | OSError) -> Exception:
        """Return the error for callers; an error in our own code stays what it is."""
        if isinstance(error, OSError) or type(error) in _OUTSIDE:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                return BrokerUnavailable(f"{self._path} is locked by another process")
            return self._refused(error)
        return error

    def _refused(self, error: Exception) -> BrokerRefused:
        return BrokerRefused(f"{self._path} cannot be used: {error}")


def _add_later_columns(db: sqlite3.Connection) -> None:
    """Give a file that an earlier build made the columns that it lacks."""
    there = {
        (table, column)
        for table in {table for table, _ in LATER_COLUMNS}
        for _, column, *_ in db.execute(f"PRAGMA table_info({table})")
    }
    for table, column in LATER_COLUMNS.keys() - there:
        kind = LATER_COLUMNS[table, column]
        try:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # another process was faster
                raise


@contextmanager
def texts_as_bytes(db: sqlite3.Connection) -> Iterator[None]:
    """Have queries return texts as bytes: one that is not UTF-8 would end them."""
    before, db.text_factory = db.text_factory, bytes
    try:
        yield
    finally:
        db.text_factory = before


def text(stored: Any) -> Any:
    """Return a text that came as bytes; all else as it is. Raises ValueError."""
    return stored.decode() if isinstance(stored, bytes) else stored


_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OUTSIDE = {sqlite3.OperationalError, sqlite3.DatabaseError}
"""What SQLite raises for the disk, the file and its locks."""

_of_parents: list[object] = []
"""Connections that a parent process opened, kept so that nothing closes them."""
