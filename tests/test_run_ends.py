"""Overlap rules never fall silent: each run ends, whoever is left to tell it."""

import threading
from collections.abc import Collection
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from beatd.brokers.items import Begin, Delivery
from beatd.clock import SystemClock, Wake
from beatd.ids import run_id
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.scheduler.asked import AskedAside
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from beatd.service.wiring.scheduler import ask_results_aside
from beatd.timetable.entry import Entry, Overlap
from tests.brokers.making import settle
from tests.fakes import NOON, FakeClock, FlakyBroker, entry, scheduler_of
from tests.servers import PATIENCE

RULES = pytest.mark.parametrize("rule", [Overlap.SKIP, Overlap.QUEUE_ONE])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def at(scheduler: Scheduler, instant: Instant) -> None:
    clock: Any = scheduler.clock
    clock.go_to(instant)
    scheduler.tick(instant)


def alone(
    rule: Overlap, *, options: dict[str, Any] | None = None, **more: Any
) -> Entry:
    """Build an entry of each minute whose message names it."""
    message = template(
        MessageFormat(), Route("celery"), "t", options=options or {}, entry="alone"
    )
    return replace(entry("alone", Every(MINUTE), overlap=rule, **more), message=message)


def leading(
    one: Entry, broker: FlakyBroker, clock: FakeClock, ttl: int | None = None
) -> Scheduler:
    """Build a scheduler that leads for long; results are kept for `ttl`."""
    scheduler = scheduler_of(one, broker=broker, clock=clock, ttl=10 * DAY)
    scheduler = replace(scheduler, result_ttl=ttl)
    scheduler.tick(clock.now())
    return scheduler


def first_run(one: Entry, broker: FlakyBroker, clock: FakeClock) -> Scheduler:
    """Build a scheduler that has emitted one run of the entry."""
    scheduler = leading(one, broker, clock)
    at(scheduler, NOON + MINUTE)
    assert len(broker.emitted) == 1
    return scheduler


def taken(broker: FlakyBroker, worker: str, lease: int = HOUR) -> Delivery:
    broker.join(worker, lease)
    [delivery] = broker.take(worker, ["celery"], 1, 1)
    return delivery


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "event", "") for record in caplog.records]


@RULES
def test_an_entry_goes_on_after_a_purge(
    broker: FlakyBroker, clock: FakeClock, rule: Overlap
) -> None:
    scheduler = first_run(alone(rule), broker, clock)

    broker.purge(["celery"])
    at(scheduler, NOON + 2 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


@RULES
def test_an_entry_goes_on_after_the_death_of_a_worker_that_acknowledged_early(
    broker: FlakyBroker, clock: FakeClock, rule: Overlap
) -> None:
    scheduler = first_run(alone(rule), broker, clock)
    delivery = taken(broker, "w1", lease=90 * SECOND)
    settle(
        broker,
        "w1",
        Begin(delivery, "alone", run_id("test", "alone", 0, NOON + MINUTE)),
    )
    at(scheduler, NOON + 2 * MINUTE)
    assert broker.slots() == [NOON + MINUTE]

    clock.go_to(NOON + 150 * SECOND)
    broker.recover()
    at(scheduler, NOON + 3 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 3 * MINUTE]


@RULES
def test_an_entry_that_was_removed_and_comes_back_is_new(
    broker: FlakyBroker, clock: FakeClock, rule: Overlap
) -> None:
    one = alone(rule)
    scheduler = first_run(one, broker, clock)

    scheduler.replace({}, (), ())
    at(scheduler, NOON + 2 * MINUTE)
    scheduler.replace({"alone": one}, (), ())
    at(scheduler, NOON + 2 * MINUTE + SECOND)
    at(scheduler, NOON + 3 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 3 * MINUTE]


@RULES
def test_a_run_of_which_nobody_tells_ends_with_the_time_that_results_are_kept(
    broker: FlakyBroker,
    clock: FakeClock,
    rule: Overlap,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where results are ignored: a worker of Celery's tells nothing then."""
    caplog.set_level("INFO")
    scheduler = leading(alone(rule), broker, clock, ttl=DAY)
    at(scheduler, NOON + MINUTE)
    taken(broker, "Celery's", lease=1)
    at(scheduler, NOON + DAY)
    assert len(broker.emitted) == 1

    at(scheduler, NOON + DAY + MINUTE)

    assert broker.slots()[1:] == [NOON + DAY + MINUTE]
    assert "run.lost" in names(caplog)


@RULES
def test_a_run_that_takes_longer_than_results_are_kept_has_not_ended(
    broker: FlakyBroker, clock: FakeClock, rule: Overlap
) -> None:
    scheduler = leading(alone(rule), broker, clock, ttl=HOUR)
    at(scheduler, NOON + MINUTE)
    taken(broker, "w1", lease=3 * HOUR)

    at(scheduler, NOON + 2 * HOUR)
    assert len(broker.emitted) == 1

    at(scheduler, NOON + 4 * HOUR)
    assert len(broker.emitted) == 2


@RULES
@pytest.mark.parametrize("options", [{"expires": 90}, {}], ids=["seconds", "next"])
def test_a_message_that_has_expired_is_no_run_unless_it_began(
    broker: FlakyBroker, clock: FakeClock, rule: Overlap, options: dict[str, Any]
) -> None:
    one = replace(alone(rule, options=options), expires_next=not options)
    scheduler = first_run(one, broker, clock)
    expired = NOON + (3 if options else 2) * MINUTE
    at(scheduler, expired - MINUTE // 2 - 1)
    assert len(broker.emitted) == 1

    at(scheduler, expired)
    assert broker.slots() == [NOON + MINUTE, expired]

    taken(broker, "w1")
    taken(broker, "w2")  # it has begun
    at(scheduler, expired + 5 * MINUTE)
    assert len(broker.emitted) == 2


@RULES
def test_a_run_that_is_older_than_the_overlap_timeout_counts_as_ended(
    broker: FlakyBroker,
    clock: FakeClock,
    rule: Overlap,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = first_run(alone(rule, overlap_timeout=150 * SECOND), broker, clock)
    taken(broker, "w1")  # a worker has it, and may have it for ever

    at(scheduler, NOON + 3 * MINUTE)
    assert broker.slots() == [NOON + MINUTE]
    at(scheduler, NOON + 4 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 4 * MINUTE]
    assert "run.timeout" in names(caplog)


def test_a_run_that_was_emitted_late_is_as_old_as_its_emission(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    one = alone(Overlap.SKIP, overlap_timeout=150 * SECOND, coalesce=False)
    scheduler = leading(one, broker, clock)
    at(scheduler, NOON + HOUR)
    assert broker.slots() == [NOON + MINUTE]

    at(scheduler, NOON + HOUR + MINUTE)

    assert broker.slots() == [NOON + MINUTE]


def test_a_scheduler_that_takes_over_goes_by_the_slot(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    one = alone(Overlap.SKIP, overlap_timeout=HOUR)
    first_run(one, broker, clock).stop()
    heir = leading(one, broker, clock)

    for minute in range(2, 70):
        at(heir, NOON + minute * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + HOUR + MINUTE]


# Asked aside


class Backend:
    """Results that answer when they are let."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.asked: SimpleQueue[Collection[str]] = SimpleQueue()
        self.may_answer = threading.Event()

    def __call__(self, runs: Collection[str]) -> Collection[str]:
        self.asked.put(runs)
        self.may_answer.wait(PATIENCE)
        return [run for run in runs if run in self.ended]


def test_results_that_hang_make_nobody_wait_and_an_answer_wakes() -> None:
    backend, news = Backend(), SimpleQueue[None]()
    aside = AskedAside(backend, lambda: news.put(None), SystemClock())
    backend.ended = {"id-1"}

    assert aside.ended(["id-1", "id-2"]) == []
    assert aside.unanswered(["id-1", "id-2", "id-3"]) == ["id-1", "id-2"]
    assert sorted(backend.asked.get(timeout=PATIENCE)) == ["id-1", "id-2"]
    assert aside.ended(["id-1", "id-2"]) == []
    backend.may_answer.set()
    news.get(timeout=PATIENCE)

    assert aside.ended(["id-1", "id-2"]) == ["id-1"]
    assert aside.unanswered(["id-1", "id-2"]) == []
    backend.ended = {"id-2"}
    news.get(timeout=PATIENCE)
    assert aside.ended(["id-1", "id-2"]) == ["id-1", "id-2"]
    aside.close()


def test_results_that_hang_delay_no_other_entry(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    backend, news = Backend(), SimpleQueue[None]()
    one, other = alone(Overlap.SKIP), entry("other", Every(MINUTE))
    scheduler = scheduler_of(one, other, broker=broker, clock=clock, ttl=DAY)
    scheduler.ended = backend
    aside = ask_results_aside(scheduler, lambda: news.put(None))
    scheduler.tick(NOON)
    for minute in (1, 2, 3):
        at(scheduler, NOON + minute * MINUTE)
    assert len(broker.slots("other")) == 3
    assert len(broker.slots("alone")) == 1

    backend.ended = {run_id("test", "alone", 0, NOON + MINUTE)}
    backend.may_answer.set()
    news.get(timeout=PATIENCE)
    at(scheduler, NOON + 4 * MINUTE)

    assert broker.slots("alone") == [NOON + MINUTE, NOON + 4 * MINUTE]
    aside.close()


def test_a_first_answer_is_awaited_for_a_moment_only(clock: FakeClock) -> None:
    backend = Backend()
    aside = AskedAside(backend, lambda: None, clock)
    aside.ended(["id-1"])
    assert aside.unanswered(["id-1"]) == ["id-1"]

    clock.go_to(NOON + SECOND)

    assert aside.unanswered(["id-1"]) == []
    backend.may_answer.set()
    aside.close()


def test_nobody_is_asked_about_runs_that_nobody_wants_to_know_of(
    clock: FakeClock,
) -> None:
    backend = Backend()
    backend.may_answer.set()
    aside = AskedAside(backend, lambda: None, clock)
    aside.close()  # asked by turns only
    aside.ended(["id-1"])
    assert aside.turn()

    clock.go_to(NOON + 10 * SECOND)

    assert not aside.turn()


def test_a_crash_is_said_and_runs_count_as_going_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crashed = threading.Event()

    def ask(runs: Collection[str]) -> Collection[str]:
        try:
            raise ZeroDivisionError
        finally:
            crashed.set()

    aside = AskedAside(ask, lambda: None, SystemClock())
    aside.ended(["id-1"])
    assert crashed.wait(PATIENCE)
    aside.close()

    assert aside.ended(["id-1"]) == []
    assert not aside.unanswered(["id-1"])
    assert "results.unasked" in names(caplog)


def test_a_slot_waits_for_the_first_answer_about_the_run_before_it(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = first_run(alone(Overlap.SKIP), broker, clock)
    scheduler.unanswered = lambda runs: runs
    at(scheduler, NOON + 2 * MINUTE)
    assert broker.slots() == [NOON + MINUTE]

    scheduler.unanswered = lambda runs: ()
    scheduler.ended = lambda runs: runs
    at(scheduler, NOON + 2 * MINUTE + SECOND)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_news_of_a_run_end_the_hold_at_once(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = first_run(alone(Overlap.QUEUE_ONE), broker, clock)
    at(scheduler, NOON + 2 * MINUTE)
    assert broker.slots() == [NOON + MINUTE]
    broker.purge(["celery"])
    clock.go_to(NOON + 2 * MINUTE + 10)
    inbox = SimpleQueue[Wake]()
    for wake in (Wake.LOOK, Wake.STOP):
        inbox.put(wake)

    scheduler.run(inbox, lambda: None)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert clock.now() == NOON + 2 * MINUTE + 10


# Said


def test_ten_slots_dropped_in_a_row_are_a_problem_until_one_is_emitted(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = first_run(alone(Overlap.SKIP), broker, clock)
    file: Any = scheduler.file
    for minute in range(2, 11):
        at(scheduler, NOON + minute * MINUTE)
    assert scheduler.held == {}
    assert file.held == {}

    for minute in (11, 12):
        at(scheduler, NOON + minute * MINUTE)

    assert scheduler.held.keys() == {"alone"}
    assert scheduler.held["alone"].startswith("11 slots in a row were dropped, as its")
    assert "overlap_timeout" in scheduler.held["alone"]
    assert file.held == scheduler.held
    assert names(caplog).count("hold.lasts") == 1
    broker.purge(["celery"])
    at(scheduler, NOON + 13 * MINUTE)
    assert scheduler.held == file.held == {}
    assert "hold.end" in names(caplog)


def test_slots_dropped_in_a_row_are_a_problem_whoever_led_meanwhile(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    one = alone(Overlap.SKIP)
    scheduler = first_run(one, broker, clock)
    for minute in range(2, 13):
        if minute in (5, 9):
            scheduler.stop()
            scheduler = leading(one, broker, clock)
        at(scheduler, NOON + minute * MINUTE)
        assert scheduler.held == {}

    for minute in (13, 14):
        at(scheduler, NOON + minute * MINUTE)

    assert scheduler.held["alone"].startswith(
        "none of its slots was let through for more than 10 of its periods, as its run"
    )
    assert names(caplog).count("hold.lasts") == 1


def test_a_hold_is_said_once_and_after_ten_periods_is_a_problem(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scheduler = first_run(alone(Overlap.QUEUE_ONE), broker, clock)
    for half in range(4, 25):
        at(scheduler, NOON + half * MINUTE // 2)
    assert names(caplog).count("hold.begin") == 1
    assert scheduler.held == {}

    at(scheduler, NOON + 12 * MINUTE + SECOND)

    assert scheduler.held["alone"].startswith("held for more than 10 of its periods")
    assert names(caplog).count("hold.lasts") == 1
    broker.purge(["celery"])
    at(scheduler, NOON + 12 * MINUTE + 2 * SECOND)
    assert scheduler.held == {}
    at(scheduler, NOON + 13 * MINUTE)
    assert names(caplog).count("hold.begin") == 2


def test_what_is_paused_or_only_awaited_is_not_held(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one = alone(Overlap.QUEUE_ONE)
    scheduler = first_run(one, broker, clock)
    scheduler.unanswered = lambda runs: runs
    at(scheduler, NOON + HOUR)
    assert "hold.begin" not in names(caplog)

    scheduler.unanswered = lambda runs: ()
    at(scheduler, NOON + HOUR + MINUTE)
    at(scheduler, NOON + 2 * HOUR)
    assert scheduler.held
    paused = replace(one, policy=replace(one.policy, enabled=False))
    scheduler.replace({"alone": paused}, (), ())
    for minute in (1, 2):
        at(scheduler, NOON + 2 * HOUR + minute * MINUTE)

    assert scheduler.held == {}
