"""Results in SQLite beyond the contract: expiry, the file, and forks."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd import results
from beatd.config.settings import read
from beatd.errors import ConfigError, ResultUnavailable
from beatd.instant import HOUR, MINUTE
from beatd.results.base import Lifetime, Meta, State
from beatd.results.encoding import Encoding
from beatd.results.sqlite import SWEPT, SQLiteResults
from tests.fakes import FakeClock
from tests.statements import CountedResults


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def backend(path: Path, clock: FakeClock) -> Iterator[SQLiteResults]:
    backend = SQLiteResults(
        path, encoding=Encoding(), lifetime=Lifetime(HOUR, MINUTE), clock=clock
    )
    yield backend
    backend.close()


def rows(path: Path) -> int:
    db = sqlite3.connect(path)
    (number,) = db.execute("SELECT count(*) FROM results").fetchone()
    db.close()
    return int(number)


def test_a_result_is_unknown_after_its_time(
    backend: SQLiteResults, clock: FakeClock
) -> None:
    backend.store([Meta("good", State.SUCCESS), Meta("bad", State.FAILURE)])

    clock.go_to(clock.now() + MINUTE)
    assert list(backend.load(["good", "bad"])) == ["good"]
    clock.go_to(clock.now() + HOUR)
    assert backend.load(["good", "bad"]) == {}


def test_success_gives_way_once_it_has_expired(
    backend: SQLiteResults, clock: FakeClock
) -> None:
    backend.store([Meta("a", State.SUCCESS, number) for number in range(3)])
    clock.go_to(clock.now() + HOUR)

    backend.store([Meta("a", State.FAILURE, "new")])

    assert backend.load(["a"])["a"].result == "new"


def test_results_without_an_end_are_kept(path: Path, clock: FakeClock) -> None:
    backend = SQLiteResults(
        path, encoding=Encoding(), lifetime=Lifetime(None, None), clock=clock
    )
    backend.store([Meta("a", State.SUCCESS)])

    clock.go_to(clock.now() + 1000 * HOUR)
    backend.store([Meta("b", State.SUCCESS)])

    assert list(backend.load(["a", "b"])) == ["a", "b"]
    backend.close()


def test_what_has_expired_is_removed_a_few_rows_at_a_time(
    backend: SQLiteResults, clock: FakeClock, path: Path
) -> None:
    backend.store([Meta(f"old-{n}", State.SUCCESS) for n in range(SWEPT + 50)])
    clock.go_to(clock.now() + HOUR)

    backend.store([Meta("new-1", State.SUCCESS)])
    assert rows(path) == 50
    backend.store([Meta("new-2", State.SUCCESS)])
    assert rows(path) == 2


def test_the_file_is_for_one_user_only(backend: SQLiteResults, path: Path) -> None:
    backend.store([Meta("a", State.SUCCESS)])

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_someone_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("a diary")

    with pytest.raises(ConfigError, match="not a result database of beatd"):
        SQLiteResults(path, encoding=Encoding(), lifetime=Lifetime())

    assert path.read_text() == "a diary"


def test_a_file_that_is_spoilt_later_is_said(
    backend: SQLiteResults, path: Path
) -> None:
    backend.store([Meta("a", State.SUCCESS)])
    backend.close()
    path.write_bytes(b"garbage" * 1000)

    with pytest.raises(ResultUnavailable, match=str(path)):
        backend.load(["a"])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # has threads
def test_a_forked_child_opens_the_file_anew(backend: SQLiteResults) -> None:
    backend.store([Meta("parent", State.SUCCESS)])

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            backend.store([Meta("child", State.SUCCESS)])
            status = 0 if backend.load(["parent"]) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)

    assert status == 0
    assert list(backend.load(["parent", "child"])) == ["parent", "child"]


@pytest.mark.parametrize("scheme", ["sqlite", "db+sqlite"])
def test_an_address_names_the_file_in_both_spellings(path: Path, scheme: str) -> None:
    backend = results.connect(read({"result_backend": f"{scheme}:///{path}"}).settings)

    backend.store([Meta("a", State.SUCCESS)])
    backend.close()

    assert rows(path) == 1


def test_a_batch_of_results_costs_a_statement_for_each_and_one_transaction(
    path: Path,
) -> None:
    backend = CountedResults(path)
    backend.load(["none"])

    def cost(number: int) -> int:
        backend.asked.clear()
        backend.store([Meta(f"{number}-{n}", State.SUCCESS) for n in range(number)])
        assert backend.asked.writes == 1
        return len(backend.asked)

    few, many = cost(10), cost(110)

    assert many - few == 100
    assert few <= 10 + 3
    backend.close()
