"""Clocks that step, or differ: no slot has two ids, and nothing waits for 2098."""

import json
from queue import SimpleQueue
from zoneinfo import ZoneInfo

import pytest

from beatd.brokers.items import HeldLead, Term
from beatd.clock import SystemClock, Wake
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span
from beatd.scheduler.loop import Scheduler
from beatd.schedules import cron
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Mark
from tests.fakes import (
    NOON,
    TTL,
    FakeClock,
    FakeFile,
    FlakyBroker,
    entry,
    scheduler_of,
)

YEAR = 365 * DAY

EACH = entry("each", Every(MINUTE), coalesce=False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def daily(text: str) -> Schedule:
    return cron(text).in_zone(ZoneInfo("UTC"))


def pass_time(scheduler: Scheduler, length: Span) -> None:
    """Let time pass, with a tick whenever the loop asks for one."""
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    end = clock.now() + length
    wake_at = scheduler.tick(clock.now())
    while clock.now() < end:
        clock.go_to(min(max(wake_at, clock.now() + 1), end))
        wake_at = scheduler.tick(clock.now())


def test_one_tick_that_shows_the_year_2098_stops_no_daily_entry(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    one = entry("daily", daily("30 12 * * *"))
    scheduler = scheduler_of(one, broker=broker, clock=clock)
    scheduler.tick(NOON)
    clock.step(71 * YEAR)
    scheduler.tick(clock.now())  # its lead has run out, by that clock
    scheduler.tick(clock.now())
    clock.step(-71 * YEAR)
    ahead = broker.slots()

    pass_time(scheduler, 2 * DAY)

    half_past = NOON + 30 * MINUTE
    assert len(ahead) == 1
    assert broker.slots() == [*ahead, half_past, half_past + DAY]


@pytest.mark.parametrize(
    ("back", "again"), [(3 * HOUR - MINUTE, False), (4 * HOUR, True)]
)
def test_a_fixed_time_waits_for_three_hours_and_not_longer(
    broker: FlakyBroker, clock: FakeClock, back: Span, again: bool
) -> None:
    one = entry("daily", daily("30 10,12 * * *"))
    scheduler = scheduler_of(one, broker=broker, clock=clock)
    pass_time(scheduler, HOUR)
    half_past = NOON + 30 * MINUTE
    clock.step(half_past - back - clock.now())

    pass_time(scheduler, 5 * HOUR)

    repeated = [half_past - 2 * HOUR, half_past] if again else []
    assert broker.slots() == [half_past, *repeated]


def test_two_hosts_ten_seconds_apart_name_no_slot_twice(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    fast = FakeClock(NOON + 10 * SECOND)
    ahead = scheduler_of(EACH, broker=broker, clock=fast)
    pass_time(ahead, 50 * SECOND)  # it is 12:01:00 there
    ahead.stop()
    clock.go_to(NOON + 51 * SECOND)

    pass_time(scheduler_of(EACH, broker=broker, clock=clock), 5 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 6)]


def test_a_schedule_that_changes_and_changes_back_names_no_slot_twice(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    fast = FakeClock(NOON + 10 * SECOND)
    ahead = scheduler_of(EACH, broker=broker, clock=fast)
    pass_time(ahead, 50 * SECOND)  # it is 12:01:00 there
    ahead.stop()
    other = scheduler_of(entry("each", Every(HOUR)), broker=broker, clock=fast)
    other.tick(fast.now())
    other.stop()
    clock.go_to(NOON + 51 * SECOND)

    pass_time(scheduler_of(EACH, broker=broker, clock=clock), 5 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 6)]


def test_slots_of_a_schedule_that_changes_back_are_new_runs_if_they_are_named_again(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    ahead = scheduler_of(EACH, broker=broker, clock=FakeClock(NOON + 10 * SECOND))
    pass_time(ahead, 50 * SECOND)  # it is 12:01:00 there
    ahead.stop()
    clock.go_to(NOON + 51 * SECOND)
    quick = entry("each", Every(2 * SECOND), coalesce=False)
    scheduler = scheduler_of(quick, broker=broker, clock=clock)
    pass_time(scheduler, 2 * SECOND)

    scheduler.replace({EACH.name: EACH}, (), ())
    pass_time(scheduler, 10 * SECOND)

    minute = NOON + MINUTE
    assert broker.slots() == [minute, NOON + 52 * SECOND, minute]
    ids = [json.loads(one.message)["headers"]["id"] for one in broker.emitted]
    assert len({*ids}) == len(ids)


def removed_by_a_host_ten_seconds_behind(
    one: Entry, broker: FlakyBroker, clock: FakeClock
) -> Scheduler:
    """Return who leads at 12:00:51 without the entry, emitted up to 12:01:00."""
    ahead = scheduler_of(one, broker=broker, clock=FakeClock(NOON + 10 * SECOND))
    pass_time(ahead, 50 * SECOND)
    ahead.stop()
    clock.go_to(NOON + 51 * SECOND)
    scheduler = scheduler_of(broker=broker, clock=clock)
    scheduler.tick(clock.now())
    return scheduler


def test_an_entry_that_is_removed_and_comes_back_names_no_slot_twice(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = removed_by_a_host_ten_seconds_behind(EACH, broker, clock)
    pass_time(scheduler, 2 * SECOND)
    scheduler.replace({}, (), ())  # its row stays for as long as it is needed
    pass_time(scheduler, 2 * SECOND)

    scheduler.replace({EACH.name: EACH}, (), ())
    pass_time(scheduler, 5 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 6)]
    assert scheduler.era == 0


def test_slots_of_an_entry_that_comes_back_are_new_runs_if_they_are_named_again(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    quick = entry("quick", Every(2 * SECOND), coalesce=False)
    scheduler = removed_by_a_host_ten_seconds_behind(quick, broker, clock)

    scheduler.replace({"quick": quick}, (), ())
    pass_time(scheduler, 10 * SECOND)

    again = [NOON + second * SECOND for second in range(52, 61, 2)]
    assert broker.slots()[-5:] == again == broker.slots()[-10:-5]
    ids = [json.loads(one.message)["headers"]["id"] for one in broker.emitted]
    assert len({*ids}) == len(ids)


def test_an_entry_that_comes_back_after_the_slots_of_a_clock_ahead_is_new(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    one = entry("each", Every(MINUTE), coalesce=False, run_on_start=True)
    scheduler = removed_by_a_host_ten_seconds_behind(one, broker, clock)
    before = broker.slots()
    pass_time(scheduler, 3 * MINUTE)

    scheduler.replace({"each": one}, (), ())
    back = clock.now()
    pass_time(scheduler, MINUTE)

    assert broker.slots() == [*before, back, NOON + 4 * MINUTE]
    assert broker.read_ledger().marks["each"].runs == 2


@pytest.mark.parametrize("later", [SECOND, DAY])
def test_an_entry_that_was_removed_before_the_clock_is_set_back_repeats_no_slot(
    broker: FlakyBroker, clock: FakeClock, later: Span
) -> None:
    clock.go_to(NOON + 10 * SECOND)
    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    pass_time(scheduler, 51 * SECOND)
    scheduler.replace({}, (), ())
    pass_time(scheduler, SECOND)
    clock.go_to(clock.now() + later)
    pass_time(scheduler, SECOND)  # another term begins
    clock.step(-10 * SECOND - later)
    pass_time(scheduler, SECOND)

    scheduler.replace({EACH.name: EACH}, (), ())
    pass_time(scheduler, 5 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 6)]


@pytest.mark.parametrize("meanwhile", [None, Every(HOUR)])
@pytest.mark.parametrize("ahead", [40 * SECOND, 3 * MINUTE])
def test_an_entry_that_comes_back_under_a_clock_ahead_names_each_slot_once(
    broker: FlakyBroker, clock: FakeClock, ahead: Span, meanwhile: Schedule | None
) -> None:
    clock.go_to(NOON + MINUTE - SECOND)
    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    pass_time(scheduler, 2 * SECOND)
    other = {} if meanwhile is None else {"each": entry("each", meanwhile)}
    scheduler.replace(other, (), ())
    pass_time(scheduler, SECOND)
    clock.go_to(NOON + ahead + 30 * SECOND)
    scheduler.replace({EACH.name: EACH}, (), ())
    pass_time(scheduler, SECOND)

    clock.step(-ahead)
    pass_time(scheduler, 5 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 6)]


def test_a_schedule_that_changes_beside_a_clock_some_seconds_ahead_loses_no_slot(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    ahead = scheduler_of(EACH, broker=broker, clock=FakeClock(NOON + 2 * SECOND))
    pass_time(ahead, 58 * SECOND)  # it is 12:01:00 there
    ahead.stop()
    clock.go_to(NOON + 58 * SECOND)
    quick = entry("each", Every(MINUTE, 59 * SECOND), coalesce=False)
    scheduler = scheduler_of(quick, broker=broker, clock=clock)

    pass_time(scheduler, 2 * MINUTE)

    seconds = [60, 59, 119]
    assert broker.slots() == [NOON + second * SECOND for second in seconds]
    assert scheduler.era == 0


def test_an_entry_with_a_start_names_no_slot_twice_either(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    starts = NOON + 3 * MINUTE
    late = entry("late", Every(MINUTE), coalesce=False, start=starts)
    ahead = scheduler_of(late, broker=broker, clock=FakeClock(NOON + 2 * MINUTE))
    pass_time(ahead, MINUTE)  # it is 12:03:00 there
    ahead.stop()
    assert broker.slots() == [starts]

    pass_time(scheduler_of(late, broker=broker, clock=clock), 5 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(3, 6)]


def test_a_paused_entry_whose_next_slot_was_dropped_ahead_is_not_rewound(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    paused = entry("each", Every(MINUTE), enabled=False)
    ahead = scheduler_of(paused, broker=broker, clock=FakeClock(NOON + 10 * SECOND))
    pass_time(ahead, 50 * SECOND)
    ahead.stop()
    clock.go_to(NOON + 51 * SECOND)

    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    scheduler.tick(clock.now())

    assert scheduler.era == 0
    assert scheduler.timetable.mark("each").slot == NOON + MINUTE


def test_slots_that_a_clock_jumps_over_twice_are_emitted_once(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    pass_time(scheduler, 30 * MINUTE)
    clock.step(-20 * MINUTE)
    pass_time(scheduler, 90 * SECOND)
    clock.step(20 * MINUTE)
    pass_time(scheduler, 10 * MINUTE)

    slots = [(slot - NOON) // MINUTE for slot in broker.slots()]
    again = 11  # the clock showed 12:11 in truth: a new run
    assert slots == [*range(1, 31), again, *range(31, 42)]


def test_a_boot_a_year_behind_and_then_the_right_time_emits_no_slot_twice(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    file = FakeFile()
    first = scheduler_of(EACH, broker=broker, clock=clock, file=file)
    pass_time(first, 10 * MINUTE)
    first.stop()
    known = broker.slots()

    booted = FakeClock(NOON - YEAR)
    second = scheduler_of(EACH, broker=broker, clock=booted, file=file)
    pass_time(second, 30 * SECOND)
    booted.step(YEAR + 11 * MINUTE)
    pass_time(second, 2 * MINUTE)

    assert known == [NOON + n * MINUTE for n in range(1, 11)]
    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 14)]


def test_a_boot_a_year_behind_and_a_later_start_emits_no_slot_twice(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    first = scheduler_of(EACH, broker=broker, clock=clock)
    pass_time(first, 10 * MINUTE)
    first.stop()

    second = scheduler_of(EACH, broker=broker, clock=FakeClock(NOON - YEAR))
    second.tick(NOON - YEAR)
    second.tick(NOON - YEAR + SECOND)
    second.stop()
    third = scheduler_of(EACH, broker=broker, clock=clock)
    pass_time(third, 2 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 13)]


def test_a_high_mark_in_2098_hides_no_catching_up(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    scheduler.tick(NOON)
    clock.step(71 * YEAR)
    scheduler.tick(clock.now())
    scheduler.tick(clock.now())
    clock.step(-71 * YEAR)
    pass_time(scheduler, SECOND)
    ahead = len(broker.slots())

    clock.go_to(NOON + HOUR)  # it was away for an hour
    pass_time(scheduler, 5 * SECOND)

    assert broker.slots()[ahead:] == [NOON + n * MINUTE for n in range(1, 61)]


def test_a_high_mark_goes_once_it_is_passed() -> None:
    mark = Mark(NOON, "f", 1, NOON).set_back(NOON - HOUR)

    assert mark == Mark(NOON - HOUR, "f", 1, NOON, NOON)
    assert mark.emitted(NOON - MINUTE, 2).high == NOON
    assert mark.emitted(NOON, 2).high is None
    assert mark.set_back(NOON - DAY).high == NOON
    assert mark.caught_up(NOON - 1) is mark
    assert mark.caught_up(NOON + HOUR) == Mark(NOON, "f", 1, NOON)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (NOON, "this host's clock agrees with the broker's"),
        (NOON - 5 * MINUTE, "this host's clock is 300.0 s behind the broker's"),
        (NOON + 5 * MINUTE, "this host's clock is 300.0 s ahead of the broker's"),
    ],
)
def test_a_rewind_says_which_clock_is_off(
    broker: FlakyBroker,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    host: Instant,
    words: str,
) -> None:
    ahead = scheduler_of(EACH, broker=broker, clock=FakeClock(NOON + HOUR))
    ahead.tick(NOON + HOUR)
    ahead.stop()

    clock.step(host - NOON)
    broker._clock = FakeClock(NOON)
    scheduler_of(EACH, broker=broker, clock=clock, ttl=TTL).tick(host)

    said = [r for r in caplog.records if r.__dict__.get("event") == "clock.rewound"]
    assert [words in record.message for record in said] == [True]
    assert said[0].message.endswith(", for 1 entry")
    # Slots up to that instant are passed over: beginning a term may take long.
    assert [record.__dict__["to"] for record in said] == [host]


def test_what_another_emitted_while_the_lead_was_asked_for_is_not_ahead() -> None:
    clock = FakeClock()
    broker = SlowToLead(clock)
    quick = entry("quick", Every(10 * SECOND))
    broker.former = scheduler_of(quick, broker=broker, clock=clock)
    broker.former.tick(clock.now())
    broker.is_slow = True

    scheduler_of(quick, broker=broker, clock=clock).tick(clock.now())

    assert broker.slots() == [NOON + 10 * SECOND * n for n in range(1, 5)]
    assert broker.read_ledger().era == 0


class SlowToLead(FlakyBroker):
    """A broker whose lead is given back only 40 s after it was asked for."""

    former: Scheduler
    is_slow = False

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        if self.is_slow:
            self.is_slow = False
            end = self._clock.now() + 40 * SECOND
            while self._clock.now() < end:
                clock = self.former.clock
                assert isinstance(clock, FakeClock)
                clock.go_to(clock.now() + SECOND)
                self.former.tick(clock.now())
            self.former.stop()
        return super().acquire(holder, ttl, floor)


def test_a_clock_that_is_wrong_for_one_tick_makes_no_longer_nap() -> None:
    class WrongOnce(FakeClock):
        readings = 0

        def now(self) -> Instant:
            self.readings += 1
            return self.time + (71 * YEAR if self.readings == 100 else 0)

    clock = WrongOnce(end=NOON + 5 * MINUTE)
    broker = FlakyBroker(clock)
    scheduler = scheduler_of(entry("each", Every(MINUTE)), broker=broker, clock=clock)

    scheduler.run(SimpleQueue(), reload=lambda: None)

    assert clock.readings > 200
    assert {NOON + minute * MINUTE for minute in (1, 2, 3, 4)} <= {*broker.slots()}


def test_the_wait_ends_in_time_wherever_the_wall_clock_is() -> None:
    clock = SystemClock()
    begin = clock.elapsed()

    wake = clock.wait(SimpleQueue(), clock.now() + DAY, at_most=10)

    assert wake is Wake.ON_TIME
    assert 10 <= clock.elapsed() - begin < MINUTE
