"""Entries that are paused while beatd runs, by people and after failures."""

import logging
import shlex
from contextlib import closing
from pathlib import Path

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.sqlite import SQLiteBroker
from beatd.clock import SystemClock
from beatd.errors import BrokerRefused
from beatd.instant import MINUTE, SECOND
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.pauses import BOOK, Pause, Pauses, pause_notes, read_pauses
from beatd.scheduler.pulse import OTHERS
from beatd.schedules.interval import Every
from beatd.service.facts import Published
from beatd.service.wiring.alerting import look_for_pauses
from beatd.timetable.entry import Overlap
from tests.alerts.making import FakeResults, desk_of, live, rules
from tests.alerts.test_desk import id_of, told
from tests.cli.conftest import Run, folder, run, shop
from tests.fakes import NOON, FakeClock, FakeFile, FlakyBroker, entry, scheduler_of
from tests.servers import eventually

__all__ = ["folder", "run", "shop"]

TICK, TOCK = entry("tick", Every(MINUTE)), entry("tock", Every(MINUTE))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON + 1)


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def scheduler_at(broker: FlakyBroker, clock: FakeClock) -> Scheduler:
    scheduler = scheduler_of(TICK, TOCK, broker=broker, clock=clock, file=FakeFile())
    scheduler.pauses = Pauses(broker)
    return scheduler


def pause(
    broker: Broker, name: str, note: str = "BI is down", by: str = "anna"
) -> None:
    broker.write_notes(BOOK, pause_notes({name: Pause(note, NOON, by)}))


def run_until(scheduler: Scheduler, until: int) -> None:
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    while clock.now() < until:
        scheduler.tick(clock.now())
        clock.go_to(clock.now() + SECOND)


def test_slots_of_a_paused_entry_are_dropped_and_recorded_until_it_is_resumed(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scheduler = scheduler_at(broker, clock)
    run_until(scheduler, NOON + 90 * SECOND)
    assert scheduler.pauses
    pause(broker, "tick")
    scheduler.pauses.look()
    run_until(scheduler, NOON + 210 * SECOND)
    published = Published.from_now_on(scheduler)
    published.publish(scheduler)
    paused = published.facts.paused
    broker.write_notes(BOOK, {}, ["tick"])
    scheduler.pauses.look()
    run_until(scheduler, NOON + 270 * SECOND)

    published.publish(scheduler)
    assert (paused, published.facts.paused) == (1, 0)
    assert broker.slots("tick") == [NOON + MINUTE, NOON + 4 * MINUTE]
    assert len(broker.slots("tock")) == 4
    assert scheduler.pulse.dropped == {(OTHERS, "paused"): 2}
    assert caplog.text.count("tick is paused by anna: BI is down: its slots") == 2
    assert "no longer paused: tick" in caplog.text


def test_whoever_leads_next_emits_no_slot_of_a_paused_entry(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    first = scheduler_at(broker, clock)
    run_until(first, NOON + 30 * SECOND)
    pause(broker, "tick")  # nobody has looked yet
    first.stop()
    run_until(scheduler_at(broker, clock), NOON + 90 * SECOND)

    assert broker.slots("tick") == []
    assert broker.slots("tock") == [NOON + MINUTE]


def test_a_paused_entry_that_waits_for_its_run_waits_no_more(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    held = entry("tick", Every(MINUTE), overlap=Overlap.QUEUE_ONE)
    scheduler = scheduler_of(held, broker=broker, clock=clock)
    scheduler.pauses = Pauses(broker)
    run_until(scheduler, NOON + 130 * SECOND)
    assert broker.slots("tick") == [NOON + MINUTE]

    pause(broker, "tick")
    scheduler.pauses.look()
    run_until(scheduler, NOON + 190 * SECOND)

    assert scheduler.pulse.dropped == {(OTHERS, "paused"): 2}


def test_a_note_that_cannot_be_read_pauses_all_the_same(broker: FlakyBroker) -> None:
    broker.write_notes(BOOK, {"tick": b"\xc1", "tock": b"{}"})

    assert {*read_pauses(broker)} == {"tick", "tock"}


def test_an_entry_that_fails_again_and_again_is_paused_until_it_is_resumed(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, results = scheduler_at(broker, clock), FakeResults()
    rule = rules(failures=9, pause_after_failures=2, on=["paused"])
    desk = desk_of(scheduler, rule, results)
    for minute in range(1, 20):
        results.states[id_of(NOON + minute * MINUTE)] = "FAILURE"

    live(scheduler, desk, NOON + 6 * MINUTE + 30 * SECOND)
    assert broker.slots("tick") == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert told(caplog) == ["paused"]
    [words] = [one.words for one in read_pauses(broker).values()]
    assert words == (
        "paused by beatd: 2 failures in a row, the last one of slot 15 Jan 12:02:00 UTC"
    )

    broker.write_notes(BOOK, {}, ["tick"])
    scheduler.pauses.look()  # type: ignore[union-attr]  # it has some
    live(scheduler, desk, NOON + 8 * MINUTE + 30 * SECOND)
    assert broker.slots("tick")[2:] == [NOON + 7 * MINUTE, NOON + 8 * MINUTE]
    assert told(caplog) == ["paused", "paused"]


def test_a_pause_that_could_not_be_written_is_written_later(
    broker: FlakyBroker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beatd.errors import BrokerUnavailable

    scheduler, results = scheduler_at(broker, clock), FakeResults()
    desk = desk_of(scheduler, rules(pause_after_failures=1), results)
    results.states[id_of(NOON + MINUTE)] = "FAILURE"

    def refuse(*_: object) -> None:
        raise BrokerUnavailable("read only")

    with monkeypatch.context() as away:
        away.setattr(broker, "write_notes", refuse)
        live(scheduler, desk, NOON + 80 * SECOND)
    live(scheduler, desk, NOON + 100 * SECOND)

    assert [*read_pauses(broker)] == ["tick"]
    assert scheduler.pulse.alerts == {"failed": 1, "paused": 1}


def test_that_pauses_may_not_be_read_is_said(
    broker: FlakyBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(book: str) -> dict[str, bytes]:
        raise BrokerRefused("NOPERM")

    monkeypatch.setattr(broker, "read_notes", refuse)
    crashed: list[BaseException] = []
    looks = look_for_pauses(Pauses(broker), lambda: True)
    looks.start("beatd-paused", crashed.append)
    eventually(lambda: "paused or resumed: NOPERM" in caplog.text or crashed)
    looks.stop()

    assert crashed == []
    assert [getattr(one, "event", "") for one in caplog.records] == ["pauses.refused"]


# The commands ------------------------------------------------------------------------


@pytest.fixture
def file(shop: Path) -> Path:
    """The shop's broker, as a scheduler has made it."""
    path = shop.parent / "broker.db"
    broker = SQLiteBroker(path, namespace="default", clock=SystemClock())
    with closing(broker):
        broker.write_notes("alerts", {})
    return path


def said_by(file: Path) -> str:
    """Return who has paused entries, by their notes."""
    broker = SQLiteBroker(file, namespace="default", clock=SystemClock())
    with closing(broker):
        [who] = {one.by for one in read_pauses(broker).values()}
    return who


def test_entries_are_paused_shown_as_that_and_resumed(run: Run, file: Path) -> None:
    said = run("pause", "report-*", "--note", "BI is down, ticket 812").stdout
    assert said.startswith("paused ")
    assert "undo: beatd resume 'report-*'" in said
    shown = run("show", "report-*").stdout
    assert "BI is down, ticket 812" in shown
    assert " paus" in run("list").stdout
    who = said_by(file)
    assert run("next", "report-*").stdout == f"nothing runs: paused by {who}.\n"

    assert run("resume", "report-*").stdout.startswith("resumed ")
    assert "BI is down" not in run("show", "report-*").stdout


def test_a_shell_reads_the_way_back_as_it_was_given(run: Run, file: Path) -> None:
    globs = ["report-*", "[!']*"]

    *_, undo = run("pause", *globs).stdout.splitlines()

    assert shlex.split(undo) == ["undo:", "beatd", "resume", *globs]


def test_who_pauses_or_resumes_what_is_not_there_is_told(run: Run, file: Path) -> None:
    assert "no entry matches 'x*'" in run("pause", "x*", status=3).stderr
    assert "no entry is paused" in run("resume", "report", status=3).stderr


def test_without_a_broker_nothing_is_paused_and_no_file_made(
    run: Run, shop: Path
) -> None:
    result = run("pause", "report-*", status=3)

    assert "no scheduler has run with this config" in result.stderr
    assert not (shop.parent / "broker.db").exists()
