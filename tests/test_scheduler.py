"""The loop: each slot once, whatever fails between two of its lines."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import count
from queue import SimpleQueue
from typing import Any, ClassVar, cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beatd.brokers.items import Emission, Emitted, Term, idle
from beatd.clock import Wake
from beatd.errors import BrokerUnavailable, TermOver
from beatd.ids import run_id
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span, datetime_of
from beatd.message import MessageFormat, template
from beatd.routing import Queue, Route
from beatd.scheduler.leadership import STANDBY_LOOK
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.step import BATCH
from beatd.schedules import cron
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Overlap
from beatd.timetable.ledger import LedgerCopy, Mark
from beatd.timetable.policy import Reason
from beatd.timetable.timetable import Timetable
from tests.fakes import (
    NOON,
    TTL,
    CountedSchedule,
    FakeClock,
    FakeFile,
    FlakyBroker,
    entry,
    scheduler_of,
    times_shown_in,
)

TICK = entry("tick", Every(MINUTE))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


@pytest.fixture
def scheduler(broker: FlakyBroker, clock: FakeClock) -> Scheduler:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    scheduler.tick(clock.now())
    return scheduler


def run_until(scheduler: Scheduler, end: Instant) -> None:
    """Run the scheduler as `beatd` does, until the clock shows `end`."""
    assert isinstance(scheduler.clock, FakeClock)
    scheduler.clock.end = end
    scheduler.run(SimpleQueue(), reload=lambda: None)


def at(scheduler: Scheduler, instant: Instant) -> None:
    """Let time pass until `instant`, with a tick whenever the loop asked for one."""
    assert isinstance(scheduler.clock, FakeClock)
    wake_at = scheduler.tick(scheduler.clock.now())
    while scheduler.clock.now() < instant:
        scheduler.clock.go_to(min(wake_at, instant))
        wake_at = scheduler.tick(scheduler.clock.now())


def stall_until(scheduler: Scheduler, instant: Instant) -> None:
    """Let the process stand still until `instant`, past the lead's end, and go on."""
    assert isinstance(scheduler.clock, FakeClock)
    scheduler.clock.go_to(instant)
    at(scheduler, instant + SECOND)


def test_a_day_has_1440_minutes(scheduler: Scheduler, broker: FlakyBroker) -> None:
    run_until(scheduler, NOON + DAY + 1)

    assert broker.slots() == list(range(NOON + MINUTE, NOON + DAY + 1, MINUTE))


def test_the_file_is_left_alone_while_nothing_is_due(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    class Noting(FakeFile):
        written: ClassVar[list[Instant]] = []

        def record(self, *what: Any) -> None:
            super().record(*what)
            if any(what):
                self.written.append(clock.now())

    file = Noting()
    scheduler = scheduler_of(TICK, broker=broker, clock=clock, file=file)
    at(scheduler, NOON + 2 * MINUTE + 30 * SECOND)

    assert file.written == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert file.edition == broker.read_ledger().edition


def test_a_slot_that_the_broker_did_not_take_stays_due(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    broker.down = True
    at(scheduler, NOON + MINUTE)
    broker.down = False
    at(scheduler, NOON + MINUTE + SECOND)

    assert broker.slots() == [NOON + MINUTE]


def test_a_slot_whose_answer_is_lost_is_not_emitted_twice(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    broker.loses_answers = True
    at(scheduler, NOON + MINUTE)
    broker.loses_answers = False
    at(scheduler, NOON + 2 * MINUTE)
    at(scheduler, NOON + 2 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert broker.read_ledger().marks["tick"].runs == 2


def test_a_slot_whose_answer_is_lost_for_long_is_not_counted_as_dropped(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    broker.loses_answers = True
    at(scheduler, NOON + 2 * MINUTE)
    broker.loses_answers = False
    at(scheduler, NOON + 2 * MINUTE + 2 * SECOND)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert isinstance(scheduler.file, FakeFile)
    assert scheduler.file.dropped == {}


def test_a_crash_after_the_emission_emits_nothing_twice(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    at(scheduler, NOON + MINUTE)
    # The process dies before it has written its schedule file; the lead runs out.
    clock.go_to(NOON + MINUTE + TTL)
    run_until(scheduler_of(TICK, broker=broker, clock=clock), NOON + 2 * MINUTE + 1)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_a_crash_before_the_first_slot_of_a_new_entry_loses_nothing(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    del scheduler  # it dies; its term had begun, and the ledger has the entry's mark
    clock.go_to(NOON + MINUTE + TTL)
    at(scheduler_of(TICK, broker=broker, clock=clock), NOON + MINUTE + TTL)

    assert broker.slots() == [NOON + MINUTE]


def test_a_broker_that_comes_back_empty_gets_the_ledger_of_the_file(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    file = FakeFile()
    run_until(scheduler_of(TICK, broker=broker, clock=clock, file=file), NOON + HOUR)
    emptied = FlakyBroker(clock)
    emptied.lose_all()

    at(scheduler_of(TICK, broker=emptied, clock=clock, file=file), NOON + HOUR + TTL)

    assert emptied.slots() == [NOON + HOUR]
    assert emptied.read_ledger().marks["tick"].slot == NOON + HOUR


def test_a_broker_that_comes_back_empty_gets_the_ledger_of_the_leader(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(MINUTE), coalesce=False)
    scheduler = scheduler_of(each, broker=broker, clock=clock)
    at(scheduler, NOON + 10 * MINUTE)

    broker.lose_all()
    at(scheduler, NOON + 12 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 13)]
    assert broker.read_ledger().marks["each"].runs == 12


def test_a_host_with_an_older_file_goes_on_from_the_brokers_ledger(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(MINUTE), coalesce=False)
    old = FakeFile()
    run_until(scheduler_of(each, broker=broker, clock=clock, file=old), NOON + MINUTE)
    kept = dict(old.marks)
    run_until(scheduler_of(each, broker=broker, clock=clock), NOON + HOUR)
    assert old.marks == kept

    at(scheduler_of(each, broker=broker, clock=clock, file=old), NOON + HOUR)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 61)]
    assert old.marks["each"].slot == NOON + HOUR


def test_a_lost_file_is_written_again_from_the_brokers_ledger(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    run_until(scheduler_of(TICK, broker=broker, clock=clock), NOON + HOUR + 1)
    fresh = FakeFile()

    at(scheduler_of(TICK, broker=broker, clock=clock, file=fresh), NOON + HOUR + SECOND)

    assert fresh.marks["tick"].slot == NOON + HOUR


def test_only_one_of_two_leads_and_the_other_takes_over(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    standby = scheduler_of(TICK, broker=broker, clock=clock)
    at(scheduler, NOON + MINUTE)
    at(standby, NOON + MINUTE)
    scheduler.stop()
    at(standby, NOON + 2 * MINUTE)

    assert standby.leadership.term is not None
    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


def standby_events(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = ("standby", "lead.left_over", "lead.taken")
    events = [getattr(record, "event", "") for record in caplog.records]
    return [event for event in events if event in told]


def test_who_loses_a_lead_that_nobody_takes_is_not_said_to_stand_by(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    scheduler.tick(clock.now())

    stall_until(scheduler, NOON + TTL + SECOND)

    assert scheduler.leadership.term is not None
    assert standby_events(caplog) == ["lead.taken", "lead.taken"]


def test_the_lead_of_a_process_that_has_ended_is_only_waited_for(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert isinstance(broker.acquire("the first", TTL, 0), Term)
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    scheduler.has_ended = lambda leader: leader == "the first"

    at(scheduler, NOON + TTL + SECOND)

    assert standby_events(caplog) == ["lead.left_over", "lead.taken"]


def test_what_a_standby_saw_outlives_the_leader_and_the_brokers_data(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(HOUR), coalesce=False)
    leader = scheduler_of(each, broker=broker, clock=clock)
    standby = scheduler_of(each, broker=broker, clock=clock)
    leader.tick(clock.now())
    standby.tick(clock.now())
    at(leader, NOON + HOUR + MINUTE)
    standby.tick(clock.now())

    broker.lose_all()
    clock.go_to(NOON + 2 * HOUR + SECOND)
    at(standby, clock.now() + TTL)

    assert broker.slots() == [NOON + HOUR, NOON + 2 * HOUR]


def test_a_standby_names_the_present_leader(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    first = broker.acquire("the first", DAY, 0)
    assert isinstance(first, Term)
    standby = scheduler_of(TICK, broker=broker, clock=clock)
    standby.tick(clock.now())
    assert standby.standing_by == "the first"

    broker.resign(first)
    broker.acquire("the second", DAY, 0)
    at(standby, NOON + 2 * MINUTE)

    assert standby.standing_by == "the second"


def test_an_emptied_ledger_does_not_take_the_place_of_what_a_standby_saw(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(HOUR), coalesce=False)
    standby = scheduler_of(each, broker=broker, clock=clock)
    scheduler_of(each, broker=broker, clock=clock).tick(clock.now())
    standby.tick(clock.now())

    broker.lose_all()
    broker.acquire("one that has not begun", HOUR, 0)
    clock.go_to(NOON + 30 * MINUTE)
    standby.tick(clock.now())
    clock.go_to(NOON + HOUR + MINUTE)
    at(standby, clock.now() + TTL)

    assert broker.slots() == [NOON + HOUR]


def test_an_emptied_broker_goes_back_to_the_former_leader_and_its_ledger(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(10 * SECOND), coalesce=False)
    leader = scheduler_of(each, broker=broker, clock=clock)
    standbys = [scheduler_of(each, broker=broker, clock=clock) for _ in range(2)]
    for scheduler in (leader, *standbys):
        scheduler.tick(clock.now())
    at(leader, NOON + 50 * SECOND)

    broker.lose_all()
    while clock.now() < NOON + 2 * MINUTE:
        for scheduler in (*standbys, leader):
            scheduler.tick(clock.now())
        clock.go_to(clock.now() + STANDBY_LOOK)

    assert leader.leadership.term is not None
    assert broker.slots() == [NOON + n * 10 * SECOND for n in range(1, 12)]


def test_what_another_leader_removed_counts_as_new_when_it_comes_back(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    file = FakeFile()  # on the one host of both schedulers
    standby = scheduler_of(TICK, broker=broker, clock=clock, file=file)
    standby.tick(clock.now())
    clock.go_to(NOON + TTL)
    leader = scheduler_of(
        entry("other", Every(MINUTE)), broker=broker, clock=clock, file=file
    )
    leader.tick(clock.now())
    standby.tick(clock.now())

    clock.go_to(NOON + HOUR + SECOND)
    standby.tick(clock.now())

    assert standby.leadership.term is not None
    assert broker.slots("tick") == []


def test_a_leader_that_was_paused_past_its_lock_emits_nothing(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    clock.go_to(NOON + TTL + 1)
    standby = scheduler_of(TICK, broker=broker, clock=clock)
    at(standby, NOON + MINUTE)

    scheduler.tick(clock.now())

    assert scheduler.leadership.term is None
    assert broker.slots() == [NOON + MINUTE]


def test_after_downtime_the_latest_slot_is_emitted_and_the_others_are_counted(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    stall_until(scheduler, NOON + HOUR)
    assert isinstance(scheduler.file, FakeFile)

    assert broker.slots() == [NOON + HOUR]
    assert scheduler.file.dropped == {("tick", Reason.COALESCED): 59}


@pytest.mark.parametrize(
    "schedule",
    [Every(SECOND), cron("* * * * * *").in_zone(ZoneInfo("Europe/Berlin"))],
    ids=["interval", "cron"],
)
def test_a_month_of_seconds_is_counted_to_the_last(
    broker: FlakyBroker, clock: FakeClock, schedule: Schedule
) -> None:
    file = FakeFile()
    often = entry("often", schedule)
    scheduler = scheduler_of(often, broker=broker, clock=clock, file=file)
    scheduler.tick(clock.now())

    clock.go_to(NOON + 30 * DAY)
    at(scheduler, NOON + 30 * DAY)
    scheduler.tick(clock.now())

    assert broker.slots() == [NOON + 30 * DAY]
    assert file.dropped == {("often", Reason.COALESCED): 30 * 24 * 3600 - 1}


def test_slots_that_many_entries_missed_are_counted_once(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    schedule = CountedSchedule()
    many = [entry(f"e{n}", schedule) for n in range(50)]
    scheduler = scheduler_of(*many, broker=broker, clock=clock)
    scheduler.tick(clock.now())
    schedule.asked.clear()

    stall_until(scheduler, NOON + HOUR)

    assert isinstance(scheduler.file, FakeFile)
    assert set(scheduler.file.dropped.values()) == {59}
    assert len(schedule.asked) < 250


def test_every_missed_slot_is_emitted_when_the_entry_says_so(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(MINUTE), coalesce=False)
    scheduler = scheduler_of(each, broker=broker, clock=clock)
    scheduler.tick(NOON)
    stall_until(scheduler, NOON + 5 * HOUR)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 301)]


def test_a_dropped_slot_stays_dropped_after_a_restart(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    paused = entry("tick", Every(MINUTE), enabled=False)
    scheduler = scheduler_of(paused, broker=broker, clock=clock)
    scheduler.tick(NOON)
    at(scheduler, NOON + MINUTE)
    scheduler.stop()

    at(scheduler_of(TICK, broker=broker, clock=clock), NOON + MINUTE + SECOND)

    assert broker.slots() == []


def test_that_an_entry_is_paused_is_said_once(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    paused = entry("tick", Every(MINUTE), enabled=False)
    scheduler = scheduler_of(paused, broker=broker, clock=clock)

    at(scheduler, NOON + 5 * MINUTE)
    told = [one for one in caplog.messages if "paused" in one]
    assert told == ["tick is paused by the config: its slots are dropped"]

    scheduler.replace({"tick": TICK}, keep=(), queues=())
    at(scheduler, NOON + 7 * MINUTE)
    scheduler.replace({"tick": paused}, keep=(), queues=())
    at(scheduler, NOON + 9 * MINUTE)
    assert caplog.text.count("is paused") == 2


@pytest.mark.parametrize(
    ("offset", "policy", "expected"),
    [
        (0, {}, 2 * MINUTE),
        (7 * SECOND, {}, 2 * MINUTE + 7 * SECOND),
        (90 * SECOND, {}, 2 * MINUTE + 90 * SECOND),
        (0, {"end": NOON + 2 * MINUTE}, 2 * MINUTE),
        (0, {"end": NOON + 2 * MINUTE - 1}, None),
        (0, {"max_runs": 2}, 2 * MINUTE),
        (0, {"max_runs": 1}, None),
    ],
    ids=[
        *("plain", "jitter", "jitter longer than the interval"),
        *("not the last", "last by end_time", "one of two", "last by max_runs"),
    ],
)
def test_a_message_that_expires_next_lives_until_the_next_one_is_emitted(
    broker: FlakyBroker,
    clock: FakeClock,
    offset: Span,
    policy: dict[str, Any],
    expected: Span | None,
) -> None:
    one = replace(
        entry("one", Every(MINUTE), offset=offset, **policy), expires_next=True
    )
    scheduler = scheduler_of(one, broker=broker, clock=clock)
    scheduler.tick(NOON)
    at(scheduler, NOON + MINUTE + offset)

    headers = json.loads(broker.emitted[0].message)["headers"]
    ends = None if expected is None else datetime_of(NOON + expected).isoformat()
    assert headers["expires"] == ends


@pytest.mark.parametrize("coalesce", [True, False])
def test_a_slot_whose_message_reaches_no_queue_is_dropped_and_is_no_run(
    broker: FlakyBroker,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    coalesce: bool,
) -> None:
    caplog.set_level("INFO")
    message = template(MessageFormat(), Route("", "media", "video"), "t")
    rules: dict[str, Any] = {
        "max_runs": 2,
        "overlap": Overlap.SKIP,
        "coalesce": coalesce,
    }
    lost = replace(entry("lost", Every(MINUTE), **rules), message=message)
    file = FakeFile()
    scheduler = scheduler_of(lost, broker=broker, clock=clock, file=file)
    scheduler.tick(NOON)
    for minute in (1, 2, 3):
        at(scheduler, NOON + minute * MINUTE)

    mark = scheduler.timetable.mark("lost")
    assert (mark.slot, mark.runs, mark.last) == (NOON + 3 * MINUTE, 0, None)
    assert file.marks["lost"] == broker.read_ledger().marks["lost"] == mark
    assert file.dropped == {("lost", "unroutable"): 3}
    said = [getattr(record, "event", "") for record in caplog.records]
    assert said.count("drop.unroutable") == 3
    assert broker.running(["lost"]) == {}

    broker.declare([Queue("q", "media", "direct", "video")])
    at(scheduler, NOON + 4 * MINUTE)

    assert broker.slots() == [NOON + 4 * MINUTE]
    mark = scheduler.timetable.mark("lost")
    assert (mark.runs, mark.last) == (1, NOON + 4 * MINUTE)
    assert file.marks["lost"] == broker.read_ledger().marks["lost"] == mark


def test_an_emission_is_late_by_what_is_beyond_its_jitter(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    spread = entry("spread", Every(MINUTE), offset=20 * SECOND)
    scheduler = scheduler_of(spread, broker=broker, clock=clock)

    at(scheduler, NOON + MINUTE + 20 * SECOND)

    said = {record.__dict__["event"]: record for record in caplog.records}
    assert said["emit.queued"].__dict__["late"] == 0
    (line,) = [line for line in caplog.messages if line.startswith("spread ")]
    assert line.endswith(" for 2027-01-15 12:01:00+00:00, 0 ms late")


def test_an_emission_is_said_with_task_id_queue_slot_and_lateness_in_words(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scheduler = scheduler_of(entry("report", Every(MINUTE)), broker=broker, clock=clock)
    scheduler.tick(NOON)

    with times_shown_in(ZoneInfo("Europe/Berlin")):
        # The lead ran out meanwhile: it is taken a quarter of a second later.
        stall_until(scheduler, NOON + MINUTE + 27_900 - STANDBY_LOOK)

    (record,) = [
        one for one in caplog.records if getattr(one, "event", "") == "emit.queued"
    ]
    id = run_id("test", "report", scheduler.era, NOON + MINUTE)
    assert record.getMessage() == (
        f"report queued: tasks.plain[{id}] in celery"
        " for 2027-01-15 13:01:00+01:00, 27.9 s late"
    )
    said = vars(record)
    assert (said["entry"], said["task"], said["id"]) == ("report", "tasks.plain", id)
    assert (said["queue"], said["slot"]) == ("celery", NOON + MINUTE)
    assert said["late"] == 27_900


def test_late_slots_that_reach_no_queue_are_all_counted(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    message = template(MessageFormat(), Route("", "media", "video"), "t")
    lost = replace(entry("lost", Every(MINUTE), coalesce=False), message=message)
    file = FakeFile()
    scheduler = scheduler_of(lost, broker=broker, clock=clock, file=file)
    scheduler.tick(NOON)

    stall_until(scheduler, NOON + 5 * MINUTE)

    assert scheduler.timetable.mark("lost").slot == NOON + 5 * MINUTE
    assert file.dropped == {("lost", "unroutable"): 5}


def test_an_entry_with_overlap_skip_waits_for_the_run_before_it(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    alone = entry("alone", Every(MINUTE), overlap=Overlap.SKIP)
    scheduler = scheduler_of(alone, broker=broker, clock=clock)
    scheduler.tick(NOON)
    at(scheduler, NOON + MINUTE)
    at(scheduler, NOON + 2 * MINUTE)
    broker.end_runs({"alone": run_id("test", "alone", 0, NOON + MINUTE)})
    at(scheduler, NOON + 3 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 3 * MINUTE]


def test_a_held_slot_is_emitted_when_the_run_before_it_ends(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    alone = entry("alone", Every(MINUTE), overlap=Overlap.QUEUE_ONE)
    scheduler = scheduler_of(alone, broker=broker, clock=clock)
    scheduler.tick(NOON)
    at(scheduler, NOON + MINUTE)
    at(scheduler, NOON + 2 * MINUTE)
    at(scheduler, NOON + 2 * MINUTE + 30 * SECOND)
    broker.end_runs({"alone": run_id("test", "alone", 0, NOON + MINUTE)})
    at(scheduler, NOON + 2 * MINUTE + 40 * SECOND)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


@pytest.mark.parametrize(
    ("overlap", "expected"), [(Overlap.SKIP, [1]), (Overlap.QUEUE_ONE, [1, 2, 3])]
)
def test_runs_that_may_not_overlap_do_not_when_they_catch_up(
    broker: FlakyBroker, clock: FakeClock, overlap: Overlap, expected: list[int]
) -> None:
    alone = entry("alone", Every(MINUTE), coalesce=False, overlap=overlap)
    scheduler = scheduler_of(alone, broker=broker, clock=clock)
    scheduler.tick(NOON)
    stall_until(scheduler, NOON + 3 * MINUTE)
    assert broker.slots() == [NOON + MINUTE]

    for n in (1, 2, 3):
        broker.end_runs({"alone": run_id("test", "alone", 0, NOON + n * MINUTE)})
        at(scheduler, clock.now() + SECOND)

    assert broker.slots() == [NOON + n * MINUTE for n in expected]


def test_a_run_that_the_results_say_has_ended_holds_nothing_up(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    alone = entry("alone", Every(MINUTE), overlap=Overlap.SKIP)
    scheduler = scheduler_of(alone, broker=broker, clock=clock)
    scheduler.ended = lambda task_ids: task_ids
    run_until(scheduler, NOON + 3 * MINUTE + 1)

    assert broker.slots() == [NOON + n * MINUTE for n in (1, 2, 3)]


def test_a_step_back_makes_intervals_go_on_in_a_new_era(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    at(scheduler, NOON + MINUTE)
    clock.step(-HOUR)
    run_until(scheduler, clock.now() + MINUTE + 1)

    assert broker.slots() == [NOON + MINUTE, NOON - HOUR + 2 * MINUTE]
    assert scheduler.era == broker.read_ledger().era == 1


def test_a_step_back_never_repeats_a_fixed_time(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    daily = entry(
        "daily", cron("30 12 * * *").in_zone(ZoneInfo("UTC"), hash_id="daily")
    )
    scheduler = scheduler_of(daily, broker=broker, clock=clock)
    run_until(scheduler, NOON + HOUR)
    clock.step(-HOUR)
    run_until(scheduler, NOON + 2 * DAY)

    half_past = NOON + 30 * MINUTE
    assert broker.slots() == [half_past, half_past + DAY]


def test_a_rewind_that_the_broker_did_not_hear_of_is_said_again(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    at(scheduler, NOON + MINUTE)
    clock.step(-HOUR)
    broker.down = True
    scheduler.tick(clock.now())
    broker.down = False
    run_until(scheduler, clock.now() + 2 * MINUTE)

    assert broker.slots()[-1] == NOON - HOUR + 2 * MINUTE


def test_a_rewind_that_was_cut_off_gives_no_id_to_two_emissions(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    class CutOff(FlakyBroker):
        def write_ledger(self, *request: Any) -> None:
            super().write_ledger(*request)
            if request[1]:
                clock.go_to(clock.now() + TTL - SECOND)
                self.down = True

    at(scheduler, NOON + MINUTE)
    clock.step(-HOUR)
    broker.__class__ = CutOff
    scheduler.tick(clock.now())
    broker.__class__, broker.down = FlakyBroker, False
    clock.step(HOUR)
    at(scheduler, NOON + 2 * MINUTE)

    ids = [json.loads(one.message)["headers"]["id"] for one in broker.emitted]
    assert len(ids) == len(set(ids)) == 2
    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


@pytest.mark.parametrize("ahead", [SECOND, 2 * DAY], ids=["new", "paused"])
def test_a_fixed_time_of_which_nothing_was_emitted_ahead_goes_on_from_now(
    broker: FlakyBroker, clock: FakeClock, ahead: Span
) -> None:
    noon = cron("0 12 * * *").in_zone(ZoneInfo("UTC"))
    paused = entry("daily", noon, enabled=False)
    clock.step(365 * DAY + SECOND)
    scheduler = scheduler_of(paused, broker=broker, clock=clock)
    at(scheduler, clock.now() + ahead)
    clock.step(NOON + SECOND - clock.now())
    scheduler.replace({"daily": entry("daily", noon)}, keep=(), queues=())

    run_until(scheduler, NOON + 2 * DAY + SECOND)

    assert broker.slots() == [NOON + DAY, NOON + 2 * DAY]


def test_a_ledger_that_is_written_late_sets_nothing_back(clock: FakeClock) -> None:
    class Holding(FlakyBroker):
        held: Any = None

        def write_ledger(self, *request: Any) -> None:
            if request[1] and self.held is None:
                self.held = request
                raise BrokerUnavailable("no answer")
            super().write_ledger(*request)

    broker = Holding(clock)
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    for instant in (NOON, NOON + SECOND, *(NOON + n * MINUTE for n in (1, 2, 3))):
        at(scheduler, instant)
    ledger = broker.read_ledger()

    assert scheduler.leadership.term is not None
    assert broker.held is not None
    with pytest.raises(TermOver):
        broker.write_ledger(*broker.held)
    assert broker.read_ledger() == ledger
    assert broker.slots() == [NOON + n * MINUTE for n in (1, 2, 3)]


def test_a_rewind_that_was_refused_counts_for_nothing_in_a_later_term(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    each = entry("each", Every(MINUTE), coalesce=False)
    slow = FakeClock()
    paused = scheduler_of(each, broker=broker, clock=slow)
    paused.tick(slow.now())
    clock.go_to(NOON + TTL + 1)
    other = scheduler_of(each, broker=broker, clock=clock)
    run_until(other, NOON + 10 * MINUTE + 1)
    slow.step(-HOUR)
    paused.tick(slow.now())  # its term is over, and it has not heard of it yet
    slow.step(HOUR)
    slow.go_to(clock.now())

    run_until(paused, NOON + 12 * MINUTE + 1)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 13)]


def test_a_ledger_that_lies_ahead_is_rewound_at_the_take_over(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    ahead = scheduler_of(TICK, broker=broker, clock=clock)
    run_until(ahead, NOON + HOUR + 1)
    late = FakeClock(NOON)
    behind = scheduler_of(TICK, broker=broker, clock=late)

    run_until(behind, NOON + MINUTE + 1)

    assert broker.slots()[-1] == NOON + MINUTE


def test_a_reload_keeps_the_place_of_what_did_not_change(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    at(scheduler, NOON + 59 * SECOND)
    hourly = entry("hourly", Every(HOUR))
    scheduler.replace({"tick": TICK, "hourly": hourly}, keep=(), queues=())
    at(scheduler, NOON + MINUTE)

    assert broker.slots() == [NOON + MINUTE]
    assert scheduler.timetable.mark("hourly").slot == NOON + 59 * SECOND


def test_a_reload_declares_the_queues_of_the_new_config(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    declared: list[list[str]] = []
    scheduler.takeover.declare = lambda queues: declared.append(
        [q.name for q in queues]
    )
    scheduler.tick(clock.now())

    scheduler.replace({"tick": TICK}, keep=(), queues=[Queue("reports")])
    scheduler.tick(clock.now())

    assert declared == [["reports"]]


def test_hundreds_of_queues_that_are_declared_slowly_do_not_cost_the_lead(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    declared: list[str] = []

    def declare(queues: Collection[Queue]) -> None:
        for queue in queues:
            clock.go_to(clock.now() + SECOND // 10)  # a question over a slow line
            declared.append(queue.name)

    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    queues = [Queue(f"q{n}") for n in range(300)]
    scheduler.replace({"tick": TICK}, keep=(), queues=queues)
    scheduler.takeover.declare = declare
    scheduler.takeover.on_declared = lambda: declared.append("all")

    scheduler.tick(clock.now())

    assert scheduler.leadership.term is not None
    assert broker.leader() == "here"
    assert declared == [*(queue.name for queue in queues), "all"]


def test_a_standby_takes_over_with_the_config_that_it_reloaded(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    standby = scheduler_of(TICK, broker=broker, clock=clock)
    standby.tick(clock.now())
    standby.replace({"tock": entry("tock", Every(MINUTE))}, keep=(), queues=())
    standby.tick(clock.now())
    at(scheduler, NOON + MINUTE)
    scheduler.stop()

    at(standby, NOON + 2 * MINUTE)

    assert broker.slots("tick") == [NOON + MINUTE]
    assert broker.slots("tock") == [NOON + 2 * MINUTE]


def test_an_entry_that_was_removed_and_comes_back_counts_as_new(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler.replace({}, keep=(), queues=())
    at(scheduler, NOON + MINUTE + SECOND)
    scheduler.replace({"tick": TICK}, keep=(), queues=())
    at(scheduler, NOON + 2 * MINUTE)

    assert broker.slots() == [NOON + 2 * MINUTE]


def test_a_bad_entry_keeps_its_place_in_the_ledger(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler.replace({}, keep=("tick",), queues=())
    at(scheduler, NOON + MINUTE + SECOND)
    scheduler.replace({"tick": TICK}, keep=(), queues=())
    at(scheduler, NOON + MINUTE + 2 * SECOND)

    assert broker.slots() == [NOON + MINUTE]


def test_a_changed_schedule_has_no_slots_in_the_past(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    at(scheduler, NOON + MINUTE)
    scheduler.replace({"tick": entry("tick", Every(SECOND))}, keep=(), queues=())
    at(scheduler, NOON + MINUTE + 2 * SECOND)

    assert broker.slots() == [
        NOON + MINUTE,
        *(NOON + MINUTE + n * SECOND for n in (1, 2)),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"end": NOON + 90 * SECOND}, {"end": NOON + DAY}),
        ({"end": NOON + 90 * SECOND}, {}),
        ({"max_runs": 1}, {"max_runs": 2}),
        ({"start": NOON + DAY}, {"start": NOON}),
    ],
    ids=["a later end", "no end any more", "one more run", "an earlier start"],
)
def test_changed_bounds_have_no_slots_in_the_past(
    broker: FlakyBroker, clock: FakeClock, before: dict[str, Any], after: dict[str, Any]
) -> None:
    bounded = entry("bounded", Every(MINUTE), **before)
    scheduler = scheduler_of(bounded, broker=broker, clock=clock)
    at(scheduler, NOON + 5 * MINUTE + SECOND)
    known = broker.slots()
    scheduler.replace(
        {"bounded": entry("bounded", Every(MINUTE), **after)}, keep=(), queues=()
    )
    at(scheduler, NOON + 5 * MINUTE + 2 * SECOND)
    assert broker.slots() == known

    at(scheduler, NOON + 6 * MINUTE)

    assert broker.slots() == [*known, NOON + 6 * MINUTE]


def test_bounds_that_stay_as_they_are_lose_no_slot_over_a_restart(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    bounded = entry("bounded", Every(MINUTE), start=NOON, end=NOON + DAY, max_runs=9)
    at(scheduler_of(bounded, broker=broker, clock=clock), NOON + MINUTE)
    clock.go_to(NOON + 2 * MINUTE + SECOND)
    equal = entry("bounded", Every(MINUTE), start=NOON, end=NOON + DAY, max_runs=9)
    at(scheduler_of(equal, broker=broker, clock=clock), NOON + 2 * MINUTE + TTL)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_the_file_is_locked_for_as_long_as_the_term_lasts(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    file = scheduler.file
    assert isinstance(file, FakeFile)
    assert file.locked

    clock.go_to(NOON + TTL + 1)
    for other in (scheduler_of(TICK, broker=broker, clock=clock), scheduler):
        other.tick(clock.now())

    assert scheduler.standing_by
    assert not file.locked


def test_who_emits_need_not_renew_the_lead_besides(
    clock: FakeClock,
) -> None:
    class Counting(FlakyBroker):
        renewals = 0

        def renew(self, term: Term, ttl: Span) -> bool:
            self.renewals += 1
            return super().renew(term, ttl)

    broker = Counting(clock)
    busy = scheduler_of(entry("busy", Every(SECOND)), broker=broker, clock=clock)
    run_until(busy, NOON + MINUTE)

    assert len(broker.slots()) == 59
    assert broker.renewals == 0


def test_a_lost_broker_is_said_once(
    scheduler: Scheduler, broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.down = True
    for second in range(60, 70):
        at(scheduler, NOON + second * SECOND)
    broker.down = False
    at(scheduler, NOON + 80 * SECOND)

    events = [getattr(record, "event", "") for record in caplog.records]
    assert events.count("broker.lost") == 1
    assert events.count("broker.back") == 1


def test_a_stop_gives_the_lead_back_although_the_broker_is_away(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    class Away(FlakyBroker):
        def resign(self, term: Term) -> None:
            raise BrokerUnavailable("nobody answers")

    broker.__class__ = Away
    inbox: SimpleQueue[Wake] = SimpleQueue()
    inbox.put(Wake.STOP)

    scheduler.run(inbox, reload=lambda: None)

    assert scheduler.leadership.term is None


def test_a_fault_of_ours_gives_the_lead_back(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    def fail(scheduler: Scheduler) -> None:
        raise ZeroDivisionError("a fault of ours")

    scheduler.on_tick = fail

    with pytest.raises(ZeroDivisionError):
        scheduler.run(SimpleQueue(), reload=lambda: None)
    assert broker.leader() is None
    assert isinstance(scheduler.file, FakeFile)
    assert not scheduler.file.locked


def test_a_stop_while_the_broker_is_away_asks_it_nothing_and_lets_go(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    class Holding(FlakyBroker):
        """Its lead is held by this process, too: as that of SQLite."""

        held = True

        def resign(self, term: Term) -> None:
            raise AssertionError("it would take its time to answer nothing")

        def let_go(self) -> None:
            self.held = False

    broker.__class__ = Holding
    broker.down = True
    at(scheduler, NOON + MINUTE)
    assert scheduler.outage

    scheduler.stop()

    assert isinstance(broker, Holding)
    assert not broker.held


def test_a_reload_is_asked_for_by_the_inbox(scheduler: Scheduler) -> None:
    asked = []
    inbox: SimpleQueue[Wake] = SimpleQueue()
    inbox.put(Wake.RELOAD)
    inbox.put(Wake.STOP)

    scheduler.run(inbox, reload=lambda: asked.append("reload"))

    assert asked == ["reload"]


def test_beginning_may_take_longer_than_the_lock_lives(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    class Slow(FlakyBroker):
        def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
            clock.go_to(clock.now() + TTL - SECOND)
            return super().read_ledger(on_part)

        def write_ledger(self, *request: Any) -> None:
            clock.go_to(clock.now() + TTL - SECOND)
            super().write_ledger(*request)

    broker.__class__ = Slow
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    scheduler.tick(clock.now())
    standby = scheduler_of(TICK, broker=broker, clock=clock)

    assert clock.now() > NOON + 2 * TTL
    assert standby.leadership.hold(0) is None
    at(scheduler, NOON + MINUTE)
    assert broker.slots() == [NOON + MINUTE]


def test_beginning_with_a_slow_file_keeps_the_lead(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    class Slow(FakeFile):
        def read(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
            for _ in range(5):
                clock.go_to(clock.now() + TTL - SECOND)
                on_part()
            return super().read()

        def rewrite(self, *ledger: Any, on_part: Callable[[], object] = idle) -> None:
            for _ in range(5):
                clock.go_to(clock.now() + TTL - SECOND)
                on_part()
            super().rewrite(*ledger)

    scheduler = scheduler_of(TICK, broker=broker, clock=clock, file=Slow())
    scheduler.tick(clock.now())
    clock.go_to(clock.now() + TTL - SECOND)
    standby = scheduler_of(TICK, broker=broker, clock=clock)

    assert standby.leadership.hold(0) is None


class SlowTimetable(Timetable):
    """Takes longer to set its entries back, or on, than a lead lives."""

    clock: FakeClock

    def rewind(
        self, now: Instant, tolerance: Span, on_part: Callable[[], object] = idle
    ) -> dict[str, Mark]:
        self._take_long(on_part)
        return super().rewind(now, tolerance)

    def catch_up(self, now: Instant, on_part: Callable[[], object] = idle) -> None:
        self._take_long(on_part)
        super().catch_up(now)

    def _take_long(self, on_part: Callable[[], object]) -> None:
        for _ in range(5):
            self.clock.go_to(self.clock.now() + TTL - SECOND)
            on_part()


def make_slow(scheduler: Scheduler) -> None:
    """Have the scheduler's timetable take long from now on."""
    vars(scheduler.timetable)["clock"] = scheduler.clock
    scheduler.timetable.__class__ = SlowTimetable


def test_setting_many_entries_back_keeps_the_lead(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    make_slow(scheduler)

    scheduler.tick(clock.now())

    assert scheduler.leadership.term is not None
    assert broker.leader() == "here"


def test_many_entries_that_catch_up_with_the_clock_keep_the_lead(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler.tick(clock.now())
    first = broker._term
    clock.step(HOUR)

    make_slow(scheduler)
    scheduler.tick(clock.now())

    assert broker.leader() == "here"
    assert broker._term == first


def test_catching_up_that_fails_half_way_is_done_anew(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    at(scheduler, NOON + HOUR)
    clock.step(-HOUR + MINUTE)
    scheduler.tick(clock.now())
    before = len(broker.slots())
    clock.step(HOUR - MINUTE)
    broker.down = True
    make_slow(scheduler)
    scheduler.tick(clock.now())
    broker.down = False
    scheduler.timetable.__class__ = Timetable
    for _ in range(20):
        clock.go_to(clock.now() + SECOND)
        scheduler.tick(clock.now())

    assert [slot for slot in broker.slots()[before:] if slot <= NOON + HOUR] == []


def test_a_ledger_that_is_read_in_many_parts_keeps_the_lead(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    class Large(FlakyBroker):
        def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
            for _ in range(5):
                clock.go_to(clock.now() + TTL - SECOND)
                on_part()
            return super().read_ledger(on_part)

    broker.__class__ = Large
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    scheduler.tick(clock.now())

    assert scheduler.leadership.term is not None
    assert broker.leader() == "here"


def test_beginning_slowly_is_not_taken_for_a_clock_set_back(
    scheduler: Scheduler, broker: FlakyBroker, clock: FakeClock
) -> None:
    class Slow(FlakyBroker):
        def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
            reads.append(clock.now())
            clock.go_to(clock.now() + TTL - SECOND)
            return super().read_ledger(on_part)

    reads: list[Instant] = []
    broker.__class__ = Slow
    scheduler.replace({"tick": TICK}, keep=(), queues=())

    scheduler.tick(clock.now())

    assert len(reads) == 1


def test_a_term_that_is_over_between_two_parts_of_a_step_doubles_nothing(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    class Fickle(FlakyBroker):
        def emit(
            self, term: Term, batch: Sequence[Emission], *rest: Any
        ) -> list[Emitted]:
            outcomes = super().emit(term, batch, *rest)
            self.resign(term)  # as if the lock had run out just now
            return outcomes

    each = [entry(f"e{n}", Every(MINUTE), coalesce=False) for n in range(15)]
    scheduler = scheduler_of(*each, broker=broker, clock=clock)
    scheduler.tick(clock.now())
    clock.go_to(NOON + 2 * HOUR)
    scheduler.tick(clock.now())
    broker.__class__ = Fickle
    scheduler.tick(clock.now())
    assert len(broker.slots()) == BATCH
    broker.__class__ = FlakyBroker

    at(scheduler, NOON + 2 * HOUR + SECOND)
    at(scheduler, NOON + 2 * HOUR + 5 * SECOND)

    for one in each:
        assert broker.slots(one.name) == [NOON + n * MINUTE for n in range(1, 121)]


def test_who_lost_the_lead_while_it_began_lets_go_of_the_file(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    class CutOff(FlakyBroker):
        def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
            raise BrokerUnavailable("the connection was cut")

    file = FakeFile()
    broker.__class__ = CutOff
    scheduler = scheduler_of(TICK, broker=broker, clock=clock, file=file)
    scheduler.tick(clock.now())
    assert file.locked
    broker.__class__ = FlakyBroker
    clock.go_to(NOON + TTL + 1)
    scheduler_of(TICK, broker=broker, clock=clock).tick(clock.now())

    at(scheduler, clock.now() + SECOND)

    assert not file.locked


def test_who_lost_the_lead_while_it_reloaded_lets_go_of_the_file(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    file = FakeFile()
    scheduler = scheduler_of(TICK, broker=broker, clock=clock, file=file)
    scheduler.tick(clock.now())
    clock.go_to(NOON + TTL + 1)
    scheduler_of(TICK, broker=broker, clock=clock).tick(clock.now())
    scheduler.replace({"tick": TICK}, keep=(), queues=())

    at(scheduler, clock.now() + SECOND)

    assert not file.locked


class Killed(BaseException):
    """The process is gone: nothing catches this, nothing is tidied up."""


class Mortal:
    """Stands before a broker or a file, and kills the process at one of its steps.

    Each call that changes something has two: before it is made, and after it is done.
    """

    EFFECTS = ("acquire", "resign", "emit", "write_ledger", "rewrite", "record")

    def __init__(self, inner: object, steps: Iterator[int], last: int) -> None:
        self._inner, self._steps, self._last = inner, steps, last

    def __getattr__(self, name: str) -> Any:
        if name not in self.EFFECTS:
            return getattr(self._inner, name)

        def call(*args: Any, **named: Any) -> Any:
            self._step()
            answer = getattr(self._inner, name)(*args, **named)
            self._step()
            return answer

        return call

    def _step(self) -> None:
        if next(self._steps) >= self._last:
            raise Killed


def killed_at(step: int, broker: FlakyBroker, clock: FakeClock) -> bool:
    """Run a scheduler until it is killed at that step, and another after it."""
    each = entry("each", Every(MINUTE), coalesce=False)
    paused = entry("paused", Every(MINUTE), enabled=False)
    alone = entry("alone", Every(MINUTE), overlap=Overlap.SKIP)
    file, steps = FakeFile(), count(1)
    at(scheduler_of(each, paused, alone, broker=broker, clock=clock), NOON + SECOND)
    clock.go_to(NOON + TTL + SECOND)
    mortal = scheduler_of(
        *(each, paused, alone),
        broker=cast(Any, Mortal(broker, steps, step)),
        clock=clock,
        file=cast(Any, Mortal(file, steps, step)),
    )
    alive = True
    try:
        run_until(mortal, NOON + 2 * MINUTE + 1)
    except Killed:
        alive = False
    heir = scheduler_of(each, paused, alone, broker=broker, clock=clock, file=file)
    run_until(heir, NOON + 3 * MINUTE + TTL)
    return not alive


def test_killed_at_any_step_of_broker_or_file_every_slot_comes_once() -> None:
    for step in count(1):
        clock = FakeClock()
        broker = FlakyBroker(clock)
        killed = killed_at(step, broker, clock)

        expected = [NOON + n * MINUTE for n in range(1, 4)]
        assert broker.slots("each") == expected, f"killed at step {step}"
        assert broker.slots("alone") == [NOON + MINUTE], f"killed at step {step}"
        assert broker.slots("paused") == []
        marks = broker.read_ledger().marks
        assert {name: mark.slot for name, mark in marks.items()} == dict.fromkeys(
            ["each", "paused", "alone"], expected[-1]
        ), f"killed at step {step}"
        if not killed:
            break
    assert step > 20


class Faults(RuleBasedStateMachine):
    """Two schedulers, each with its file, and one broker, under faults in any order.

    Crashes, pauses, lost answers and an absent broker come between any two ticks. The
    entry wants each of its slots, so that the queue shows what is lost or doubled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.broker = FlakyBroker(self.clock)
        self.files = [FakeFile(), FakeFile()]
        self.each = entry("each", Every(SECOND), coalesce=False)
        self.schedulers = [self.fresh(0), self.fresh(1)]
        self.schedulers[0].tick(self.clock.now())

    def fresh(self, number: int) -> Scheduler:
        file = self.files[number]
        return scheduler_of(self.each, broker=self.broker, clock=self.clock, file=file)

    @rule(number=st.integers(0, 1), pause=st.integers(1, 20_000))
    def tick(self, number: int, pause: Span) -> None:
        self.clock.go_to(self.clock.now() + pause)
        self.schedulers[number].tick(self.clock.now())

    @rule(number=st.integers(0, 1))
    def crash(self, number: int) -> None:
        self.schedulers[number] = self.fresh(number)

    @rule(number=st.integers(0, 1))
    def lose_the_file(self, number: int) -> None:
        self.files[number] = FakeFile()
        self.schedulers[number] = self.fresh(number)

    @rule(down=st.booleans())
    def cut(self, down: bool) -> None:
        self.broker.down = down

    @rule(lost=st.booleans())
    def lose_answers(self, lost: bool) -> None:
        self.broker.loses_answers = lost

    @rule(number=st.integers(0, 1))
    def stop_and_start(self, number: int) -> None:
        self.schedulers[number].stop()
        self.schedulers[number] = self.fresh(number)

    @invariant()
    def every_slot_up_to_the_last_was_emitted_once(self) -> None:
        slots = self.broker.slots()
        assert slots == list(
            range(NOON + SECOND, NOON + SECOND * (len(slots) + 1), SECOND)
        )

    def teardown(self) -> None:
        """All is well again: what is due comes out within a few ticks."""
        self.broker.down = self.broker.loses_answers = False
        self.clock.go_to(self.clock.now() + TTL)
        end = self.clock.now()
        for _ in range(100):
            for scheduler in self.schedulers:
                scheduler.tick(end)
        self.every_slot_up_to_the_last_was_emitted_once()
        assert self.broker.slots()[-1:] == [end // SECOND * SECOND] or end == NOON


Faults.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestFaults = Faults.TestCase


class FakeListener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Emission] = []
        self.is_closed = False

    def emitted(self, emissions: Sequence[Emission]) -> None:
        self.told += emissions

    def close(self) -> None:
        self.is_closed = True


def test_a_listener_is_told_what_was_queued_and_nothing_else(
    scheduler: Scheduler, broker: FlakyBroker
) -> None:
    listener = scheduler.listener = FakeListener()
    at(scheduler, NOON + MINUTE)
    broker.loses_answers = True
    at(scheduler, NOON + 2 * MINUTE)  # queued, but the answer is lost
    broker.loses_answers = False
    at(scheduler, NOON + 3 * MINUTE)
    scheduler.stop()

    told = [emission.mark.slot for emission in listener.told]
    assert told == [NOON + MINUTE, NOON + 3 * MINUTE]
    assert listener.is_closed
