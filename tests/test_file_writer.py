"""The schedule file, written by a thread beside the loop."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from beatd.instant import HOUR, MINUTE
from beatd.scheduler.file_view import view
from beatd.scheduler.file_writer import FileWriter
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.schedules.interval import Every
from beatd.timetable.ledger import Mark
from tests.fakes import NOON, FakeClock, FakeFile, FlakyBroker, entry, scheduler_of

A, B = Mark(NOON, "every 60", 1, NOON), Mark(NOON + MINUTE, "every 60", 2, NOON)
PATIENCE = 30


class SeenFile(FakeFile):
    """A file that counts how often it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0
        self.flushed = Event()

    def flush(self) -> None:
        self.flushes += 1
        self.flushed.set()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ScheduleFile]:
    file = ScheduleFile(
        tmp_path / "celery.db", namespace="shop", timezone="UTC", clock=FakeClock()
    )
    assert file.try_lock()
    yield file
    file.unlock()


def test_what_is_recorded_while_the_file_is_written_waits_for_nothing(
    file: ScheduleFile,
) -> None:
    began, goes_on = Event(), Event()

    def hang() -> None:
        began.set()
        assert goes_on.wait(PATIENCE)

    file.record({"a": A}, {("a", "paused"): 1})
    writer = Thread(target=lambda: file.flush(hang))
    writer.start()
    assert began.wait(PATIENCE)

    file.record({"a": B, "b": B}, {("a", "paused"): 1}, version=7)
    file.note_config("digest")

    goes_on.set()
    writer.join()
    assert view(file.path).marks == {"a": A}
    file.flush()
    seen = view(file.path)
    assert (seen.marks, seen.version, seen.config) == ({"a": B, "b": B}, 7, "digest")
    assert seen.dropped == {"a": {"paused": 2}}


def test_a_write_that_fails_leaves_what_came_meanwhile_the_newer(
    file: ScheduleFile,
) -> None:
    def fail() -> None:
        file.record({"a": B}, {("a", "paused"): 1}, version=2)
        raise sqlite3.OperationalError("disk I/O error")

    file.record({"a": A, "b": A}, {("a", "paused"): 1}, version=1)
    file.flush(fail)
    assert "disk I/O error" in file.outage

    file.flush()

    seen = view(file.path)
    assert (seen.marks, seen.version) == ({"a": B, "b": A}, 2)
    assert seen.dropped == {"a": {"paused": 2}}


def test_the_file_is_written_when_the_loop_asks() -> None:
    file = SeenFile()
    writer = FileWriter(file)
    crashes: list[BaseException] = []
    writer.service.start("beatd-file", crashes.append)

    writer.ask()

    assert file.flushed.wait(PATIENCE)
    writer.service.stop()
    assert crashes == []


def test_the_loop_leaves_writing_to_the_thread_until_it_stops() -> None:
    file, clock, asked = SeenFile(), FakeClock(), []
    broker = FlakyBroker(clock)
    one = entry("tick", Every(MINUTE))
    scheduler = scheduler_of(one, broker=broker, clock=clock, file=file, ttl=HOUR)
    scheduler.write_file = lambda: asked.append(file.marks.get("tick"))
    scheduler.tick(clock.now())
    clock.go_to(NOON + MINUTE)

    scheduler.tick(clock.now())

    assert [mark.slot for mark in asked if mark][-1:] == [NOON + MINUTE]
    assert file.flushes == 0
    scheduler.stop()
    assert file.flushes == 1
