"""After an import, the first start emits what celery beat would have emitted next."""

from collections.abc import Callable
from datetime import datetime, timedelta
from math import inf
from typing import Any

import pytest
from celery import Celery
from celery import schedules as theirs
from hypothesis import given
from hypothesis import strategies as st

from beatd.brokers.memory import MemoryBroker
from beatd.config.celery_schedules import spec_of_theirs
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span, datetime_of
from beatd.migrate.found import FoundEntry, LastRun
from beatd.migrate.marks import mark_of, marks_of
from beatd.scheduler.bringing import bring
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every, EveryFromLast
from beatd.schedules.zones import zone_of
from beatd.timetable.ledger import Mark
from tests.fakes import NOON, FakeClock, FakeFile, FlakyBroker, entry, scheduler_of

UTC = zone_of("UTC")
APP = Celery(set_as_current=False)
FIELDS = {
    "minute": st.sampled_from(["*", "0", "*/5", "17", "1-9/3", "59"]),
    "hour": st.sampled_from(["*", "0", "*/6", "8-18", "23", "1,13"]),
    "day_of_week": st.sampled_from(["*", "mon-fri", "sun", "0,3"]),
    "day_of_month": st.sampled_from(["*", "1", "15,31", "*/10", "28-31"]),
    "month_of_year": st.sampled_from(["*", "*/3", "1,2", "6-12"]),
}
LAST_RUNS = st.integers(NOON, NOON + 400 * DAY)
LENGTHS = st.sampled_from([1, SECOND, MINUTE, HOUR, DAY, 40 * DAY]).flatmap(
    lambda most: st.integers(0, most)
)


def at(now: Instant) -> Callable[[], datetime]:
    return lambda: datetime_of(now)


def next_of_celery(schedule: Any, last: Instant, now: Instant) -> Instant:
    """Return when celery beat emits next, started at `now`."""
    due, seconds = schedule.is_due(datetime_of(last))
    return now if due else now + round(seconds * SECOND)


def first_emission(schedule: Schedule, last: Instant, now: Instant) -> Instant:
    """Return when beatd emits first, after an import and a start at `now`."""
    broker, clock = FlakyBroker(FakeClock(now)), FakeClock(now)
    one = entry("it", schedule)
    marks = marks_of([one], [FoundEntry("it", LastRun(last, runs=3))])

    assert bring(scheduler_of(one, broker=broker, clock=clock), marks) == ""
    scheduler = scheduler_of(one, broker=broker, clock=clock)
    scheduler.tick(now)
    if broker.slots():
        (slot,) = broker.slots()
        assert last < slot <= now
        return now
    following = scheduler.timetable.next_at()
    assert following is not None
    return following


@given(st.fixed_dictionaries(FIELDS), LAST_RUNS, LENGTHS)
def test_a_crontab_goes_on_as_celery_beat_would(
    fields: dict[str, str], last: Instant, away: Span
) -> None:
    now = last + away
    schedule: Any = theirs.crontab(**fields, nowfun=at(now), app=APP)
    spec: Any = spec_of_theirs(theirs.crontab(**fields), relative=False)

    ours = first_emission(spec.in_zone(UTC), last, now)

    assert abs(ours - next_of_celery(schedule, last, now)) <= SECOND


@given(st.integers(1, 100_000), LAST_RUNS, LENGTHS)
def test_an_interval_from_the_last_run_goes_on_as_celery_beat_would(
    seconds: int, last: Instant, away: Span
) -> None:
    now = last + away
    schedule = theirs.schedule(timedelta(seconds=seconds), nowfun=at(now), app=APP)

    ours = first_emission(EveryFromLast(seconds * SECOND), last, now)

    assert abs(ours - next_of_celery(schedule, last, now)) <= 1


@given(st.integers(1, 100_000), LAST_RUNS, LENGTHS)
def test_an_interval_from_the_epoch_keeps_half_of_it_between_both(
    seconds: int, last: Instant, away: Span
) -> None:
    """Its slots are others than celery beat's, so the nearest counts as run."""
    now, span = last + away, seconds * SECOND

    ours = first_emission(Every(span), last, now)

    assert ours - last > span // 2 - 1
    assert ours <= max(now, last + span + span // 2 + 1)


def test_what_is_overdue_is_emitted_once_at_the_first_start() -> None:
    now = NOON + 3 * DAY + 1

    assert first_emission(Every(HOUR), NOON, now) == now


def test_runs_of_another_scheduler_do_not_count_against_max_runs() -> None:
    last = LastRun(NOON, runs=5000)

    assert mark_of(entry("it", Every(HOUR)), last).runs == 5000
    assert mark_of(entry("it", Every(HOUR), max_runs=10), last).runs == 0


def test_an_entry_that_was_only_added_has_no_last_run() -> None:
    assert mark_of(entry("it", Every(HOUR)), LastRun(NOON, runs=0)).last is None


# Into the ledger


TICK = entry("tick", EveryFromLast(HOUR))


def mark(slot: Instant, runs: int = 1) -> Mark:
    return Mark(slot, TICK.schedule.fingerprint, runs, last=slot)


def test_broker_and_file_have_the_marks_and_the_lead_is_free() -> None:
    clock, file = FakeClock(), FakeFile()
    broker = FlakyBroker(clock)
    scheduler = scheduler_of(TICK, broker=broker, clock=clock, file=file)

    assert bring(scheduler, {"tick": mark(NOON - MINUTE)}) == ""

    assert broker.read_ledger().marks == file.marks == {"tick": mark(NOON - MINUTE)}
    assert broker.read_ledger().edition == file.edition
    assert broker.slots() == []
    assert broker.leader() is None
    assert not file.locked


@pytest.mark.parametrize(
    ("brought", "held"),
    [(NOON - 2 * HOUR, NOON - HOUR), (NOON - HOUR, NOON - HOUR), (NOON - 1, NOON - 1)],
)
def test_the_later_run_counts(brought: Instant, held: Instant) -> None:
    clock = FakeClock()
    broker = FlakyBroker(clock)
    for slot in (NOON - HOUR, brought):
        bring(scheduler_of(TICK, broker=broker, clock=clock), {"tick": mark(slot)})

    assert broker.read_ledger().marks["tick"].slot == held


def test_nothing_is_changed_while_a_scheduler_leads() -> None:
    clock = FakeClock()
    broker = FlakyBroker(clock)
    leader = scheduler_of(TICK, broker=broker, clock=clock)
    leader.tick(NOON)
    before = broker.read_ledger()

    theirs = bring(
        scheduler_of(TICK, broker=broker, clock=clock), {"tick": mark(NOON + 1)}
    )

    assert theirs == "here"
    assert broker.read_ledger() == before
    assert leader.tick(NOON + 1) < inf


def test_a_broker_without_a_ledger_may_have_a_leader_that_comes_back() -> None:
    """As at any first start: the import waits for it, and says so."""
    clock, waits = FakeClock(), []
    broker = MemoryBroker(clock)
    done = bring(
        scheduler_of(TICK, broker=broker, clock=clock),
        {"tick": mark(NOON - 1)},
        on_wait=lambda: waits.append(clock.now()),
    )

    assert done == ""
    assert len(waits) == 1
    assert clock.now() > NOON
    assert broker.read_ledger().marks["tick"].last == NOON - 1


def test_entries_that_never_ran_begin_with_the_first_start() -> None:
    clock = FakeClock()
    broker = FlakyBroker(clock)
    bring(scheduler_of(TICK, broker=broker, clock=clock), {})
    imported = broker.read_ledger().marks
    scheduler_of(TICK, broker=broker, clock=clock).tick(NOON)

    assert imported == {}
    assert broker.read_ledger().marks == {"tick": Mark(NOON, TICK.schedule.fingerprint)}


def test_each_of_several_schedulers_brings_the_runs_that_it_knows() -> None:
    clock, file = FakeClock(), FakeFile()
    broker, other = FlakyBroker(clock), entry("other", EveryFromLast(HOUR))
    theirs = Mark(NOON - HOUR, other.schedule.fingerprint, 3, last=NOON - HOUR)
    for marks in ({"tick": mark(NOON - MINUTE)}, {"other": theirs}):
        bring(scheduler_of(TICK, other, broker=broker, clock=clock, file=file), marks)

    both = {"tick": mark(NOON - MINUTE), "other": theirs}
    assert broker.read_ledger().marks == file.marks == both
