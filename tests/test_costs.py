"""What the scheduler's turns cost: counted, not timed.

The cost grows with what is due, not with what exists, and what entries have in common
is worked out once.
"""

import pytest

from beatd.instant import MINUTE, SECOND
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.step import BATCH
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry
from tests.counting import Calls, CountingBroker, CountingFile, calls
from tests.fakes import NOON, CountedSchedule, FakeClock, entry, scheduler_of

MINUTE_ONE = NOON + MINUTE


def begun(*entries: Entry, journal: list[str] | None = None) -> Scheduler:
    """Return a scheduler of these entries whose term has begun, with nothing to do."""
    journal = [] if journal is None else journal
    clock = FakeClock(MINUTE_ONE - SECOND)
    scheduler = scheduler_of(
        *entries,
        broker=CountingBroker(clock, journal),
        clock=clock,
        file=CountingFile(journal),
    )
    while scheduler.tick(clock.now()) <= clock.now():
        pass
    journal.clear()
    return scheduler


def minute(scheduler: Scheduler) -> None:
    """Go to the next minute, and do all that is due then."""
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    clock.go_to(MINUTE_ONE)
    while scheduler.tick(clock.now()) <= clock.now():
        pass


def many(
    schedule: CountedSchedule | Every, number: int, name: str = "e"
) -> list[Entry]:
    return [entry(f"{name}{n}", schedule) for n in range(number)]


def turn_of(*entries: Entry) -> Calls:
    """Return the calls of all turns of the next minute."""
    scheduler = begun(*entries)
    with calls() as counted:
        minute(scheduler)
    return counted


def test_a_schedule_is_asked_as_often_however_many_entries_have_it() -> None:
    asked = []
    for number in (100, 1000):
        schedule = CountedSchedule()
        scheduler = begun(*many(schedule, number))
        schedule.asked.clear()
        minute(scheduler)
        asked.append(schedule.asked)

    assert asked[0] == asked[1]
    assert len(asked[0]) < 5


def test_each_batch_is_one_request() -> None:
    journal: list[str] = []
    scheduler = begun(*many(Every(MINUTE), 2 * BATCH + 1), journal=journal)

    minute(scheduler)

    requests = [line for line in journal if line.startswith("emit")]
    assert requests == [f"emit {BATCH}", f"emit {BATCH}", "emit 1"]


def test_between_two_batches_of_a_burst_nothing_else_is_done() -> None:
    journal: list[str] = []
    scheduler = begun(*many(Every(MINUTE), 2 * BATCH), journal=journal)

    minute(scheduler)

    assert journal[:2] == [f"emit {BATCH}"] * 2
    assert "flush" in journal[2:]


def test_a_burst_that_does_not_end_lets_the_file_be_written_once_a_second() -> None:
    journal: list[str] = []
    scheduler = begun(*many(Every(MINUTE), 5 * BATCH), journal=journal)
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    clock.go_to(MINUTE_ONE)
    for _ in range(4):
        scheduler.tick(clock.now())
        clock.go_to(clock.now() + SECOND // 2)

    assert journal == [f"emit {BATCH}"] * 3 + ["flush", f"emit {BATCH}"]


def test_a_message_of_an_entry_is_not_encoded_anew_when_it_is_sent() -> None:
    few, more = (turn_of(*many(Every(MINUTE), number)) for number in (100, 1000))

    encoders = "Encoder.encode", "msgspec", "packb", "dumps", "b64encode"
    assert more.of(*encoders) == few.of(*encoders)


@pytest.mark.parametrize("schedules", [1, 50], ids=["one schedule", "many schedules"])
def test_a_turn_costs_what_is_due_and_not_what_exists(schedules: int) -> None:
    due = many(Every(MINUTE), 100)
    found = []
    for others in (100, 5000):
        rest = [
            entry(f"other{n}", Every(60 * MINUTE + n % schedules * SECOND))
            for n in range(others)
        ]
        found.append(turn_of(*due, *rest))

    # Caches may be filled by the first of the two; an entry would be a call at least.
    assert abs(found[1].total() - found[0].total()) < 100
