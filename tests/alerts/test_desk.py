"""Alerts of a scheduler: from its history to whoever is told, across fail-overs."""

import logging
from dataclasses import replace

import pytest

from beatd.alerts import desk as desks
from beatd.alerts.desk import Desk
from beatd.alerts.journal import BOOK, read
from beatd.errors import BrokerUnavailable, ResultUnavailable
from beatd.ids import run_id
from beatd.instant import MINUTE, SECOND, Instant
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from beatd.timetable.pages import Record, Told
from tests.alerts.making import FakeResults, desk_of, live, rules
from tests.fakes import NOON, FakeClock, FlakyBroker, entry, scheduler_of

TICK = entry("tick", Every(MINUTE))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON + 1)


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


@pytest.fixture
def results() -> FakeResults:
    return FakeResults()


@pytest.fixture
def scheduler(clock: FakeClock, broker: FlakyBroker) -> Scheduler:
    return scheduler_of(TICK, broker=broker, clock=clock)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the alerts that the log has."""
    events = [str(getattr(record, "event", "")) for record in caplog.records]
    return [one.removeprefix("alert.") for one in events if one.startswith("alert.")]


def id_of(slot: Instant) -> str:
    return run_id("test", "tick", 0, slot)


def takes_over(
    broker: FlakyBroker, clock: FakeClock, *about: object
) -> tuple[Scheduler, Desk]:
    """Let another scheduler lead from now on, with a desk of its own."""
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    rule, results = about
    return scheduler, desk_of(scheduler, rule, results)  # type: ignore[arg-type]


def test_what_is_sent_late_after_an_outage_is_told_once(
    scheduler: Scheduler,
    broker: FlakyBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = desk_of(scheduler, rules(max_late=10))
    live(scheduler, desk, NOON + MINUTE - 5 * SECOND)
    broker.down = True
    live(scheduler, desk, NOON + 3 * MINUTE + 30 * SECOND)
    broker.down = False
    live(scheduler, desk, NOON + 5 * MINUTE)

    assert told(caplog) == ["missed", "late"]
    assert "2 slots from 15 Jan 12:01:00 UTC" in caplog.text
    assert scheduler.pulse.alerts == {"missed": 1, "late": 1}


def test_what_history_says_is_what_alerts_say(
    scheduler: Scheduler,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = desk_of(scheduler, rules(failures=2), results)
    for minute, state in enumerate(["FAILURE", "FAILURE", "SUCCESS", "FAILURE"], 1):
        results.states[id_of(NOON + minute * MINUTE)] = state

    live(scheduler, desk, NOON + 5 * MINUTE)

    assert told(caplog) == ["failed", "recovered"]


def test_an_entry_that_is_refused_is_told(
    clock: FakeClock, broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    desk = desk_of(scheduler, rules())
    broker.closed["celery"] = "it is another program's"
    live(scheduler, desk, NOON + 3 * MINUTE)

    assert told(caplog) == ["missed"]
    assert "it is refused, and tried again" in caplog.text


def test_runs_that_are_open_are_asked_for_in_one_request_each_few_seconds(
    scheduler: Scheduler, results: FakeResults
) -> None:
    desk = desk_of(scheduler, rules(), results)

    live(scheduler, desk, NOON + 11 * MINUTE)

    # 10 runs whose ends nobody tells.
    assert len(results.asked) < 150
    assert max(map(len, results.asked)) > 1


def test_without_a_rule_nothing_is_read(
    scheduler: Scheduler, broker: FlakyBroker, results: FakeResults
) -> None:
    desk = desk_of(scheduler, type(rules())(), results)

    live(scheduler, desk, NOON + 3 * MINUTE)

    assert results.asked == []
    assert broker.read_notes(BOOK) == {}


# Fail-overs --------------------------------------------------------------------------


def test_whoever_leads_next_goes_on_with_counts_and_open_runs(
    scheduler: Scheduler,
    clock: FakeClock,
    broker: FlakyBroker,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rule = rules(failures=3)
    results.states = {id_of(NOON + MINUTE): "FAILURE"}
    live(scheduler, desk_of(scheduler, rule, results), NOON + 2 * MINUTE + 10 * SECOND)
    assert told(caplog) == []
    scheduler.stop()

    other, its_desk = takes_over(broker, clock, rule, results)
    results.states[id_of(NOON + 2 * MINUTE)] = "FAILURE"  # was open
    results.states[id_of(NOON + 3 * MINUTE)] = "FAILURE"
    live(other, its_desk, NOON + 4 * MINUTE)

    assert told(caplog) == ["failed"]
    assert "the 3rd in a row" in caplog.text


def test_an_alert_is_told_once_across_a_fail_over(
    scheduler: Scheduler,
    clock: FakeClock,
    broker: FlakyBroker,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rule = rules()
    results.states = {id_of(NOON + MINUTE): "FAILURE"}
    live(scheduler, desk_of(scheduler, rule, results), NOON + 90 * SECOND)
    scheduler.stop()
    assert told(caplog) == ["failed"]

    other, its_desk = takes_over(broker, clock, rule, results)
    live(other, its_desk, NOON + 2 * MINUTE)

    assert told(caplog) == ["failed"]


def test_what_a_leader_folded_and_did_not_look_at_is_told_by_the_next_one(
    scheduler: Scheduler,
    clock: FakeClock,
    broker: FlakyBroker,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rule = rules()
    desk = desk_of(scheduler, rule, results)
    live(scheduler, desk, NOON + 90 * SECOND)
    while clock.now() < NOON + 150 * SECOND:  # its thread does not get a turn any more
        scheduler.tick(clock.now())
        clock.go_to(clock.now() + SECOND)
    scheduler.stop()
    assert broker.read_pages(9) == []

    results.states[id_of(NOON + 2 * MINUTE)] = "FAILURE"
    other, its_desk = takes_over(broker, clock, rule, results)
    live(other, its_desk, NOON + 170 * SECOND)

    assert told(caplog) == ["failed"]


def test_what_was_not_told_yet_is_told_by_whoever_leads_next(
    scheduler: Scheduler, clock: FakeClock, broker: FlakyBroker, results: FakeResults
) -> None:
    rule = rules(command=["true"])
    results.states = {id_of(NOON + MINUTE): "FAILURE"}
    live(scheduler, desk_of(scheduler, rule, results), NOON + 90 * SECOND)
    scheduler.stop()

    other, its_desk = takes_over(broker, clock, rule, results)
    live(other, its_desk, NOON + 100 * SECOND)

    [parcel] = its_desk.courier.waiting(9)
    assert (parcel.way, parcel.event.kind) == ("command", "failed")
    assert its_desk.courier.turn() is None
    live(other, its_desk, NOON + 110 * SECOND)
    third, again = takes_over(broker, clock, rule, results)
    other.stop()
    live(third, again, NOON + 120 * SECOND)
    assert again.courier.waiting(9) == []


def test_what_was_told_is_noted_at_once(
    scheduler: Scheduler, broker: FlakyBroker, results: FakeResults
) -> None:
    """Until it is noted, whoever leads next would tell it again."""
    desk = desk_of(scheduler, rules(command=["true"]), results)
    results.states = {id_of(NOON + MINUTE): "FAILURE"}
    live(scheduler, desk, NOON + 90 * SECOND)
    desk._bell.clear()

    desk.courier.turn()

    assert desk._bell.is_set()
    assert read(broker.read_notes(BOOK))[0].parcels
    desk.turn()
    assert not read(broker.read_notes(BOOK))[0].parcels


def test_a_standby_tells_nothing(
    scheduler: Scheduler, clock: FakeClock, broker: FlakyBroker, results: FakeResults
) -> None:
    desk = desk_of(scheduler, rules(), results)
    live(scheduler, desk, NOON + 90 * SECOND)
    standby, its_desk = takes_over(broker, clock, rules(), results)
    asked = len(results.asked)

    for _ in range(30):
        standby.tick(clock.now())
        its_desk.turn()

    assert standby.leadership.term is None
    assert len(results.asked) == asked


def test_who_lost_the_lead_writes_nothing(
    scheduler: Scheduler, clock: FakeClock, broker: FlakyBroker, results: FakeResults
) -> None:
    desk = desk_of(scheduler, rules(), results)
    live(scheduler, desk, NOON + 90 * SECOND)
    clock.go_to(NOON + 10 * MINUTE)  # it was paused
    other, its_desk = takes_over(broker, clock, rules(), results)
    live(other, its_desk, NOON + 11 * MINUTE)
    before = broker.read_notes(BOOK)

    desk.take(99, clock.now(), [("tick", Record(NOON, 0))])
    desk.turn()

    assert broker.read_notes(BOOK) == before


def test_a_broker_that_was_set_back_has_its_pages_looked_at_again(
    scheduler: Scheduler, clock: FakeClock, broker: FlakyBroker, results: FakeResults
) -> None:
    desk = desk_of(scheduler, rules(failures=1), results)
    live(scheduler, desk, NOON + 70 * SECOND)
    kept = broker.snapshot()
    live(scheduler, desk, NOON + 4 * MINUTE)
    broker.restore(kept)
    for minute in (5, 6):
        results.states[id_of(NOON + minute * MINUTE)] = "FAILURE"

    live(scheduler, desk, NOON + 7 * MINUTE)

    assert scheduler.pulse.alerts["failed"] == 1


def test_what_is_known_of_an_entry_goes_with_it(
    scheduler: Scheduler, clock: FakeClock, broker: FlakyBroker, results: FakeResults
) -> None:
    results.states = {id_of(NOON + MINUTE): "FAILURE"}
    live(scheduler, desk_of(scheduler, rules(), results), NOON + 90 * SECOND)
    assert "tick" in broker.read_notes(BOOK)
    scheduler.stop()

    other = scheduler_of(entry("tock", Every(MINUTE)), broker=broker, clock=clock)
    live(other, desk_of(other, rules(), results), NOON + 100 * SECOND)

    assert "tick" not in broker.read_notes(BOOK)


# Faults ------------------------------------------------------------------------------


def test_results_that_do_not_answer_are_asked_again(
    scheduler: Scheduler,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = desk_of(scheduler, rules(), results)
    results.states = {id_of(NOON + MINUTE): "FAILURE"}
    away = True
    load = results.load

    def answer(ids: list[str]) -> object:
        if away:
            raise ResultUnavailable("nobody answers")
        return load(ids)

    monkeypatch.setattr(results, "load", answer)
    live(scheduler, desk, NOON + 90 * SECOND)
    away = False
    live(scheduler, desk, NOON + 120 * SECOND)

    assert told(caplog) == ["failed"]
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events.count("alerts.results.lost") == 1
    assert events.count("alerts.results.back") == 1


def test_a_broker_that_refuses_notes_holds_up_no_alert_and_no_emission(
    scheduler: Scheduler,
    broker: FlakyBroker,
    results: FakeResults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = desk_of(scheduler, rules(), results)
    results.states = {id_of(NOON + MINUTE): "FAILURE"}

    def refuse(*_: object) -> None:
        raise BrokerUnavailable("read only")

    monkeypatch.setattr(broker, "write_notes", refuse)
    live(scheduler, desk, NOON + 3 * MINUTE)

    assert scheduler.pulse.alerts == {"failed": 1}
    assert len(broker.slots()) == 2


def test_a_note_that_cannot_be_read_is_passed_over(
    scheduler: Scheduler,
    broker: FlakyBroker,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker.write_notes(BOOK, {"": b"\xc1", "tick": b"\xc1"})
    results.states = {id_of(NOON + MINUTE): "FAILURE"}

    live(scheduler, desk_of(scheduler, rules(), results), NOON + 90 * SECOND)

    assert told(caplog) == ["unreadable", "unreadable", "failed"]


def test_more_records_than_may_wait_are_dropped_counted_and_said(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    desk = desk_of(scheduler, rules())
    records: list[Told] = [("tick", Record(NOON + at, 0)) for at in range(2000)]
    for number in range(10):
        desk.take(number, NOON, records)

    assert scheduler.pulse.alerts_dropped == 20_000 - desks.MOST_RECORDS
    assert told(caplog) == ["dropped"]


def test_no_more_pages_wait_than_may_whatever_they_tell(scheduler: Scheduler) -> None:
    desk = desk_of(scheduler, rules())
    for number in range(desks.MOST_RECORDS + 1):
        desk.take(number, NOON, [])

    assert len(desk._take_pages()) == desks.MOST_RECORDS


def test_nobody_tells_of_ignored_results_and_that_is_said_once(
    scheduler: Scheduler, results: FakeResults, caplog: pytest.LogCaptureFixture
) -> None:
    desk = desk_of(scheduler, rules(), results)

    caplog.set_level(logging.WARNING)
    live(scheduler, desk, NOON + 110 * MINUTE)

    assert told(caplog) == ["unknown"]
    assert "nobody tells how runs of tick end" in caplog.text


# From messages to who holds them -----------------------------------------------------


def test_a_message_that_nobody_takes_is_told(
    clock: FakeClock,
    broker: FlakyBroker,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    desk = desk_of(scheduler, rules(max_wait=45), results)
    live(scheduler, desk, NOON + MINUTE + 30 * SECOND)
    assert told(caplog) == []

    live(scheduler, desk, NOON + 2 * MINUTE)
    assert told(caplog) == ["not_taken"]

    broker.join("w", MINUTE)
    broker.take("w", ["celery"], 10, 1)
    live(scheduler, desk, NOON + 4 * MINUTE - 10 * SECOND)
    assert told(caplog) == ["not_taken"]


def test_a_run_that_a_worker_holds_for_too_long_is_told(
    clock: FakeClock,
    broker: FlakyBroker,
    results: FakeResults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = template(MessageFormat(), Route("celery"), "tasks.tick", entry="tick")
    tick = replace(TICK, message=real)
    scheduler = scheduler_of(tick, broker=broker, clock=clock)
    desk = desk_of(scheduler, rules(max_run=30), results)
    live(scheduler, desk, NOON + 65 * SECOND)
    broker.join("w", 10 * MINUTE)
    broker.take("w", ["celery"], 1, 1)

    live(scheduler, desk, NOON + 2 * MINUTE)

    assert told(caplog) == ["too_long"]
