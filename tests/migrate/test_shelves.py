"""Celery beat's schedule file, in each kind of dbm that Python has."""

import base64
import ctypes
import ctypes.util
import dbm.dumb
import pickle
import sqlite3
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import PersistentScheduler, ScheduleEntry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatd.instant import Instant, instant_of
from beatd.migrate.found import FoundEntry, LastRun
from beatd.migrate.gdbm import read_gdbm
from beatd.migrate.shelves import ShelveError, is_shelve, read_shelve

MOMENT = datetime(2026, 11, 30, 12, 0, 1, tzinfo=UTC)
AT: Instant = instant_of(MOMENT)


def entries_of(**runs: int) -> dict[str, ScheduleEntry]:
    return {
        name: ScheduleEntry(name, "t", MOMENT, number, 60)
        for name, number in runs.items()
    }


def rows(entries: object) -> dict[bytes, bytes]:
    return {b"entries": pickle.dumps(entries), b"__version__": pickle.dumps("5.7.0")}


def by_dumb(path: Path, rows: Mapping[bytes, bytes]) -> None:
    with closing(dbm.dumb.open(str(path), "n")) as opened:
        for key, value in rows.items():
            opened[key] = value


def by_sqlite(path: Path, rows: Mapping[bytes, bytes]) -> None:
    """As `dbm.sqlite3` of Python 3.13 makes it."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        db.executemany("INSERT INTO Dict VALUES (?, ?)", rows.items())


class Datum(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_int))


class Gdbm:
    """The library itself: few Pythons have its module, and many hosts have it."""

    def __init__(self, path: Path) -> None:
        name = ctypes.util.find_library("gdbm")
        if name is None:
            pytest.skip("GNU dbm is not installed")
        self._lib: Any = ctypes.CDLL(name)
        self._lib.gdbm_open.restype = ctypes.c_void_p
        self._lib.gdbm_open.argtypes = [
            *(ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int),
            ctypes.c_void_p,
        ]
        self._lib.gdbm_store.argtypes = [ctypes.c_void_p, Datum, Datum, ctypes.c_int]
        self._lib.gdbm_close.argtypes = [ctypes.c_void_p]
        self._file = self._lib.gdbm_open(bytes(path), 0, 3, 0o600, None)

    def store(self, rows: Mapping[bytes, bytes]) -> None:
        for key, value in rows.items():
            data = (Datum(key, len(key)), Datum(value, len(value)))
            assert self._lib.gdbm_store(self._file, *data, 1) == 0

    def close(self) -> None:
        self._lib.gdbm_close(self._file)


def by_gdbm(path: Path, rows: Mapping[bytes, bytes]) -> None:
    file = Gdbm(path)
    file.store(rows)
    file.close()


def by_ndbm(path: Path, rows: Mapping[bytes, bytes]) -> None:
    ndbm = pytest.importorskip("dbm.ndbm")
    with closing(ndbm.open(str(path), "n")) as opened:
        for key, value in rows.items():
            opened[key] = value


KINDS = [by_dumb, by_sqlite, by_gdbm, by_ndbm]
Maker = Callable[[Path, Mapping[bytes, bytes]], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "celerybeat-schedule"


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


@pytest.mark.parametrize("make", KINDS)
def test_each_kind_is_read_and_left_as_it_is(path: Path, make: Maker) -> None:
    make(path, rows(entries_of(a=3, b=0)))
    before = contents(path.parent)

    found = read_shelve(path, UTC)

    assert found.entries == [
        FoundEntry("a", LastRun(AT, 3)),
        FoundEntry("b", LastRun(AT, 0)),
    ]
    assert found.problems == []
    assert contents(path.parent) == before


def test_what_celery_beat_writes_is_read(path: Path) -> None:
    app = Celery(set_as_current=False)
    app.conf.beat_schedule = {"a": {"task": "t", "schedule": 60}}
    theirs = PersistentScheduler(app, schedule_filename=str(path))
    ran = theirs.reserve(theirs.schedule["a"])
    theirs.close()

    for name in (path, next(path.parent.iterdir())):
        found = {one.name: one.last for one in read_shelve(name, UTC).entries}
        assert found["a"] == LastRun(instant_of(ran.last_run_at), 1)


def test_beside_a_schedule_file_of_beatds_the_shelve_is_found(path: Path) -> None:
    by_dumb(path, rows(entries_of(a=1)))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA application_id = {int.from_bytes(b'bdSF')}")
        db.execute("CREATE TABLE ledger (key, value)")

    assert [one.name for one in read_shelve(path, UTC).entries] == ["a"]


def test_a_file_of_gnu_dbm_is_read_where_its_library_is_not(path: Path) -> None:
    path.write_bytes(zlib.decompress(base64.b64decode(SMALL_GDBM)))

    assert read_shelve(path, UTC).entries == [FoundEntry("a", LastRun(AT, 3))]


def test_a_file_that_celery_beat_has_open_is_not_read(path: Path) -> None:
    file = Gdbm(path)
    file.store(rows(entries_of(a=1)))

    with pytest.raises(ShelveError, match="is open elsewhere: stop celery beat first"):
        read_shelve(path, UTC)
    file.close()


def test_many_rows_of_gnu_dbm_are_read(path: Path) -> None:
    many = {b"%d" % number: b"%d" % number * (number % 50) for number in range(5000)}
    by_gdbm(path, many)

    assert dict(read_gdbm(path)) == many


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a": 1}, "'a': it is not as celery beat writes entries"),
        ({7: ScheduleEntry("a", "t", MOMENT, 1, 60)}, "7: it has no text as its name"),
        ({"a": ScheduleEntry("a", "t", "no date", 1, 60)}, "its last run is no date"),
        ({"a": ScheduleEntry("a", "t", MOMENT, "x", 60)}, "its number of runs is none"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(
    path: Path, entries: dict[object, object], words: str
) -> None:
    by_dumb(path, rows({**entries, "good": ScheduleEntry("g", "t", MOMENT, 1, 60)}))

    found = read_shelve(path, UTC)

    assert [one.name for one in found.entries] == ["good"]
    assert words in found.problems[0]


@pytest.mark.skipif(find_spec("_dbm") is not None, reason="its module is there")
@pytest.mark.parametrize("end", ["", ".db"])
def test_a_kind_that_this_python_lacks_is_named(path: Path, end: str) -> None:
    beside = path.with_name(f"{path.name}.db")
    beside.write_bytes(bytes(12) + b"\x61\x15\x06\x00" + bytes(1000))

    with pytest.raises(ShelveError, match=r"module dbm\.ndbm.*\n.*the Python that"):
        read_shelve(path.with_name(f"{path.name}{end}"), UTC)
    assert is_shelve(path)


class Ours(ScheduleEntry):  # type: ignore[misc]  # Celery has no types
    """An entry of a scheduler of the project's."""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_text("beat_schedule = {}"), "is no file of dbm's"),
        (lambda path: path.mkdir(), "is no file of dbm's"),
        (lambda path: by_dumb(path, {b"a": b"b"}), "it has no entries"),
        (lambda path: by_dumb(path, rows([1])), "expected a dict of entries, got list"),
        (lambda path: by_dumb(path, {b"entries": b"x"}), "no pickle of celery beat's"),
        (lambda path: by_dumb(path, rows({"a": Ours("a", "t", MOMENT, 1, 60)})),
         r"it names 'tests.migrate.test_shelves.Ours'.*\n.*--allow NAME"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(100)),
         "cannot be read"),
        (lambda path: path.write_bytes(b"\xcf\x9a\x57\x13" + bytes(100)),
         "in another form"),
        (lambda path: path.write_bytes(b"\xcf\x9a\x57\x13"), "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_shelve_is_refused_in_words(
    path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(path)

    with pytest.raises(ShelveError, match=words):
        read_shelve(path, UTC)


def test_entries_of_a_class_of_the_projects_are_read_if_it_is_named(path: Path) -> None:
    by_dumb(path, rows({"a": Ours("a", "t", MOMENT, 1, 60)}))

    found = read_shelve(path, UTC, [f"{__name__}.Ours"])

    assert found.entries == [FoundEntry("a", LastRun(AT, 1))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_of_gnu_dbm_is_read_or_refused(
    path: Path, data: st.DataObject
) -> None:
    whole = bytearray(zlib.decompress(base64.b64decode(SMALL_GDBM)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 300) | st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)

    with suppress(ShelveError):
        read_shelve(path, UTC)


SMALL_GDBM = (
    "eNrtmD9Lw0AYhy/+a2stFuosbuoSuoiLgyBOBQcdHENsDlqoLTRRqFBwUSlk67n4Afwgbg7i4ubk6uDi"
    "Kuh7zQkOriLW5wlvnrvf5S4kgRByf7VfUWWlRqUyF5yvrTez+E0BAAAAAAAAwJ9lCWOMMcYYY4wxxuNu"
    "z3VL85lfqz/3q2FC6l34boycnJz8t/LH26flIDjWD+79V5Ra4P6Qk5OTk5OTj3EeDl4qup10lfv+yUnd"
    "cX/GPrfPvKnj06nLG5f0TeqFJi3WdUt3e/6BDhOTlvbqDR0dtfS2HN8zQ7PS8FJPBvJRmOikeai/Nodm"
    "azb3XFycG/1eMI2ZNG/zk07bjkm3YLuRbiWh9GvKbhdm15xJnUvVJtOyO33szhvL+p9tu0ZJ5mxkswY7"
    "dr/aN32TSCP27Xd8N2522kEg11Vw15VOr/nrftX4CgAAAAAAAOC/8QEGhzPh"
)
"""A file of GNU dbm as a host made it: in it are the rows of one entry, `a`."""
