"""How the thread that waits for messages in SQLite is woken."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beatd.brokers.sqlite.rest import TOLD, UNTOLD, Pace, Rest
from beatd.instant import SECOND
from tests.servers import PATIENCE

LONG = int(PATIENCE) * SECOND * 10
RARELY = Pace(PATIENCE * 10, 1, PATIENCE * 10)
"""No look by itself comes within a test."""


def rest_at(path: Path) -> Rest:
    return Rest(path, threading.Event(), told=RARELY)


def woken(rest: Rest, by: Callable[[], object]) -> bool:
    """Return what `wait` does, which `by` is to end."""
    with ThreadPoolExecutor() as threads, rest.begun():
        waiting = threads.submit(rest.wait, LONG)
        by()
        return waiting.result(PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_a_write_to_the_file_ends_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "wal"
    file.touch()
    writer = file.open("ab", buffering=0)

    assert woken(rest_at(file), lambda: writer.write(b"."))

    writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_a_write_to_a_file_put_in_its_place_ends_the_rest_too(tmp_path: Path) -> None:
    file, rest = tmp_path / "wal", rest_at(tmp_path / "wal")
    file.touch()
    assert woken(rest, lambda: file.write_bytes(b"."))
    file.unlink()
    file.touch()

    assert woken(rest, lambda: file.write_bytes(b"."))


def test_a_call_ends_the_rest_and_an_interrupt_says_so(tmp_path: Path) -> None:
    file = tmp_path / "wal"
    file.touch()
    rest = rest_at(file)

    assert woken(rest, rest.call) is True
    assert woken(rest, rest.interrupt) is False


def test_where_nothing_is_told_it_looks_by_itself(tmp_path: Path) -> None:
    rest = rest_at(tmp_path / "there is none")

    with rest.begun():
        assert rest.wait(LONG) is True


def test_it_looks_more_seldom_where_the_kernel_tells() -> None:
    assert TOLD.longest >= 10 * UNTOLD.longest
