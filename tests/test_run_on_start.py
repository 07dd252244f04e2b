"""`run_on_start`: one run when a scheduler first sees the entry, and only then."""

from typing import Any

import pytest

from beatd.brokers.items import Emitted
from beatd.config.loading import examine_source
from beatd.config.source import Source
from beatd.errors import BrokerUnavailable
from beatd.ids import run_id
from beatd.instant import HOUR, MINUTE, SECOND
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry
from beatd.timetable.policy import Reason
from tests.fakes import NOON, TTL, FakeClock, FakeFile, FlakyBroker, entry
from tests.test_reload import begun, go_on, reload

START = NOON + 10 * SECOND


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def eager(**policy: Any) -> Entry:
    return entry("eager", Every(HOUR), run_on_start=True, **policy)


def test_a_new_entry_runs_at_once_and_then_at_its_slots(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    go_on(begun(eager(), broker=broker, clock=clock), NOON + 2 * HOUR)

    assert broker.slots() == [START, NOON + HOUR, NOON + 2 * HOUR]
    assert broker.read_ledger().marks["eager"].runs == 3
    task_id = run_id("test", "eager", 0, START)
    assert task_id.encode() in broker.emitted[0].message


def test_a_restart_does_not_run_it_again(broker: FlakyBroker, clock: FakeClock) -> None:
    first = begun(eager(), broker=broker, clock=clock)
    go_on(first, START + MINUTE)
    first.stop()
    go_on(begun(eager(), broker=broker, clock=clock), START + 2 * MINUTE)

    assert broker.slots() == [START]


class Deaf(FlakyBroker):
    """A broker that does not answer to emissions, for as long as it is deaf."""

    is_deaf = True

    def emit(self, *args: Any) -> list[Emitted]:
        if self.is_deaf:
            raise BrokerUnavailable("nobody answers")
        return super().emit(*args)


def test_a_crash_before_that_run_was_queued_does_not_lose_it(clock: FakeClock) -> None:
    broker = Deaf(clock)
    begun(eager(), broker=broker, clock=clock)  # the ledger has it, and nobody else
    broker.is_deaf = False
    clock.go_to(START + TTL)
    go_on(begun(eager(), broker=broker, clock=clock), START + 2 * TTL)

    assert broker.slots() == [START]


def test_an_entry_that_a_reload_adds_runs_at_once(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = begun(entry("old", Every(HOUR)), broker=broker, clock=clock)
    go_on(scheduler, START + MINUTE)
    reload(scheduler, entry("old", Every(HOUR)), eager())
    go_on(scheduler, START + 2 * MINUTE)

    assert broker.slots() == [START + MINUTE]


def test_an_entry_that_is_known_does_not_run_when_it_is_asked_to(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = begun(entry("eager", Every(HOUR)), broker=broker, clock=clock)
    go_on(scheduler, START + MINUTE)
    reload(scheduler, eager())
    go_on(scheduler, START + 2 * MINUTE)

    assert broker.slots() == []


def test_a_paused_entry_drops_that_run(broker: FlakyBroker, clock: FakeClock) -> None:
    file = FakeFile()
    go_on(
        begun(eager(enabled=False), broker=broker, clock=clock, file=file), NOON + HOUR
    )

    assert broker.slots() == []
    assert file.dropped == {("eager", Reason.PAUSED): 2}


def test_before_its_start_time_nothing_runs(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    late = eager(start=NOON + 2 * HOUR)
    go_on(begun(late, broker=broker, clock=clock), NOON + 2 * HOUR)

    assert broker.slots() == [NOON + 2 * HOUR]


@pytest.mark.parametrize(
    ("written", "setting", "expected"),
    [({}, True, True), ({}, False, False), ({"run_on_start": True}, False, True)],
)
def test_the_entry_wins_over_the_setting(
    written: dict[str, Any], setting: bool, expected: bool
) -> None:
    schedule = {"one": {"task": "t", "schedule": 60, **written}}
    written = {"beat_schedule": schedule, "beat_run_on_start": setting}
    report = examine_source(Source("conf", written))

    assert report.config is not None
    assert [one.policy.run_on_start for one in report.config.entries] == [expected]


def test_new_bounds_end_a_run_that_has_not_come_as_they_end_a_slot() -> None:
    mark = eager().mark_from(None, NOON)

    assert eager().first_after(mark) == NOON
    assert eager(end=NOON - 1).first_after(mark) is None
