"""SQLite files of beatd: looked at before they are opened, and made for one user only.

A file that is not beatd's is never opened for writing, and no file is put beside it.
"Ours" are files with an `application_id` of beatd; SQLite's `user_version` is the
version of their format. Both are in the first page from the moment a file is made.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from beatd.storage.file_lock import FileLock
from beatd.storage.folders import no_folder

BUSY_TIMEOUT = 3.0
"""Seconds for which a connection waits for locks of other connections."""

_LOOK = 0.02
"""Seconds between two looks whether another process has made the file."""

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = 68
_OF_CELERY = (b"utc_enabled", b"celery.beat")
"""Bytes in each shelve of celery beat: a key, and the module of a stored class."""

_SAMPLE = 1 << 20
"""Bytes of a file that are searched to tell whose it is."""


class FileKind(NamedTuple):
    """A sort of file that beatd makes."""

    name: str
    application_id: int
    version: int
    """The version of the format; files of a later version are left alone."""


SCHEDULE_FILE = FileKind("schedule file", int.from_bytes(b"bdSF"), 1)
BROKER = FileKind("broker database", int.from_bytes(b"bdBR"), 1)
RESULTS = FileKind("result database", int.from_bytes(b"bdRS"), 1)
WORKER_STATE = FileKind("worker state file", int.from_bytes(b"bdWS"), 1)
KINDS = (SCHEDULE_FILE, BROKER, RESULTS, WORKER_STATE)

ROW_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError)
"""What SQLite raises for one row: a rule of the table, or a value too large."""


class FileState(Enum):
    """What lies at a path."""

    ABSENT = "absent"  # nothing, or a file without a single byte
    OURS = "ours"
    DAMAGED = "damaged"  # ours by its first page, and SQLite cannot read it
    REFUSED = "refused"  # not ours, or not to be written: leave it alone


@dataclass(frozen=True, slots=True)
class Look:
    """What lies at a path; `problem` says for people why it cannot be used."""

    state: FileState
    problem: str = ""


def look(path: Path, kind: FileKind) -> Look:
    """Return what lies at `path`, for reading it; change nothing there."""
    try:
        return _look(path, kind)
    except OSError as error:
        return Look(FileState.REFUSED, f"cannot be looked at: {error.strerror}")


def look_to_write(path: Path, kind: FileKind) -> Look:
    """Return what lies at `path`, for making or writing it; change nothing there."""
    found = look(path, kind)
    if found.state is not FileState.REFUSED and (problem := _write_problem(path)):
        return Look(FileState.REFUSED, problem)
    return found


def make(
    path: Path,
    kind: FileKind,
    tables: Sequence[str],
    *,
    patience: float = BUSY_TIMEOUT,
) -> bool:
    """Make the file with these tables in one step, unless another process just did.

    Returns whether it was made here.

    It is made under another name and moved into place: nobody ever sees half a file,
    and a process that is killed while it makes one leaves none. The mode is 0600
    whatever the umask; SQLite gives the files beside it the same mode. Raises
    sqlite3.Error, and OSError, also when another process has been making it for
    `patience` seconds.
    """
    with _alone_at(path, patience):
        if path.exists() and path.stat().st_size > 0:
            return False
        draft = path.with_name(f"{path.name}.new")
        try:
            _fill(draft, kind, tables)
            # A WAL left by an earlier file would be taken for the new file's.
            _remove(path)
            draft.replace(path)
        finally:
            _remove(draft)
    return True


def connect(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Open a file of ours, for one thread at a time.

    The caller begins and ends transactions. Raises sqlite3.Error.
    """
    return sqlite3.connect(
        path, timeout=busy_timeout, isolation_level=None, check_same_thread=False
    )


@contextmanager
def _alone_at(path: Path, patience: float) -> Iterator[None]:
    """Let no other process or thread make this file meanwhile.

    Not by a lock of the folder: any user who may read that could hold it for ever.
    Raises OSError when another one takes longer than `patience`.
    """
    guard = FileLock(path.with_name(f"{path.name}.new.lock"))
    for _ in range(round(patience / _LOOK)):
        if guard.try_lock(f"pid {os.getpid()}"):
            break
        Event().wait(_LOOK)
    else:
        problem = f"{guard.holder() or 'another process'} is making it, and holds"
        raise TimeoutError(errno.ETIMEDOUT, problem, str(guard.path))
    try:
        yield
    finally:
        guard.remove()


def _fill(path: Path, kind: FileKind, tables: Sequence[str]) -> None:
    _remove(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)
    db = connect(path)
    try:
        # The file keeps this mode: it holds for every later connection.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN EXCLUSIVE")
        db.execute(f"PRAGMA application_id = {kind.application_id}")
        db.execute(f"PRAGMA user_version = {kind.version}")
        for table in tables:
            db.execute(table)
        db.execute("COMMIT")
    finally:
        # When the last connection closes, SQLite moves the WAL into the file.
        db.close()


def _remove(path: Path) -> None:
    """Remove a draft or an empty file, and the files that SQLite kept beside it."""
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)


def damage(path: Path, tables: Collection[str]) -> str:
    """Return what is wrong inside a file of ours; empty when nothing is.

    `tables` are those that the file must have. Raises sqlite3.OperationalError when the
    file cannot be checked just now (a lock, the disk).
    """
    try:
        db = connect(path)
        try:
            (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
            names = {name for (name,) in db.execute(_NAMES)}
        finally:
            db.close()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    if answer != "ok":
        return str(answer)
    return _missing(tables, names)


def missing_tables(path: Path, tables: Collection[str]) -> str:
    """Return which of these tables a file of ours does not have; empty if it has all.

    A view is no table. Raises OSError and sqlite3.Error.
    """
    [rows] = query(path, _NAMES)
    return _missing(tables, {str(name, "utf-8", "replace") for (name,) in rows})


_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def _missing(tables: Collection[str], there: Collection[str]) -> str:
    missing = sorted(set(tables) - set(there))
    return f"no table {', '.join(missing)}" if missing else ""


def set_aside(path: Path, why: str) -> Path:
    """Rename a file of ours, and SQLite's files beside it; return the new path.

    The new name is the old one with `why` after it, and a number if that is taken.
    """
    name = aside = f"{path.name}.{why}"
    number = 1
    while path.with_name(aside).exists():
        number += 1
        aside = f"{name}-{number}"
    # The file itself last: after a crash before that, it is found under its old name.
    for end in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(path.with_name(aside + end))
    return path.with_name(aside)


def query(path: Path, *queries: str) -> list[list[tuple[Any, ...]]]:
    """Read from a file of ours as it is at one moment, and leave no trace.

    Texts come as bytes. Raises OSError and sqlite3.Error.
    """
    before = written(path)
    if before.beside == 0:
        rows = _query(connect_unlocked(path), queries)
        if written(path) == before:
            return rows
    # Somebody writes, or was killed while writing: some rows are only in the WAL.
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT
    )
    return _query(db, queries)


def connect_unlocked(path: Path) -> sqlite3.Connection:
    """Open the file for reading as if nobody ever wrote to it: no locks, no files.

    Not with open(): closing any other descriptor of the file would end the locks that
    this process's connections hold on it (POSIX).
    """
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


class Written(NamedTuple):
    """What changes when somebody writes to a file."""

    file: int
    modified: int
    beside: int
    """Bytes in the WAL."""
    beside_modified: int


def written(path: Path) -> Written:
    """Return what tells whether somebody has written to a file. Raises OSError."""
    status, wal = path.stat(), path.with_name(f"{path.name}-wal")
    try:
        beside = wal.stat()
    except FileNotFoundError:
        return Written(status.st_ino, status.st_mtime_ns, 0, 0)
    return Written(
        status.st_ino, status.st_mtime_ns, beside.st_size, beside.st_mtime_ns
    )


def _query(
    db: sqlite3.Connection, queries: Sequence[str]
) -> list[list[tuple[Any, ...]]]:
    # As str, a text that is not UTF-8 would end the whole query; callers decode texts.
    db.text_factory = bytes
    try:
        db.execute("BEGIN")
        return [db.execute(query).fetchall() for query in queries]
    finally:
        db.close()


def _look(path: Path, kind: FileKind) -> Look:
    try:
        status = path.stat()
    except FileNotFoundError:
        return Look(FileState.ABSENT)
    if stat.S_ISDIR(status.st_mode):
        return Look(FileState.REFUSED, "is a directory; a file is needed")
    if not stat.S_ISREG(status.st_mode):
        return Look(FileState.REFUSED, "is not a plain file")
    if not _may(path, os.R_OK):
        return Look(FileState.REFUSED, "cannot be read: no permission")
    if status.st_size == 0:
        return Look(FileState.ABSENT)
    return _look_inside(path, kind)


def _look_inside(path: Path, kind: FileKind) -> Look:
    try:
        try:
            application_id, version = _first_page(path)
        except sqlite3.DatabaseError:
            if written(path).beside == 0:
                raise
            application_id, version = _first_page(path, is_whole=False)
    except sqlite3.DatabaseError as error:
        if _marked(path, kind):
            return Look(FileState.DAMAGED, str(error))
        return Look(FileState.REFUSED, _foreign(path, kind))
    if application_id != kind.application_id:
        return Look(FileState.REFUSED, _foreign(path, kind))
    if version > kind.version:
        problem = (
            f"was written by a later beatd: its format is {version},"
            f" and this beatd knows formats up to {kind.version}"
        )
        return Look(FileState.REFUSED, problem)
    return Look(FileState.OURS)


def _write_problem(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"cannot be made: {no_folder(folder)}"
    if path.exists() and not _may(path, os.W_OK):
        return "is read-only"
    # SQLite keeps files beside it while it is open.
    if not _may(folder, os.W_OK | os.X_OK):
        return f"cannot be used: no permission to write in the directory {folder}"
    return ""


def _may(path: Path, what: int) -> bool:
    # The file is not opened to find out, for the reason that connect_unlocked gives.
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _first_page(path: Path, *, is_whole: bool = True) -> tuple[int, int]:
    """Return what the first page says: whose file it is, and its version.

    A file that is not whole is shorter than its first page says: its WAL was half moved
    into it by a process that was killed then, or met the end of the disk. Whoever opens
    it with its WAL finds all in it.
    """
    db = connect_unlocked(path)
    try:
        if not is_whole:
            # SQLite reads the rest then; without a lock nothing is ever written.
            db.execute("PRAGMA writable_schema = ON")
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    finally:
        db.close()
    return application_id, version


def _marked(path: Path, kind: FileKind) -> bool:
    head = _sample(path)[: _APPLICATION_ID_AT + 4]
    mark = kind.application_id.to_bytes(4)
    return head.startswith(_MAGIC) and head[_APPLICATION_ID_AT:] == mark


def _foreign(path: Path, kind: FileKind) -> str:
    return f"is not a {kind.name} of beatd but {_description(path)}"


def _description(path: Path) -> str:
    """Return in words what program's file it seems to be."""
    sample = _sample(path)
    if any(word in sample for word in _OF_CELERY):
        return "celery beat's own (a shelve file): beatd import celery takes it over"
    if sample.startswith(_MAGIC):
        ours = (kind for kind in KINDS if _marked(path, kind))
        other = next(ours, None)
        return f"its {other.name}" if other else "an SQLite database of something else"
    try:
        sample.decode()
    except UnicodeDecodeError:
        return "a file of another program"
    return "a text file"


def _sample(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SAMPLE)
