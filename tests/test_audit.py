"""Every slot of a stretch of time, and what became of it."""

import pytest

from beatd.instant import MINUTE, Instant
from beatd.schedules.interval import Every, EveryFromLast
from beatd.timetable.audit import Account, Audit
from beatd.timetable.entry import Entry
from beatd.timetable.history import Past
from beatd.timetable.ledger import Mark
from beatd.timetable.pages import Record, What
from tests.fakes import NOON, entry

TICK = entry("tick", Every(MINUTE))

FROM, TO = NOON, NOON + 10 * MINUTE
NOW = NOON + 5 * MINUTE + 30_000


def minute(number: int) -> Instant:
    return NOON + number * MINUTE


def sent(number: int) -> Record:
    return Record(minute(number), 5)


def mark(number: int, runs: int = 1) -> Mark:
    return Mark(minute(number), TICK.schedule.fingerprint, runs, minute(number))


def accounts(
    *records: Record,
    of: Entry = TICK,
    upto: int | None = 5,
    since: Instant = NOON - 1,
    lost: list[tuple[Instant, Instant]] | None = None,
) -> dict[int, str]:
    """Return by minute after noon what is known of each slot."""
    last = None if upto is None else mark(upto)
    audit = Audit(of, last, Past(since, records), lost or ())
    found = audit.slots(FROM, TO, NOW)
    return {(one.slot - NOON) // MINUTE: str(one.account) for one in found}


def test_each_slot_that_has_come_is_accounted_for() -> None:
    dropped = Record(minute(2), 0, What.DROPPED, 0, minute(3), 2, "coalesced")
    uncertain = Record(minute(5), 9, What.UNCERTAIN)

    assert accounts(sent(0), sent(1), dropped, sent(4), uncertain) == {
        0: "sent",
        1: "sent",
        2: "dropped",
        3: "dropped",
        4: "sent",
        5: "uncertain",
    }


def test_a_slot_that_the_ledger_is_past_and_nobody_knows_of_is_missing() -> None:
    assert accounts(sent(0), sent(1), sent(3), sent(4), sent(5))[2] == "missing"


def test_a_slot_that_the_ledger_has_not_reached_waits() -> None:
    found = accounts(*map(sent, range(4)), upto=3)

    assert [found[4], found[5]] == ["waiting", "waiting"]
    assert accounts(upto=None, since=NOON)[0] == "waiting"


def test_what_the_history_does_not_reach_is_unknown_and_not_missing() -> None:
    assert accounts(*map(sent, range(3, 6)), since=minute(2)) == {
        0: "unknown",
        1: "unknown",
        2: "unknown",
        3: "sent",
        4: "sent",
        5: "sent",
    }


def test_what_was_lost_with_the_data_is_unknown() -> None:
    found = accounts(sent(0), sent(4), sent(5), lost=[(minute(1), minute(2) + 9)])

    assert [found[1], found[2], found[3]] == ["unknown", "unknown", "missing"]


def test_slots_of_an_earlier_schedule_are_not_asked_for() -> None:
    began = Record(minute(3), 0, What.BEGAN)

    assert accounts(began, sent(4), sent(5)) == {4: "sent", 5: "sent"}


def test_bounds_are_kept() -> None:
    bounded = entry("tick", Every(MINUTE), start=minute(1), end=minute(3))
    assert accounts(*map(sent, range(1, 4)), of=bounded).keys() == {1, 2, 3}

    twice = entry("tick", Every(MINUTE), max_runs=1)
    assert accounts(sent(0), of=twice, upto=0) == {0: "sent"}


def test_a_slot_comes_with_its_jitter() -> None:
    late = entry("tick", Every(MINUTE), offset=40_000)

    assert accounts(*map(sent, range(6)), of=late).keys() == {0, 1, 2, 3, 4}


def test_what_is_held_or_refused_for_a_while_is_no_account_of_a_slot() -> None:
    refused = Record(minute(5), 9, What.REFUSED, why="it is closed")

    assert accounts(*map(sent, range(5)), refused)[5] == "missing"


@pytest.mark.parametrize("first", [0, 2])
def test_slots_that_count_from_the_last_run_follow_from_those_that_are_known(
    first: int,
) -> None:
    rolling = entry("tick", EveryFromLast(2 * MINUTE))
    records = [sent(number) for number in range(first, 5, 2)]

    found = accounts(*records, of=rolling, upto=4)
    assert found == dict.fromkeys(range(first, 5, 2), "sent")


def test_a_slot_that_was_sent_and_became_uncertain_is_uncertain() -> None:
    one = Record(minute(0), 9, What.UNCERTAIN)

    assert accounts(sent(0), one, *map(sent, range(1, 6)))[0] == Account.UNCERTAIN
