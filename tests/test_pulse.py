"""What a scheduler says of itself in numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.brokers.items import Emitted, Outcome, Refused
from beatd.instant import HOUR, MINUTE, SECOND
from beatd.scheduler.pulse import (
    MOST_NAMED,
    OTHERS,
    Lags,
    Pulse,
    bucket_of,
    longest_in,
    quantile,
)
from beatd.schedules.interval import Every
from beatd.timetable.policy import Reason
from tests.brokers.making import NOON, emission
from tests.fakes import FakeClock, FlakyBroker, entry, scheduler_of


@given(st.integers(0, 2**32 - 1))
def test_a_bucket_holds_its_lags_and_is_no_wider_than_a_quarter(lag: int) -> None:
    bucket = bucket_of(lag)

    assert lag <= longest_in(bucket) <= lag * 1.25
    assert bucket == 0 or longest_in(bucket - 1) < lag
    assert bucket_of(longest_in(bucket)) == bucket


def test_buckets_are_bounded() -> None:
    assert bucket_of(-5) == 0
    assert bucket_of(2**60) == bucket_of(2**32 - 1) < 128


def test_lags_are_of_the_last_hour() -> None:
    lags = Lags()
    lags.add(5, 99, elapsed=0)
    lags.add(MINUTE, 1, elapsed=30 * MINUTE)

    assert quantile(lags.of_hour(30 * MINUTE), 0.5) == 5
    assert quantile(lags.of_hour(30 * MINUTE), 0.99) == 5
    assert quantile(lags.of_hour(30 * MINUTE), 1) == longest_in(bucket_of(MINUTE))
    assert sum(lags.of_hour(61 * MINUTE)) == 1
    assert quantile(lags.of_hour(5 * HOUR), 0.5) is None
    assert (sum(lags.total), lags.sum) == (100, 99 * 5 + MINUTE)


def test_a_row_is_used_again_after_an_hour() -> None:
    lags = Lags()
    lags.add(5, 1, elapsed=0)
    lags.add(5, 1, elapsed=HOUR)

    assert sum(lags.of_hour(HOUR)) == 1


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000, 1003])
def test_all_emissions_of_a_batch_are_counted_and_some_are_looked_at(size: int) -> None:
    pulse = Pulse()
    asked: list[str] = []

    def offset(name: str) -> int:
        asked.append(name)
        return 0

    batch = [emission(f"e{number}") for number in range(size)]
    outcomes = [Outcome.QUEUED] * size
    pulse.note_answers(batch, outcomes, NOON + 40, 0, offset)

    assert pulse.emitted == size == sum(pulse.lags.total)
    assert quantile(pulse.lags.total, 1) == longest_in(bucket_of(40))
    assert len(asked) <= 16


def test_what_was_not_queued_is_not_emitted() -> None:
    pulse = Pulse()
    batch = [emission("a"), emission("b"), emission("c")]
    outcomes: list[Emitted] = [Outcome.KNOWN, Outcome.QUEUED, Refused("no")]

    pulse.note_answers(batch, outcomes, NOON, 0, lambda name: 0)

    assert (pulse.emitted, pulse.known, sum(pulse.lags.total)) == (1, 1, 1)


def test_drops_are_counted_by_name_for_some_entries_only() -> None:
    pulse = Pulse()
    pulse.note_drops({(f"e{number}", "coalesced"): 2 for number in range(1000)})
    pulse.note_drops({("e1", "misfire"): 1, ("e999", "misfire"): 1})

    assert pulse.dropped["e1", "coalesced"] == 2
    assert pulse.dropped["e1", "misfire"] == pulse.dropped[OTHERS, "misfire"] == 1
    assert sum(pulse.dropped.values()) == 2002
    assert len({name for name, _ in pulse.dropped}) == MOST_NAMED + 1


def test_entries_that_somebody_has_paused_take_the_names_of_none_in_trouble() -> None:
    pulse = Pulse()
    pulse.note_drops({(f"e{number}", Reason.PAUSED): 1 for number in range(1000)})
    pulse.note_drops({("late", Reason.MISFIRE): 3})

    assert pulse.dropped == {(OTHERS, "paused"): 1000, ("late", "misfire"): 3}


def test_a_scheduler_counts_what_it_does_and_when() -> None:
    clock = FakeClock()
    broker = FlakyBroker(clock)
    scheduler = scheduler_of(entry("tick", Every(SECOND)), broker=broker, clock=clock)
    scheduler.tick(clock.now())
    first = scheduler.timetable.first()
    assert first is not None
    assert (first[0].name, first[1]) == ("tick", clock.now() + SECOND)

    clock.go_to(clock.now() + 3 * SECOND + 200)
    scheduler.tick(clock.now())

    assert (scheduler.pulse.terms, scheduler.pulse.emitted) == (1, 1)
    assert quantile(scheduler.pulse.lags.total, 1) == longest_in(bucket_of(200))
    assert scheduler.pulse.dropped == {("tick", "coalesced"): 2}


def test_what_waits_longest_is_first_and_what_is_over_is_known() -> None:
    clock = FakeClock()
    scheduler = scheduler_of(
        entry("often", Every(SECOND)),
        entry("seldom", Every(MINUTE)),
        entry("once", Every(SECOND), max_runs=1),
        broker=FlakyBroker(clock),
        clock=clock,
        ttl=HOUR,
    )
    scheduler.tick(clock.now())
    assert scheduler.timetable.over == set()

    clock.go_to(clock.now() + MINUTE)
    scheduler.timetable.due(clock.now(), 1)
    first = scheduler.timetable.first()

    assert first is not None
    assert first[1] == clock.now() - 59 * SECOND
    scheduler.tick(clock.now())
    assert scheduler.timetable.over == {"once"}
