"""The schedule file: what is kept, who may write it, and what is left as it was."""

import json
import logging
import os
import pickle
import shelve
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlitedict import SqliteDict

from beatd.brokers.sqlite import SQLiteBroker
from beatd.clock import SystemClock
from beatd.errors import ScheduleFileError, TermOver
from beatd.instant import (
    EARLIEST,
    LATEST,
    MINUTE,
    SECOND,
    Instant,
    datetime_of,
    instant_of,
)
from beatd.scheduler.file_view import View, view
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.timetable.ledger import Mark
from beatd.timetable.policy import Reason
from tests.fakes import NOON, FakeClock
from tests.rights import as_nobody, full_disk, umask

A, B = Mark(NOON, "*/5 * * * *;UTC", 3, NOON), Mark(NOON + 7, "every 60", 0, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "celery.db"


def schedule_file(path: Path, namespace: str = "shop") -> ScheduleFile:
    return ScheduleFile(
        path, namespace=namespace, timezone="Europe/Paris", clock=FakeClock()
    )


@pytest.fixture
def file(path: Path) -> Iterator[ScheduleFile]:
    """A file that this process leads with, empty."""
    file = schedule_file(path)
    assert file.try_lock()
    yield file
    file.unlock()


def written(path: Path, marks: dict[str, Mark]) -> None:
    """Leave a file with these rows, in nobody's use."""
    file = schedule_file(path)
    file.try_lock()
    file.rewrite(marks, [], 0, 1)
    file.unlock()


def many(count: int) -> dict[str, Mark]:
    return {f"entry-{n}": Mark(NOON + n, "every 60", n, NOON + n) for n in range(count)}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, byte for byte."""
    return {
        one.name: one.read_bytes() if one.is_file() else None
        for one in folder.iterdir()
    }


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in caplog.records]


# What is kept


def test_marks_come_back_as_they_were_recorded(file: ScheduleFile) -> None:
    marks = {
        "a": A,
        "b": B,
        "": Mark(0, "", 2**40, 0),
        "täglich um zwölf\n": Mark(-62_135_596_800_000, "größer", 1, -1),
        "a\x00b": Mark(253_402_300_799_999, "'\"", 1, NOON + 123),
    }

    file.record(marks, {})
    file.flush()

    assert file.read().marks == marks


def test_a_large_file_is_read_in_parts(file: ScheduleFile) -> None:
    file.record(many(3000), {})
    file.flush()
    parts: list[None] = []

    assert file.read(on_part=lambda: parts.append(None)).marks == many(3000)

    assert len(parts) >= 3


def test_a_large_file_is_written_in_parts(file: ScheduleFile) -> None:
    parts: list[None] = []

    file.rewrite(many(3000), [], 0, 1, on_part=lambda: parts.append(None))

    assert len(parts) >= 3
    assert file.read().marks == many(3000)


def test_rows_that_are_not_ours_any_more_are_removed_in_parts(
    file: ScheduleFile,
) -> None:
    file.rewrite(many(3000), [], 0, 1)
    parts: list[None] = []

    file.rewrite({}, many(3000).keys(), 0, 1, on_part=lambda: parts.append(None))

    assert len(parts) >= 3
    assert file.read().marks == {}


def test_a_lead_that_is_lost_while_the_file_is_written_leaves_it_as_it_was(
    file: ScheduleFile,
) -> None:
    def lose_it() -> None:
        parts.append(None)
        if len(parts) == 3:
            raise TermOver("someone else may lead")

    parts: list[None] = []
    file.rewrite({"a": A}, [], 0, 1)
    file.read()
    with pytest.raises(TermOver):
        file.rewrite(many(3000), ["a"], 0, 2, on_part=lose_it)
    assert file.read().marks == {"a": A}

    file.rewrite({"a": A, "b": B}, many(3000).keys(), 0, 3)
    assert file.read().marks == {"a": A, "b": B}


def test_nothing_is_written_before_the_flush(file: ScheduleFile) -> None:
    file.record({"a": A}, {})
    assert file.read().marks == {}

    file.record({"a": B}, {})
    file.flush()

    assert file.read().marks == {"a": B}


def test_users_see_celerys_words_through_sqlitedict(
    file: ScheduleFile, path: Path
) -> None:
    file.record({"report": A}, {("report", Reason.MISFIRE): 2})
    file.flush()
    file.unlock()

    with SqliteDict(str(path), tablename="ledger", decode=json.loads) as ledger:
        row = ledger["report"]
    with SqliteDict(str(path), tablename="dropped", decode=json.loads) as dropped:
        counts = dict(dropped)

    assert row == {
        "slot": NOON,
        "fingerprint": "*/5 * * * *;UTC",
        "total_run_count": 3,
        "last_run_at": "2027-01-15T12:00:00Z",
    }
    assert counts == {"report": {"misfire": 2}}


def test_drops_are_counted_by_reason_through_restarts(path: Path) -> None:
    for _ in range(2):
        file = schedule_file(path)
        file.try_lock()
        file.record({"a": A}, {("a", Reason.MISFIRE): 2, ("b", Reason.PAUSED): 1})
        file.record({}, {("a", Reason.MISFIRE): 1, ("a", Reason.OVERLAP): 5})
        file.flush()
        file.record({}, {("a", Reason.MISFIRE): 1})
        file.flush()
        file.unlock()

    assert view(path).dropped == {
        "a": {"misfire": 8, "overlap": 10},
        "b": {"paused": 2},
    }


def test_a_rewrite_sets_ledger_era_and_term_at_once(
    file: ScheduleFile, path: Path
) -> None:
    file.record({"a": A, "gone": B}, {("gone", Reason.PAUSED): 1})
    file.flush()
    file.record({"gone": B}, {("gone", Reason.PAUSED): 1})

    earlier = A._replace(slot=A.slot - MINUTE)
    file.rewrite({"a": earlier, "b": B}, ["gone", "never there"], 2, 17)

    assert view(path) == View(
        {"a": earlier, "b": B}, {}, "shop", "Europe/Paris", term=17, era=2
    )
    assert file.read().era == 2


def test_an_entry_that_comes_back_after_it_was_gone_is_written(
    file: ScheduleFile,
) -> None:
    file.rewrite({}, ["a"], 0, 1)
    file.record({"a": A}, {})
    file.flush()

    assert file.read().marks == {"a": A}


def test_a_row_that_is_removed_and_set_is_there_without_its_counts(
    file: ScheduleFile, path: Path
) -> None:
    file.record({"a": A, "b": B}, {("a", Reason.PAUSED): 1, ("b", Reason.PAUSED): 2})
    file.flush()
    later = A._replace(slot=A.slot + MINUTE)

    file.rewrite({"a": later, "b": B}, ["a"], 0, 1)

    shown = view(path)
    assert shown.marks == {"a": later, "b": B}
    assert shown.dropped == {"b": {"paused": 2}}


def test_a_rewrite_touches_only_rows_that_differ(
    file: ScheduleFile, path: Path
) -> None:
    def rows() -> dict[str, int]:
        with closing(sqlite3.connect(path)) as db:
            return dict(db.execute("SELECT key, rowid FROM ledger"))

    file.rewrite({"a": A, "b": B}, [], 0, 1)
    before = rows()
    marks = file.read().marks
    file.rewrite({**marks, "b": B._replace(runs=9)}, [], 0, 2)

    assert rows()["a"] == before["a"]
    assert rows()["b"] != before["b"]
    assert file.read().marks == {"a": A, "b": B._replace(runs=9)}


def test_refused_entries_are_named_until_the_next_term_begins(
    file: ScheduleFile, path: Path
) -> None:
    file.rewrite({"a": A}, [], 0, 1)
    file.note_refused({"a": "it is closed"})
    file.flush()
    assert view(path).refused == {"a": "it is closed"}
    file.unlock()

    again = schedule_file(path)
    assert again.try_lock()
    again.read()
    again.rewrite({"a": A}, [], 0, 2)

    assert view(path).refused == {}
    again.unlock()


def test_held_entries_are_named_until_the_next_term_begins(
    file: ScheduleFile, path: Path
) -> None:
    file.rewrite({"a": A}, [], 0, 1)
    file.note_held({"a": "its run goes on"})
    file.flush()
    assert view(path).held == {"a": "its run goes on"}
    assert view(path).refused == {}

    file.rewrite({"a": A}, [], 0, 2)

    assert view(path).held == {}


def test_what_is_over_by_its_bounds_is_told_from_what_was(
    file: ScheduleFile, path: Path
) -> None:
    names = ["a", "b", "c"]
    assert list(file.note_over(["a"], names)) == []  # nothing is known of before
    file.flush()
    file.unlock()

    again = schedule_file(path)
    again.try_lock()
    again.read()
    assert again.note_over(["a", "b"], names) == {"b"}
    assert again.note_over(["c"], ["c"]) == {"c"}
    assert again.note_over([], ["a"]) == set()
    again.flush()
    assert view(path).over == ("b", "c")
    again.unlock()


def test_of_very_many_refused_entries_only_some_are_named(
    file: ScheduleFile, path: Path
) -> None:
    file.note_refused({f"e{n}": "it is closed" for n in range(5000)})
    file.flush()

    assert len(view(path).refused) == 1000


def test_the_highest_term_is_known_to_standbys_and_after_a_restart(
    file: ScheduleFile, path: Path
) -> None:
    standby = schedule_file(path)
    assert standby.highest_term() == 0

    file.rewrite({}, [], 0, 41)
    file.rewrite({}, [], 0, 7)

    assert file.highest_term() == 41
    assert standby.highest_term() == 41
    file.unlock()
    assert schedule_file(path).highest_term() == 41


def test_a_standby_opens_the_file_only_when_somebody_has_written_to_it(
    file: ScheduleFile, path: Path
) -> None:
    file.rewrite({}, [], 0, 41)
    file.unlock()
    standby = schedule_file(path)
    assert standby.highest_term() == 41
    before = path.stat()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '43' WHERE key = 'term'")
        db.commit()

    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert standby.highest_term() == 41  # it looks as if nobody had written

    os.utime(path)
    assert standby.highest_term() == 43


def test_what_was_flushed_outlives_a_kill(path: Path) -> None:
    code = f"""
        from tests.test_schedule_file import *
        path = Path({str(path)!r})
        file = schedule_file(path)
        file.try_lock()
        file.record(many(500), {{}})
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    lines = [line.strip() for line in code.splitlines()]
    killed = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert view(path).marks == many(500)
    file = schedule_file(path)
    assert file.try_lock()
    assert file.read().marks == many(500)
    file.unlock()


# Who may write it


def test_only_one_has_the_file_and_the_other_is_told_who(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = schedule_file(path)

    assert not second.try_lock()
    assert not second.try_lock()

    words = f"pid {os.getpid()} on this host, started 2027-01-15 12:00:00 UTC"
    assert second.outage == f"{path} is in use by another beatd ({words})"
    assert events(caplog) == ["file.outage"]


def test_who_lost_the_lock_file_does_not_write_beside_its_new_holder(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.with_name(f"{path.name}.lock").unlink()
    second = schedule_file(path)
    assert second.try_lock()

    file.record({"a": B}, {})
    file.flush()
    assert view(path).marks == {}
    second.unlock()
    file.flush()

    assert view(path).marks == {"a": B}
    assert events(caplog) == ["lock.lost", "file.outage", "file.back"]


def test_who_leads_without_the_file_writes_it_once_it_is_free(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.rewrite({"a": A, "old": A}, [], 0, 1)
    second = schedule_file(path)
    second.try_lock()
    marks = second.read().marks
    file.record({"a": B}, {})
    file.flush()

    second.rewrite({"a": marks["a"], "b": B}, ["old"], 0, 2)
    second.flush()
    assert view(path).marks == {"a": B, "old": A}
    file.unlock()
    second.flush()

    assert view(path).marks == {"a": A, "b": B}
    assert second.outage == ""
    assert events(caplog) == ["file.outage", "file.back"]
    second.unlock()


def test_who_let_go_of_the_file_writes_no_more(file: ScheduleFile, path: Path) -> None:
    file.record({"a": A}, {})

    file.unlock()
    file.flush()

    assert view(path).marks == {}


def test_files_are_for_their_owner_only_whatever_the_umask(path: Path) -> None:
    with umask(0):
        file = schedule_file(path)
        file.try_lock()
        file.rewrite({"a": A}, [], 0, 1)
        modes = {one.name: oct(one.stat().st_mode & 0o777) for one in folder(path)}
        file.unlock()

    names = ["celery.db", "celery.db-shm", "celery.db-wal", "celery.db.lock"]
    assert modes == dict.fromkeys(names, "0o600")


def folder(path: Path) -> list[Path]:
    return list(path.parent.iterdir())


def test_the_name_is_taken_as_it_is_given(tmp_path: Path) -> None:
    written(tmp_path / "celerybeat-schedule", {})

    assert sorted(contents(tmp_path)) == [
        "celerybeat-schedule",
        "celerybeat-schedule.lock",
    ]


# Readers


def test_a_reader_sees_what_the_leader_flushed_and_leaves_no_trace(
    file: ScheduleFile, path: Path
) -> None:
    file.record({"a": A}, {})
    file.flush()
    before = sorted(contents(path.parent))

    assert view(path).marks == {"a": A}

    assert sorted(contents(path.parent)) == before


def test_a_reader_puts_nothing_beside_a_file_that_nobody_writes(path: Path) -> None:
    written(path, {"a": A})
    before = contents(path.parent)

    assert view(path).marks == {"a": A}

    assert contents(path.parent) == before


def test_a_reader_makes_no_file(path: Path) -> None:
    assert view(path) == View()

    assert contents(path.parent) == {}


# Files that are not ours


def no_directory(path: Path) -> Path:
    return path.parent / "no" / "such" / "celery.db"


def a_directory(path: Path) -> None:
    path.mkdir()


def a_text(path: Path) -> None:
    path.write_text("beat_schedule = {}\n" * 50)


def a_binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def half_a_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00\x10\x00")


def anothers_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE ledger (key TEXT PRIMARY KEY, value BLOB)")
    db.close()


def a_broker(path: Path) -> None:
    broker = SQLiteBroker(path, namespace="shop")
    broker.ping()
    broker.close()


def a_later_version(path: Path) -> None:
    written(path, {})
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()


def another_namespace(path: Path) -> None:
    file = schedule_file(path, "blog")
    file.try_lock()
    file.rewrite({}, [], 0, 1)
    file.unlock()


def celerys(path: Path) -> Path:
    """Make what celery beat makes; give the file in which its values are."""
    from celery import Celery
    from celery.beat import PersistentScheduler

    app = Celery(set_as_current=False)
    app.conf.beat_schedule = {"a": {"task": "t", "schedule": 60}}
    PersistentScheduler(app, schedule_filename=str(path)).close()
    # Not only to read: from 3.13 on that would leave files of SQLite beside it.
    with shelve.open(str(path)) as shelf:
        assert "a" in shelf["entries"]
    return max(folder(path), key=lambda one: one.stat().st_size)


def gdbms(path: Path) -> None:
    """The first bytes and the keys of the shelve where Python has gdbm."""
    path.write_bytes(b"\xce\x9a\x57\x13" + bytes(4092) + b"entries\x80\x05utc_enabled")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_directory, "there is no directory"),
        (a_directory, "is a directory"),
        (a_pipe, "is not a plain file"),
        (a_text, "is not a schedule file of beatd but a text file"),
        (a_binary, "but a file of another program"),
        (half_a_header, "but an SQLite database of something else"),
        (anothers_database, "but an SQLite database of something else"),
        (a_broker, "but its broker database"),
        (a_later_version, "its format is 2, and this beatd knows formats up to 1"),
        (another_namespace, "belongs to the namespace 'blog'"),
        (celerys, "but celery beat's own (a shelve file)"),
        (gdbms, "but celery beat's own (a shelve file)"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_as_it_was(
    path: Path, make: Callable[[Path], Path | None], words: str
) -> None:
    path = make(path) or path
    before = contents(path.parent) if path.parent.exists() else None

    with pytest.raises(ScheduleFileError, match=rf"^{path} ") as refused:
        schedule_file(path)

    assert words in str(refused.value)
    assert "--schedule-filename names another file" in str(refused.value)
    assert refused.value.exit_code == 78
    assert (contents(path.parent) if path.parent.exists() else None) == before


def test_a_folder_that_is_not_there_is_named_with_the_command_that_makes_it(
    path: Path,
) -> None:
    folder = path.parent / "my log"

    with pytest.raises(ScheduleFileError) as refused:
        schedule_file(folder / "celery.db")

    assert f"there is no directory {folder}" in str(refused.value)
    assert f"mkdir -p '{folder}' makes it" in str(refused.value)
    assert "left as it is" not in str(refused.value)


def test_the_working_directory_is_refused_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ScheduleFileError, match="is a directory; a file is needed"):
        schedule_file(Path())

    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("make", [a_text, anothers_database, a_later_version])
def test_what_is_not_ours_is_not_shown_either(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    before = contents(path.parent)

    with pytest.raises(ScheduleFileError):
        view(path)

    assert contents(path.parent) == before


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "words"),
    [
        (0o777, 0o444, "celery.db is read-only"),
        (0o777, 0o000, "celery.db cannot be read: no permission"),
        (0o555, 0o666, "no permission to write in the directory"),
        (0o555, None, "no permission to write in the directory"),
    ],
)
def test_what_may_not_be_written_is_refused_and_left_as_it_was(
    anyones: Path, folder_mode: int, file_mode: int | None, words: str
) -> None:
    path = anyones / "celery.db"
    if file_mode is not None:
        written(path, {"a": A})
        path.chmod(file_mode)
    anyones.chmod(folder_mode)
    before = contents(anyones) if os.geteuid() == 0 else None

    with as_nobody(), pytest.raises(ScheduleFileError) as refused:
        schedule_file(path)

    assert words in str(refused.value)
    assert refused.value.exit_code == 78
    if before is not None:
        assert contents(anyones) == before
    anyones.chmod(0o755)


def test_who_may_only_read_sees_the_entries(anyones: Path) -> None:
    path = anyones / "celery.db"
    written(path, {"a": A})
    path.chmod(0o444)

    with as_nobody():
        assert view(path).marks == {"a": A}


# Damage


def test_an_empty_file_is_taken_over(path: Path) -> None:
    path.touch()

    written(path, {"a": A})

    assert view(path).marks == {"a": A}


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"garbage! " * 2000)


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE meta")
    db.close()


@pytest.mark.parametrize("harm", [cut_in_half, overwritten, without_a_table])
def test_a_damaged_file_is_kept_under_a_new_name_and_made_anew(
    path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    written(path, many(1000))
    harm(path)
    damaged = path.read_bytes()

    file = schedule_file(path)
    assert file.try_lock()
    assert file.read().marks == {}
    file.rewrite(many(1000), [], 0, 2)
    file.unlock()

    aside = path.with_name("celery.db.damaged-20270115T120000")
    assert aside.read_bytes()[:100] == damaged[:100]
    assert len(aside.read_bytes()) == len(damaged)
    assert view(path).marks == many(1000)
    assert events(caplog) == ["file.damaged"]
    assert aside.name in caplog.text


def test_a_second_damaged_file_does_not_replace_the_first(path: Path) -> None:
    for _ in range(2):
        written(path, many(1000))
        cut_in_half(path)
        written(path, {})

    aside = [name for name in contents(path.parent) if "damaged" in name]
    assert sorted(aside) == [
        "celery.db.damaged-20270115T120000",
        "celery.db.damaged-20270115T120000-2",
    ]


def test_a_reader_says_that_a_file_is_damaged_and_leaves_it(path: Path) -> None:
    written(path, many(1000))
    overwritten(path)
    before = contents(path.parent)

    with pytest.raises(ScheduleFileError, match="malformed"):
        view(path)

    assert contents(path.parent) == before


class Bomb:
    """What unpickling would set off."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def row(**changes: object) -> str:
    good = {
        "slot": NOON,
        "fingerprint": "every 60",
        "total_run_count": 1,
        "last_run_at": "2027-01-15T12:00:00Z",
    }
    return json.dumps(good | changes)


@pytest.mark.parametrize(
    "value",
    [
        "not JSON",
        "",
        "[]",
        "{}",
        None,
        17,
        b"\xff\xfe",
        row(slot="noon"),
        row(slot=1.5),
        row(slot=10**30),
        row(slot=None),
        row(fingerprint=7),
        row(total_run_count=-1),
        row(total_run_count=2**63),
        row(last_run_at="2027-01-15T12:00:00"),
        row(last_run_at="yesterday"),
        row(slot=LATEST + 1),
        row(slot=EARLIEST - 1),
        row(last_run_at="0001-01-01T00:00:00+14:00"),
        row(last_run_at="9999-12-31T23:59:59-14:00"),
        row(more=None).replace("null", "[" * 100_000 + "]" * 100_000),
        "[" * 100_000,
        pickle.dumps("text"),
    ],
)
def test_a_tampered_row_is_passed_over_and_named(
    path: Path, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, {"good": A, "bad": A})
    with sqlite3.connect(path) as db:
        db.execute("UPDATE ledger SET value = ? WHERE key = 'bad'", (value,))
    db.close()

    assert view(path).marks == {"good": A}
    assert events(caplog) == ["file.bad_rows"]
    assert "b'bad'" in caplog.text


@pytest.mark.parametrize("slot", [EARLIEST, LATEST])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/New_York", "UTC"])
def test_at_the_edge_of_the_years_a_mark_has_a_date_in_each_zone(
    path: Path, slot: Instant, zone: str
) -> None:
    mark = Mark(slot, "every 60", 1, slot)
    written(path, {"good": mark})

    assert view(path).marks == {"good": mark}
    assert instant_of(datetime_of(slot, ZoneInfo(zone))) == slot


def test_a_row_that_cannot_be_understood_is_named_once_and_kept(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, {"good": A, "bad": A})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE ledger SET value = '[]' WHERE key = 'bad'")
    file = schedule_file(path)
    file.try_lock()

    for term in (8, 9):
        assert list(file.read().marks) == ["good"]
        file.rewrite({"good": B}, [], 0, term)
    file.unlock()

    assert events(caplog) == ["file.bad_rows"]
    with closing(sqlite3.connect(path)) as db:
        sql = "SELECT value FROM ledger WHERE key = 'bad'"
        assert db.execute(sql).fetchone() == ("[]",)


ENDLESS = """
CREATE VIEW ledger AS
WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n)
SELECT key, '{}' AS value FROM n
"""


@pytest.mark.parametrize("view_of_rows", [ENDLESS, "CREATE VIEW ledger AS SELECT 1"])
def test_a_view_in_place_of_the_ledger_is_damage_and_is_not_read(
    path: Path, view_of_rows: str, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, {"good": A})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE ledger")
        db.execute(view_of_rows)

    with pytest.raises(ScheduleFileError, match="is damaged: no table ledger"):
        view(path)
    file = schedule_file(path)
    assert file.try_lock()

    file.rewrite({"good": B}, [], 0, 9)
    file.unlock()
    assert view(path).marks == {"good": B}
    assert events(caplog) == ["file.damaged"]
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


@pytest.mark.parametrize(
    "value", ["text", None, b"\xff", "-1", "1.5", "[]", '{"a":-1}', "[" * 100_000]
)
def test_tampered_counts_and_meta_are_passed_over_and_named(
    path: Path, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, {"good": A})
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO dropped VALUES ('counts', ?)", (value,))
        db.execute("UPDATE meta SET value = ?", (value,))
    db.close()

    assert view(path) == View({"good": A})
    for name in ("counts", "era", "namespace", "term", "timezone"):
        assert f"b'{name}'" in caplog.text


def test_a_standby_does_not_repeat_what_is_wrong_with_the_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, {})
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = 'x'")
    db.close()

    standby = schedule_file(path)

    assert [standby.highest_term() for _ in range(3)] == [0, 0, 0]
    assert events(caplog) == []


def test_of_many_tampered_rows_only_some_are_named(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(path, many(100))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE ledger SET value = 'x'")
    db.close()

    assert view(path).marks == {}
    assert caplog.text.count("b'entry-") == 5
    assert "and 95 more" in caplog.text


def test_a_tampered_name_is_passed_over(path: Path) -> None:
    written(path, {"good": A})
    with sqlite3.connect(path) as db:
        for name in ("CAST(x'ff00' AS TEXT)", "x'00'", "NULL", "7"):
            db.execute(f"INSERT INTO ledger VALUES ({name}, ?)", (row(),))
    db.close()

    assert view(path).marks.keys() <= {"good", "\x00", "7"}


def test_a_pickle_in_the_file_is_not_opened(path: Path) -> None:
    written(path, {"good": A})
    mark = path.parent / "executed"
    bomb = pickle.dumps(Bomb(mark))
    with sqlite3.connect(path) as db:
        for table in ("ledger", "dropped", "meta"):
            db.execute(f"REPLACE INTO {table} VALUES ('bomb', ?)", (bomb,))
    db.close()

    file = schedule_file(path)
    file.try_lock()
    file.read()
    file.record({"good": B}, {("bomb", Reason.PAUSED): 1})
    file.flush()
    file.unlock()

    assert view(path).marks == {"good": B}
    assert not mark.exists()


# Trouble while it is in use


def test_what_a_full_disk_refuses_is_written_when_there_is_room(
    file: ScheduleFile, caplog: pytest.LogCaptureFixture
) -> None:
    file.record({"a": A}, {})
    file.flush()
    with full_disk(room=2000):
        for round_ in range(3):
            file.record(many(200 + round_), {("a", Reason.PAUSED): 1})
            file.flush()
    assert "cannot be" in file.outage

    file.flush()

    assert file.read().marks == {"a": A} | many(202)
    assert view(file.path).dropped == {"a": {"paused": 3}}
    assert file.outage == ""
    assert events(caplog) == ["file.outage", "file.back"]


def test_who_else_writes_to_the_file_keeps_nobody_waiting(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SystemClock()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    began = clock.elapsed()
    for round_ in (2, 3):
        file.record(many(round_), {("a", Reason.PAUSED): 1})
        file.flush()
    assert clock.elapsed() - began < 2 * SECOND
    assert "locked" in file.outage
    db.close()

    file.flush()

    assert view(path).marks == many(3)
    assert view(path).dropped == {"a": {"paused": 2}}
    assert events(caplog) == ["file.outage", "file.back"]


def test_a_file_that_cannot_be_made_yet_is_made_when_there_is_room(
    path: Path,
) -> None:
    file = schedule_file(path)
    with full_disk():
        file.try_lock()
        file.rewrite({"a": A}, [], 0, 3)
    assert file.outage

    file.flush()

    assert view(path).marks == {"a": A}
    file.unlock()


def test_a_file_deleted_in_use_is_written_anew_and_whole(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.rewrite(many(300), [], 4, 9)
    file.record({}, {("a", Reason.PAUSED): 1})
    file.flush()
    for beside in folder(path):
        if not beside.name.endswith(".lock"):
            beside.unlink()

    file.record({"a": A}, {("a", Reason.PAUSED): 1})
    file.flush()

    assert view(path) == View(
        many(300) | {"a": A},
        {"a": {"paused": 2}},
        "shop",
        "Europe/Paris",
        term=9,
        era=4,
    )
    assert events(caplog) == ["file.lost"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_deleted_without_what_lies_beside_it_is_written_anew(
    file: ScheduleFile, path: Path
) -> None:
    file.rewrite(many(300), [], 4, 9)
    path.unlink()

    file.record({"entry-7": A}, {})
    file.flush()
    file.unlock()

    assert view(path).marks == many(300) | {"entry-7": A}


def test_a_foreign_file_put_in_its_place_is_left_as_it_was(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.rewrite({"a": A}, [], 0, 1)
    path.unlink()
    a_text(path)
    foreign = path.read_bytes()

    file.record({"b": B}, {})
    file.flush()
    file.flush()
    assert path.read_bytes() == foreign
    assert "a text file" in file.outage
    path.unlink()
    file.flush()

    assert view(path).marks == {"a": A, "b": B}
    assert events(caplog) == ["file.lost", "file.outage", "file.back"]


def test_damage_in_use_is_found_and_the_file_made_anew(
    file: ScheduleFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    file.rewrite(many(1000), [], 0, 1)
    file.unlock()
    file.try_lock()
    overwritten(path)

    for _ in range(2):
        file.record(many(1000), {})
        file.flush()

    assert view(path).marks == many(1000)
    assert events(caplog) == ["file.outage", "file.damaged", "file.back"]
