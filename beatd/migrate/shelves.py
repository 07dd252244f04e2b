"""The shelve of celery beat: which entries ran when, read and left as it is."""

import dbm
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from datetime import datetime, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any

from beatd.errors import BeatdError
from beatd.instant import Instant, instant_of
from beatd.migrate import pickles
from beatd.migrate.found import Found, FoundEntry, LastRun
from beatd.migrate.gdbm import is_gdbm, read_gdbm
from beatd.migrate.pickles import Kept, Refused
from beatd.text import is_encodable, quoted

SUFFIXES = (".db", ".dat", ".dir", ".bak")
"""What the kinds of dbm put behind the name that `celery beat -s` was given."""


class ShelveError(BeatdError):
    """A file that is no shelve of celery beat's, or cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}")


def read_shelve(path: Path, local: tzinfo, allowed: Collection[str] = ()) -> Found:
    """Return what celery beat keeps in its schedule file; raise ShelveError.

    `local` is the zone of dates without one; `allowed` are classes of the project's
    whose objects may be in it.
    """
    rows = _rows(path)
    if b"entries" not in rows:
        raise ShelveError(path, "is no schedule file of celery beat: it has no entries")
    try:
        entries = pickles.read(rows[b"entries"], local, allowed)
    except Refused as error:
        raise ShelveError(path, _refused(str(error))) from error
    if not isinstance(entries, dict):
        raise ShelveError(path, _refused("expected a dict of entries"))
    found: list[FoundEntry] = []
    problems: list[str] = []
    for name, entry in entries.items():
        try:
            found.append(_entry(name, entry, local))
        except ValueError as error:
            problems.append(f"{quoted(name)}: {error}")
    return Found(str(path), found, problems)


def is_shelve(path: Path) -> bool:
    """Return whether a file of some kind of dbm has this name, by its first bytes."""
    try:
        return _reader_of(path) is not None
    except OSError:
        return False


def _refused(reason: str) -> str:
    way = ""
    if "it names " in reason:
        way = (
            "\n  if that is a class of your project's, whose objects may be left out:"
            " --allow NAME, as it stands above"
        )
    return f"is not read, and nothing in it was run: {reason}{way}"


def _entry(name: object, entry: object, local: tzinfo) -> FoundEntry:
    """Return an entry by what celery.beat.ScheduleEntry was made of.

    That is its name, its task, the last run, the number of runs, and what the config
    has. Raises ValueError.
    """
    if not isinstance(name, str) or not is_encodable(name):
        raise ValueError("it has no text as its name")
    if not isinstance(entry, Kept) or len(entry.arguments) < 4:
        raise ValueError("it is not as celery beat writes entries")
    last, runs = entry.arguments[2:4]
    if last is None:
        return FoundEntry(name)
    if not isinstance(last, datetime):
        raise ValueError(f"its last run is no date: {quoted(last)}")
    if not isinstance(runs, int) or not 0 <= runs < 2**48:
        raise ValueError(f"its number of runs is none: {quoted(runs)}")
    return FoundEntry(name, LastRun(_instant(last, local), runs))


def _instant(moment: datetime, local: tzinfo) -> Instant:
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=local)
    return instant_of(moment)


# The kinds of dbm -----------------------------------------------------------------


def _rows(path: Path) -> Mapping[bytes, bytes]:
    """Return the rows of a dbm, whichever way it is named; raise ShelveError."""
    base = path.with_suffix("") if path.suffix in SUFFIXES else path
    problem = "is not there"
    for one in dict.fromkeys((path, base)):
        try:
            read = _reader_of(one)
            if read is not None:
                return dict(read(one))
            if one.exists():
                problem = "is no file of dbm's"
        except BlockingIOError as error:
            text = "is open elsewhere: stop celery beat first, then run this again"
            raise ShelveError(path, text) from error
        except ImportError as error:
            needed = _MODULES.get(error.name or "", error.name)
            text = f"needs the module {needed}, which this Python lacks"
            way = "run this with the Python that celery beat ran with"
            raise ShelveError(path, f"{text}\n  {way}") from error
        except (OSError, ValueError, struct.error, sqlite3.Error, *dbm.error) as error:
            raise ShelveError(path, f"cannot be read: {error}") from error
    raise ShelveError(path, problem)


_MODULES = {"_dbm": "dbm.ndbm", "_gdbm": "dbm.gnu"}
"""What is imported where a module of dbm's is missing."""

_BERKELEY = b"\x61\x15\x06\x00"
"""Bytes 12 to 15 of a hash of Berkeley DB: so does `dbm.ndbm` keep its rows."""

_Reader = Callable[[Path], Iterator[tuple[bytes, bytes]]]


def _reader_of(path: Path) -> _Reader | None:
    """Return what reads the dbm of this name; None if there is none."""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(72)
        # A file of beatd's may have the name to which dbm adds its suffixes.
        if head.startswith(b"SQLite format 3\0") and head[68:70] != b"bd":
            return _of_sqlite
        if is_gdbm(head):
            return read_gdbm
    beside = Path(f"{path}.db")  # also of a path without a name: `.`
    if beside.is_file():
        with beside.open("rb") as file:
            if file.read(16)[12:] == _BERKELEY:
                return _of_ndbm
    return _of_dbm if dbm.whichdb(str(path)) else None


def _of_sqlite(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of `dbm.sqlite3`, which Python has from 3.13 on."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        query = "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM Dict"
        yield from db.execute(query)


def _of_ndbm(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of `dbm.ndbm`, which not every Python has: it raises ImportError.

    `dbm` itself does not know such a file where the module is missing.
    """
    # Not `from dbm import ndbm`: `dbm.whichdb` leaves None there.
    ndbm: Any = import_module("dbm.ndbm")
    with closing(ndbm.open(str(path), "r")) as opened:
        for key in opened.keys():  # noqa: SIM118  (it is no dict)
            yield key, opened[key]


def _of_dbm(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with closing(dbm.open(str(path), "r")) as opened:
        for key in opened.keys():  # noqa: SIM118  (it is no dict)
            yield key if isinstance(key, bytes) else key.encode(), opened[key]
