"""Policies: what becomes of slots that have come."""

from typing import Any

import pytest

from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant
from beatd.schedules.base import slots_between
from beatd.schedules.interval import Every, EveryFromLast
from beatd.timetable.entry import Due, Overlap
from beatd.timetable.ledger import Mark
from beatd.timetable.policy import (
    CATCHUP_STEP,
    HOLD,
    OVER,
    Decision,
    Drop,
    Reason,
    decide,
)
from tests.fakes import NOON, entry

EVERY_MINUTE = Every(MINUTE)


def due(
    slots: int = 1, *, mark: Mark | None = None, offset: int = 0, **policy: Any
) -> Due:
    """Return an entry of which `slots` minutely slots came, the newest at noon."""
    return Due(
        [entry("report", EVERY_MINUTE, offset=offset, **policy)],
        mark or Mark(NOON - slots * MINUTE, EVERY_MINUTE.fingerprint),
        slot=NOON - (slots - 1) * MINUTE,
        latest=NOON,
        following=NOON + MINUTE,
    )


def emitted(*slots: Instant) -> Decision:
    return Decision(emit=slots, until=slots[-1])


def dropped(reason: Reason, first: Instant, last: Instant) -> Decision:
    return Decision(dropped=(Drop(reason, first, last),), until=last)


def test_a_slot_in_time_is_emitted() -> None:
    assert decide(due(), NOON + 5, busy=False) == emitted(NOON)


def test_of_several_overdue_slots_the_latest_is_emitted() -> None:
    decision = decide(due(slots=5), NOON + SECOND, busy=False)

    coalesced = Drop(Reason.COALESCED, NOON - 4 * MINUTE, NOON - MINUTE)
    assert decision == Decision(emit=(NOON,), dropped=(coalesced,), until=NOON)


def test_without_coalescing_each_overdue_slot_is_emitted_oldest_first() -> None:
    decision = decide(due(slots=3, coalesce=False), NOON + SECOND, busy=False)

    assert decision == emitted(NOON - 2 * MINUTE, NOON - MINUTE, NOON)


def test_catching_up_goes_in_steps() -> None:
    decision = decide(due(slots=250, coalesce=False), NOON, busy=False)

    assert len(decision.emit) == CATCHUP_STEP
    assert decision.emit[0] == NOON - 249 * MINUTE
    assert decision.until == decision.emit[-1]


def test_catching_up_is_bounded_and_says_what_it_left_out() -> None:
    decision = decide(due(slots=30, coalesce=False, max_catchup=3), NOON, busy=False)

    left_out = Drop(Reason.COALESCED, NOON - 29 * MINUTE, NOON - 3 * MINUTE)
    assert decision == Decision(
        emit=(NOON - 2 * MINUTE, NOON - MINUTE, NOON), dropped=(left_out,), until=NOON
    )


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (0, emitted(NOON)),
        (10 * SECOND, emitted(NOON)),
        (10 * SECOND + 1, dropped(Reason.MISFIRE, NOON, NOON)),
        (DAY, dropped(Reason.MISFIRE, NOON, NOON)),
    ],
    ids=["in time", "just within its grace", "a hair too late", "a day late"],
)
def test_a_slot_past_its_grace_is_a_misfire(late: int, expected: Decision) -> None:
    one = due(misfire_grace=10 * SECOND)

    assert decide(one, NOON + late, busy=False) == expected


def test_jitter_does_not_make_a_misfire() -> None:
    one = due(misfire_grace=10 * SECOND, offset=MINUTE)

    assert decide(one, NOON + MINUTE + 10 * SECOND, busy=False) == emitted(NOON)


def test_a_misfire_takes_all_overdue_slots_with_it() -> None:
    one = due(slots=5, misfire_grace=SECOND)

    decision = decide(one, NOON + HOUR, busy=False)

    assert decision == dropped(Reason.MISFIRE, NOON - 4 * MINUTE, NOON)


def test_without_coalescing_only_slots_past_their_grace_are_misfires() -> None:
    one = due(slots=5, coalesce=False, misfire_grace=2 * MINUTE)

    decision = decide(one, NOON, busy=False)

    too_late = Drop(Reason.MISFIRE, NOON - 4 * MINUTE, NOON - 3 * MINUTE)
    assert decision == Decision(
        emit=(NOON - 2 * MINUTE, NOON - MINUTE, NOON), dropped=(too_late,), until=NOON
    )


def test_without_coalescing_all_slots_can_be_misfires() -> None:
    one = due(slots=2, coalesce=False, misfire_grace=SECOND)

    decision = decide(one, NOON + HOUR, busy=False)

    assert decision == dropped(Reason.MISFIRE, NOON - MINUTE, NOON)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (Overlap.ALLOW, emitted(NOON)),
        (Overlap.SKIP, dropped(Reason.OVERLAP, NOON, NOON)),
        (Overlap.QUEUE_ONE, HOLD),
    ],
    ids=["allow", "skip", "queue_one"],
)
def test_overlap_decides_while_the_previous_run_goes_on(
    overlap: Overlap, expected: Decision
) -> None:
    one = due(overlap=overlap)

    assert decide(one, NOON, busy=True) == expected
    assert decide(one, NOON, busy=False) == emitted(NOON)


def test_a_paused_entry_drops_its_slots_and_keeps_its_place() -> None:
    decision = decide(due(slots=3, enabled=False), NOON, busy=False)

    assert decision == dropped(Reason.PAUSED, NOON - 2 * MINUTE, NOON)


def test_an_entry_is_over_after_its_end() -> None:
    assert decide(due(end=NOON - 1), NOON, busy=False) == OVER
    assert decide(due(end=NOON), NOON, busy=False) == emitted(NOON)


def test_slots_after_the_end_are_not_emitted_with_those_before() -> None:
    one = due(slots=5, end=NOON - 2 * MINUTE)

    decision = decide(one, NOON, busy=False)

    coalesced = Drop(Reason.COALESCED, NOON - 4 * MINUTE, NOON - 3 * MINUTE)
    last = NOON - 2 * MINUTE
    assert decision == Decision(emit=(last,), dropped=(coalesced,), until=last)


def test_an_entry_is_over_after_its_last_run() -> None:
    mark = Mark(NOON - MINUTE, EVERY_MINUTE.fingerprint, runs=3)

    assert decide(due(max_runs=3, mark=mark), NOON, busy=False) == OVER
    assert decide(due(max_runs=4, mark=mark), NOON, busy=False) == emitted(NOON)


def test_catching_up_stops_at_the_last_run() -> None:
    mark = Mark(NOON - 5 * MINUTE, EVERY_MINUTE.fingerprint, runs=3)
    one = due(slots=5, coalesce=False, max_runs=5, mark=mark)

    decision = decide(one, NOON, busy=False)

    assert decision == emitted(NOON - 4 * MINUTE, NOON - 3 * MINUTE)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE_ONE])
def test_catching_up_goes_one_by_one_where_runs_may_not_overlap(
    overlap: Overlap,
) -> None:
    one = due(slots=5, coalesce=False, overlap=overlap)

    assert decide(one, NOON, busy=False) == emitted(NOON - 4 * MINUTE)


@pytest.mark.parametrize(
    ("policy", "expected", "left_out"),
    [
        ({}, [0], [-5, -1]),
        ({"end": NOON - 2 * MINUTE}, [-2], [-5, -3]),
        ({"end": NOON - 1}, [-1], [-5, -2]),
        ({"coalesce": False, "max_catchup": 3}, [-2, -1, 0], [-5, -3]),
        ({"coalesce": False, "misfire_grace": 2 * MINUTE}, [-2, -1, 0], [-5, -3]),
    ],
    ids=["coalesce", "end", "end between slots", "max_catchup", "misfire_grace"],
)
def test_slots_that_count_from_the_last_run_stay_on_their_grid(
    policy: dict[str, Any], expected: list[int], left_out: list[int]
) -> None:
    schedule = EveryFromLast(MINUTE)
    first = NOON - 5 * MINUTE
    one = Due(
        [entry("report", schedule, **policy)],
        Mark(first - MINUTE, schedule.fingerprint),
        slot=first,
        latest=NOON,
        following=NOON + MINUTE,
    )

    decision = decide(one, NOON, busy=False)

    [drop] = decision.dropped
    assert decision.emit == tuple(NOON + n * MINUTE for n in expected)
    assert [drop.first, drop.last] == [NOON + n * MINUTE for n in left_out]


def test_slots_between_has_both_ends() -> None:
    slots = slots_between(EVERY_MINUTE, NOON - MINUTE, NOON)

    assert list(slots) == [NOON - MINUTE, NOON]


def test_the_mark_after_a_decision_counts_what_was_emitted() -> None:
    before = Mark(NOON - HOUR, "f", runs=2, last=NOON - HOUR)

    assert emitted(NOON - MINUTE, NOON).mark_after(before) == Mark(
        NOON, "f", runs=4, last=NOON
    )
    passed_over = dropped(Reason.PAUSED, NOON - MINUTE, NOON)
    assert passed_over.mark_after(before) == before._replace(slot=NOON)
    assert HOLD.mark_after(before) == before
