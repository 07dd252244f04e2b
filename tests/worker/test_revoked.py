"""What is remembered of revoked ids, here and on disk."""

import shelve
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from beatd.errors import ConfigError
from beatd.instant import HOUR, MINUTE
from beatd.worker.revoked import RevokedKeys, StateFile
from tests.fakes import NOON


def test_what_is_revoked_is_remembered_for_a_time() -> None:
    revoked: RevokedKeys[str] = RevokedKeys()
    revoked.add(["a"], NOON)
    revoked.add(["b"], NOON + HOUR)

    assert "a" in revoked
    assert revoked.keys(NOON + 3 * HOUR - 1) == ["a", "b"]
    assert revoked.keys(NOON + 3 * HOUR) == ["b"]
    assert "a" not in revoked


def test_of_too_many_the_oldest_are_forgotten() -> None:
    revoked: RevokedKeys[int] = RevokedKeys(most=3)
    revoked.add(range(5), NOON)

    assert revoked.keys(NOON) == [2, 3, 4]


def test_what_is_revoked_again_counts_from_then_on() -> None:
    revoked: RevokedKeys[str] = RevokedKeys(most=2)
    revoked.add(["a", "b"], NOON)
    revoked.add(["a"], NOON + MINUTE)
    revoked.add(["c"], NOON + MINUTE)

    assert revoked.keys(NOON + MINUTE) == ["a", "c"]


def test_one_more_id_copies_none_of_those_that_are_known() -> None:
    revoked: RevokedKeys[int] = RevokedKeys(most=20_000)
    revoked.add(range(20_000), NOON)
    revoked.add([20_000], NOON)

    tracemalloc.start()
    try:
        revoked.add([20_001], NOON)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10_000  # a copy of the ids takes more than a million bytes


def test_a_state_file_outlives_its_worker(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    StateFile(path).add(["a", "b"], NOON)
    StateFile(path).add(["c", "a"], NOON + HOUR)

    known = StateFile(path).load(NOON + 2 * HOUR)
    assert known == [("b", NOON), ("a", NOON + HOUR), ("c", NOON + HOUR)]
    assert [key for key, _ in StateFile(path).load(NOON + 3 * HOUR)] == ["a", "c"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_state_file_of_celery_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    with shelve.open(str(path)) as celerys:
        celerys["zrevoked"] = b""
    # Which files it makes, and their names, depends on the dbm that is there.
    made = next(file for file in tmp_path.iterdir() if file.stat().st_size)
    before = made.read_bytes()

    with pytest.raises(ConfigError, match="is not a worker state file of beatd"):
        StateFile(made)
    assert made.read_bytes() == before


def test_a_state_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    file = StateFile(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE revoked")

    with pytest.raises(ConfigError, match="no such table"):
        file.load(NOON)


def test_damaged_rows_are_passed_over_counted_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "worker.db"
    StateFile(path).add(["a"], NOON)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO revoked VALUES ('b', 'today')")
        db.execute("INSERT INTO revoked VALUES ('c', ?)", (2**62,))
        db.execute("INSERT INTO revoked VALUES (x'ff', ?)", (NOON,))
        db.execute("INSERT INTO revoked VALUES (CAST(x'ff' AS TEXT), ?)", (NOON,))

    known = StateFile(path).load(NOON)

    assert ("a", NOON) in known
    assert len(known) == 2
    assert "3 rows that cannot be understood: passed over" in caplog.text
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM revoked").fetchone() == (5,)


def test_an_id_that_was_revoked_in_the_future_ends_no_other(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    StateFile(path).add(["a", "b"], NOON)
    StateFile(path).add(["ahead"], NOON + 10_000 * HOUR)
    revoked: RevokedKeys[str] = RevokedKeys()

    for task_id, at in StateFile(path).load(NOON + HOUR):
        revoked.add([task_id], at)

    assert sorted(revoked.keys(NOON + HOUR)) == ["a", "ahead", "b"]


def test_a_view_in_place_of_the_ids_is_refused_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    file = StateFile(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE revoked")
        db.execute(
            "CREATE VIEW revoked AS WITH RECURSIVE n(at) AS"
            " (SELECT 1 UNION ALL SELECT at + 1 FROM n) SELECT 'a' AS id, at FROM n"
        )

    with pytest.raises(ConfigError, match="no such table"):
        file.load(NOON)


def test_a_state_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"

    with pytest.raises(
        ConfigError, match=rf"there is no directory .*mkdir -p {nowhere}"
    ):
        StateFile(nowhere / "worker.db")
