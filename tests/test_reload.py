"""A reload: what was due by the earlier config comes first, and no slot is lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span, datetime_of
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.succession import MOST_WAITING
from beatd.schedules.interval import Every
from beatd.schedules.once import Once
from beatd.schedules.zones import UTC
from beatd.timetable.entry import Entry, Overlap
from beatd.timetable.policy import Reason
from tests.fakes import NOON, TTL, FakeClock, FakeFile, FlakyBroker, entry, scheduler_of


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def begun(
    *entries: Entry, broker: FlakyBroker, clock: FakeClock, file: FakeFile | None = None
) -> Scheduler:
    """Return a scheduler that leads, with these entries."""
    scheduler = scheduler_of(*entries, broker=broker, clock=clock, file=file)
    scheduler.tick(clock.now())
    return scheduler


def go_on(scheduler: Scheduler, instant: Instant) -> None:
    """Let time pass until `instant`, with a tick whenever the loop asked for one."""
    assert isinstance(scheduler.clock, FakeClock)
    wake_at = scheduler.tick(scheduler.clock.now())
    while scheduler.clock.now() < instant or wake_at <= instant:
        scheduler.clock.go_to(min(wake_at, instant))
        wake_at = scheduler.tick(scheduler.clock.now())


def reload(scheduler: Scheduler, *entries: Entry, keep: Sequence[str] = ()) -> None:
    scheduler.replace({one.name: one for one in entries}, keep=keep, queues=())


def entries_of(broker: FlakyBroker) -> set[str]:
    """Return the entries that the ledger has, without those that were removed."""
    marks = broker.read_ledger().marks
    return {name for name, mark in marks.items() if not mark.is_removed}


EACH = entry("each", Every(MINUTE), coalesce=False)


@pytest.mark.parametrize(
    "after",
    [
        entry("each", Every(MINUTE), coalesce=False, end=NOON + 30 * SECOND),
        entry("each", Every(HOUR)),
        entry("other", Every(HOUR)),
    ],
    ids=["it ends now", "another schedule", "it is removed"],
)
def test_what_was_due_is_emitted_by_the_earlier_config(
    broker: FlakyBroker, clock: FakeClock, after: Entry
) -> None:
    scheduler = begun(EACH, broker=broker, clock=clock)
    clock.go_to(NOON + 2 * MINUTE)

    reload(scheduler, after)
    go_on(scheduler, NOON + 30 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_what_was_due_waits_for_the_broker_and_so_does_the_new_config(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = begun(EACH, broker=broker, clock=clock)
    broker.down = True
    clock.go_to(NOON + 2 * MINUTE)
    scheduler.tick(clock.now())
    reload(scheduler, entry("each", Every(20 * SECOND), coalesce=False))
    go_on(scheduler, NOON + 3 * MINUTE)
    broker.down = False
    go_on(scheduler, NOON + 3 * MINUTE + 10 * SECOND)

    expected = [NOON + n * 20 * SECOND for n in (3, 6, 7, 8, 9)]
    assert broker.slots() == expected
    assert [one for one in caplog.records if "waits until" in one.getMessage()]


def test_each_of_several_configs_that_wait_has_its_own_slots(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = begun(EACH, broker=broker, clock=clock)
    broker.down = True
    for minute, length in (1, 20 * SECOND), (2, 15 * SECOND), (3, HOUR):
        clock.go_to(NOON + minute * MINUTE)
        scheduler.tick(clock.now())
        reload(scheduler, entry("each", Every(length), coalesce=False))
    broker.down = False
    go_on(scheduler, NOON + 4 * MINUTE)

    seconds = (60, 80, 100, 120, 135, 150, 165, 180)
    assert broker.slots() == [NOON + second * SECOND for second in seconds]


def test_of_very_many_configs_that_wait_the_last_one_gives_way(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = begun(EACH, broker=broker, clock=clock)
    broker.down = True
    for minute in range(1, MOST_WAITING + 3):
        clock.go_to(NOON + minute * MINUTE)
        scheduler.tick(clock.now())
        name = f"from-{minute}"
        reload(scheduler, entry(name, Every(20 * SECOND), coalesce=False))
    assert len(scheduler.takeover.configs.waiting) == MOST_WAITING
    broker.down = False
    go_on(scheduler, NOON + (MOST_WAITING + 3) * MINUTE)

    last = MOST_WAITING + 2
    assert {one.entry for one in broker.emitted} == {
        "each",
        *(f"from-{minute}" for minute in range(1, MOST_WAITING)),
        f"from-{last}",
    }
    slots = broker.slots(f"from-{last}")
    assert slots[0] == NOON + MOST_WAITING * MINUTE + 20 * SECOND
    merged = [one for one in caplog.records if "gives way to" in one.getMessage()]
    assert len(merged) == 2


def test_many_batches_of_what_was_due_come_first(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    many = [entry(f"e{n}", Every(MINUTE), coalesce=False) for n in range(2500)]
    scheduler = begun(*many, broker=broker, clock=clock)
    clock.go_to(NOON + 2 * MINUTE)

    reload(scheduler, entry("other", Every(HOUR)))
    go_on(scheduler, NOON + 2 * MINUTE + SECOND)

    assert len(broker.slots()) == 5000
    assert entries_of(broker) == {"other"}


def test_a_held_slot_of_an_entry_that_changes_is_recorded_as_dropped(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    held = entry("held", Every(MINUTE), overlap=Overlap.QUEUE_ONE)
    file = FakeFile()
    scheduler = begun(held, broker=broker, clock=clock, file=file)
    go_on(scheduler, NOON + 3 * MINUTE)
    assert broker.slots() == [NOON + MINUTE]

    reload(scheduler, entry("held", Every(HOUR), overlap=Overlap.QUEUE_ONE))
    go_on(scheduler, NOON + 4 * MINUTE)

    assert file.dropped == {("held", Reason.REPLACED): 2}
    assert broker.slots() == [NOON + MINUTE]


def test_a_held_slot_of_an_entry_that_goes_on_stays_held(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    held = entry("held", Every(MINUTE), overlap=Overlap.QUEUE_ONE)
    scheduler = begun(held, broker=broker, clock=clock)
    go_on(scheduler, NOON + 2 * MINUTE)

    reload(scheduler, entry("held", Every(MINUTE), end=NOON + DAY))
    go_on(scheduler, NOON + 2 * MINUTE + SECOND)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_who_reloaded_while_standing_by_does_what_the_dead_leader_left(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    leader = begun(EACH, broker=broker, clock=clock)
    standby = begun(EACH, broker=broker, clock=clock)
    go_on(leader, NOON + MINUTE)
    reload(standby, entry("new", Every(HOUR)))
    go_on(standby, NOON + MINUTE + SECOND)
    clock.go_to(NOON + 3 * MINUTE)  # and the leader is dead
    go_on(standby, NOON + 4 * MINUTE + SECOND)

    assert broker.slots() == [NOON + n * MINUTE for n in (1, 2, 3)]
    assert entries_of(broker) == {"new"}


def test_who_reloaded_while_standing_by_follows_a_leader_that_did_so_before(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    leader = begun(EACH, broker=broker, clock=clock)
    standby = begun(EACH, broker=broker, clock=clock)
    new = entry("new", Every(MINUTE), coalesce=False)
    for scheduler in (leader, standby):
        reload(scheduler, new)
        go_on(scheduler, NOON + SECOND)
    go_on(leader, NOON + MINUTE + SECOND)
    standby.tick(clock.now())  # it looks at the leader's ledger
    clock.go_to(NOON + MINUTE + SECOND + TTL)
    go_on(standby, NOON + 3 * MINUTE)

    assert broker.slots("new") == [NOON + n * MINUTE for n in (1, 2, 3)]
    assert broker.slots("each") == []


def test_a_standby_that_saw_the_leader_go_over_keeps_to_the_new_policies(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    leader = begun(EACH, broker=broker, clock=clock)
    standby = begun(EACH, broker=broker, clock=clock)
    for scheduler in (leader, standby):
        reload(scheduler, entry("each", Every(MINUTE), coalesce=False, enabled=False))
        go_on(scheduler, clock.now() + SECOND)
    for _ in range(10):  # seconds in which the standby looks at what the leader tells
        go_on(leader, clock.now() + SECOND)
        standby.tick(clock.now())
    clock.go_to(NOON + 3 * MINUTE)  # and the leader is dead
    go_on(standby, NOON + 4 * MINUTE + SECOND)

    assert broker.slots() == []


def test_a_restart_after_a_reload_of_a_standby_keeps_to_its_last_config(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    leader = begun(EACH, broker=broker, clock=clock)
    standby = begun(EACH, broker=broker, clock=clock)
    for length in (20 * SECOND, 30 * SECOND):
        reload(standby, entry("each", Every(length), coalesce=False))
        go_on(standby, clock.now() + SECOND)
    go_on(leader, NOON + MINUTE)
    leader.stop()
    go_on(standby, NOON + 2 * MINUTE)

    seconds = (60, 90, 120)
    assert broker.slots() == [NOON + second * SECOND for second in seconds]


# Whatever comes, in any order --------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What one config says of the entry, from `at` on."""

    at: Instant
    length: Span | None
    """How often it runs; None: there is no such entry."""
    start: Instant | None = None
    end: Instant | None = None
    max_runs: int | None = None

    def entries(self) -> dict[str, Entry]:
        if self.length is None:
            return {}
        one = entry(
            "each",
            Every(self.length),
            coalesce=False,
            max_catchup=10**6,
            start=self.start,
            end=self.end,
            max_runs=self.max_runs,
        )
        return {"each": one}

    def slots(self, until: Instant, runs: int) -> Iterator[Instant]:
        """Yield the slots up to `until`, after so many runs, one after another."""
        if self.length is None:
            return
        first = self.at + self.length - self.at % self.length
        for slot in range(first, until + 1, self.length):
            if self.max_runs is not None and runs >= self.max_runs:
                return
            if (self.start or 0) <= slot <= (self.end or slot):
                runs += 1
                yield slot


def brute_force(configs: Sequence[Wanted], now: Instant) -> list[Instant]:
    """Return the slots that these configs name, each for as long as it held."""
    slots: list[Instant] = []
    runs, length = 0, None
    for config, following in zip(configs, [*configs[1:], None], strict=True):
        if config.length != length:
            runs, length = 0, config.length
        until = now if following is None else following.at
        named = [*config.slots(until, runs)]
        slots += named
        runs += len(named)
    return slots


class Reloads(RuleBasedStateMachine):
    """Configs and ticks in any order, while the broker comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.broker = FlakyBroker(self.clock)
        self.configs = [Wanted(NOON, SECOND)]
        first = self.configs[0].entries().values()
        self.scheduler = begun(*first, broker=self.broker, clock=self.clock)

    @rule(pause=st.integers(1, 9_000))
    def tick(self, pause: Span) -> None:
        self.clock.go_to(self.clock.now() + pause)
        self.scheduler.tick(self.clock.now())

    @rule(down=st.booleans())
    def cut(self, down: bool) -> None:
        self.broker.down = down

    @rule(lost=st.booleans())
    def lose_answers(self, lost: bool) -> None:
        self.broker.loses_answers = lost

    @rule(
        pause=st.integers(0, 5_000),
        length=st.sampled_from([None, SECOND, 1_500, 4 * SECOND]),
        start=st.none() | st.integers(-5_000, 5_000),
        end=st.none() | st.integers(-5_000, 9_000),
        max_runs=st.none() | st.integers(1, 9),
    )
    def reload(
        self,
        pause: Span,
        length: Span | None,
        start: Span | None,
        end: Span | None,
        max_runs: int | None,
    ) -> None:
        self.clock.go_to(self.clock.now() + pause)
        now = self.clock.now()
        begin = None if start is None else now + start
        last = None if end is None else now + end
        if len(self.scheduler.takeover.configs.waiting) == MOST_WAITING:
            now = self.configs.pop().at  # it gives way to the new one
        self.configs.append(Wanted(now, length, begin, last, max_runs))
        reload(self.scheduler, *self.configs[-1].entries().values())

    @invariant()
    def slots_are_those_of_the_configs_in_their_order(self) -> None:
        slots = self.broker.slots()
        assert slots == brute_force(self.configs, self.clock.now())[: len(slots)]

    def teardown(self) -> None:
        """All is well again: every slot of every config has come, once."""
        self.broker.down = self.broker.loses_answers = False
        for _ in range(5 * len(self.configs) + 20):
            self.clock.go_to(self.clock.now() + SECOND)
            self.scheduler.tick(self.clock.now())
        assert not self.scheduler.takeover.configs.waiting
        expected = brute_force(self.configs, self.clock.now())
        assert self.broker.slots() == expected
        assert self.scheduler.file.dropped == {}  # type: ignore[attr-defined] # a fake


Reloads.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
TestReloads = Reloads.TestCase


# Bounds ------------------------------------------------------------------------------


def test_more_runs_are_counted_on(broker: FlakyBroker, clock: FakeClock) -> None:
    scheduler = begun(
        entry("few", Every(MINUTE), max_runs=2), broker=broker, clock=clock
    )
    go_on(scheduler, NOON + 10 * MINUTE)

    reload(scheduler, entry("few", Every(MINUTE), max_runs=3))
    go_on(scheduler, NOON + 20 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in (1, 2, 11)]
    assert broker.read_ledger().marks["few"].runs == 3


def test_more_runs_are_counted_on_after_a_restart(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    first = begun(entry("few", Every(HOUR), max_runs=2), broker=broker, clock=clock)
    go_on(first, NOON + 2 * HOUR)
    first.stop()

    second = begun(entry("few", Every(HOUR), max_runs=3), broker=broker, clock=clock)
    go_on(second, NOON + 9 * HOUR)

    assert broker.slots() == [NOON + n * HOUR for n in (1, 2, 3)]


def test_a_changed_schedule_counts_its_runs_anew(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = begun(
        entry("few", Every(MINUTE), max_runs=2), broker=broker, clock=clock
    )
    go_on(scheduler, NOON + 3 * MINUTE)

    reload(scheduler, entry("few", Every(HOUR), max_runs=2))
    go_on(scheduler, NOON + 9 * HOUR)

    slots = [NOON + MINUTE, NOON + 2 * MINUTE, NOON + HOUR, NOON + 2 * HOUR]
    assert broker.slots() == slots


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"end": NOON + HOUR}),
        ({"end": NOON + HOUR}, {}),
        ({"start": NOON}, {"max_runs": 99}),
        ({"max_runs": 5}, {"start": NOON}),
    ],
)
def test_bounds_that_change_over_a_restart_lose_and_repeat_nothing(
    broker: FlakyBroker, clock: FakeClock, before: dict[str, Any], after: dict[str, Any]
) -> None:
    old = entry("each", Every(MINUTE), coalesce=False, **before)
    first = begun(old, broker=broker, clock=clock)
    go_on(first, NOON + MINUTE)
    first.stop()
    clock.go_to(NOON + 3 * MINUTE)
    new = entry("each", Every(MINUTE), coalesce=False, **after)
    go_on(begun(new, broker=broker, clock=clock), NOON + 4 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in (1, 2, 3, 4)]


def test_a_once_that_is_moved_runs_again_at_the_new_date(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = begun(once_at(NOON + MINUTE), broker=broker, clock=clock)
    go_on(scheduler, NOON + HOUR)

    reload(scheduler, once_at(NOON + DAY))
    go_on(scheduler, NOON + 2 * DAY)

    assert broker.slots() == [NOON + MINUTE, NOON + DAY]


def once_at(instant: Instant) -> Entry:
    """Return an entry with that slot alone, and with one run at most."""
    return entry("once", Once(datetime_of(instant), UTC), max_runs=1)


# Entries that are over ---------------------------------------------------------------


def said_over(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of entries that are over, since this was last asked."""
    said = [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "event", "") == "entry.over"
    ]
    caplog.clear()
    return said


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (entry("few", Every(MINUTE), max_runs=1), "max_runs is reached: 1"),
        (
            entry("few", Every(MINUTE), end=NOON + MINUTE),
            "it has no later slot before its end_time",
        ),
        (
            entry("few", Once(datetime_of(NOON + MINUTE), UTC)),
            "its schedule has no later slot",
        ),
    ],
    ids=["max_runs", "end_time", "once"],
)
def test_an_entry_that_is_over_is_said_once(
    broker: FlakyBroker,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    entry: Entry,
    reason: str,
) -> None:
    caplog.set_level("INFO")
    scheduler = begun(entry, broker=broker, clock=clock)
    assert said_over(caplog) == []
    go_on(scheduler, NOON + MINUTE)
    assert said_over(caplog) == [f"few is over: {reason}"]

    go_on(scheduler, NOON + HOUR)
    reload(scheduler, entry)
    go_on(scheduler, NOON + 2 * HOUR)
    scheduler.stop()
    go_on(begun(entry, broker=broker, clock=clock), NOON + 3 * HOUR)
    assert said_over(caplog) == []
    assert broker.slots() == [NOON + MINUTE]


def test_an_entry_that_is_over_from_the_beginning_is_said_once(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    begun(once_at(NOON - DAY), broker=broker, clock=clock).stop()
    assert said_over(caplog) == ["once is over: its schedule has no later slot"]

    begun(once_at(NOON - DAY), broker=broker, clock=clock)
    assert said_over(caplog) == []


def test_an_entry_that_a_reload_ends_is_said_once(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scheduler = begun(EACH, broker=broker, clock=clock)
    go_on(scheduler, NOON + MINUTE)
    for _ in range(2):
        reload(scheduler, entry("each", Every(MINUTE), end=NOON))
        go_on(scheduler, clock.now() + MINUTE)

    assert said_over(caplog) == [
        "each is over: it has no later slot before its end_time"
    ]


def test_an_entry_that_a_restart_with_narrower_bounds_ends_is_said_once(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = FakeFile()
    before = entry("each", Every(MINUTE)), entry("few", Every(MINUTE), max_runs=1)
    first = begun(*before, broker=broker, clock=clock, file=file)
    go_on(first, NOON + MINUTE + SECOND)
    first.stop()
    said_over(caplog)

    # As it is at a natural end: no slot lies between the last run and the end.
    after = entry("each", Every(MINUTE), end=NOON + MINUTE + SECOND), before[1]
    for _ in range(2):
        begun(*after, broker=broker, clock=clock, file=file).stop()
    assert said_over(caplog) == [
        "each is over: it has no later slot before its end_time"
    ]

    begun(*before, broker=broker, clock=clock, file=file).stop()
    begun(*after, broker=broker, clock=clock, file=file).stop()
    assert len(said_over(caplog)) == 1


def test_what_ended_under_another_leader_is_not_said_again_here(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file, few = FakeFile(), entry("few", Every(MINUTE), max_runs=2)
    first = begun(few, broker=broker, clock=clock, file=file)
    go_on(first, NOON + MINUTE)
    first.stop()
    other = begun(few, broker=broker, clock=clock)
    go_on(other, NOON + 2 * MINUTE)
    other.stop()
    assert len(said_over(caplog)) == 1

    begun(few, broker=broker, clock=clock, file=file)
    assert said_over(caplog) == []
