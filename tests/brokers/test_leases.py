"""A lease is a length: it lasts as long, whatever the broker's clock is set to."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import Outgoing
from beatd.brokers.leases import WorkerLease
from beatd.brokers.redis.leases import AT_ONCE, ServerLeases
from beatd.clock import SystemClock
from beatd.instant import HOUR, MINUTE, SECOND, Span
from tests.brokers.backends import Backend
from tests.brokers.making import CELERY, NOON, messages, outgoing
from tests.brokers.test_current_runs import emit
from tests.servers import eventually

STEPS = [HOUR, -HOUR]

LEASE: Span = SECOND // 2


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_clock_takes_no_living_workers_tasks(
    backend: Backend, broker: Broker, other: Broker, step: Span
) -> None:
    emit(broker, ("a", "id-1"))
    broker.join("lives", MINUTE)
    [one] = broker.take("lives", ["celery"], 1, 1)
    other.recover()

    backend.step(step)

    assert [other.recover() for _ in range(3)] == [0, 0, 0]
    assert other.held_runs(["id-1"]) == {"id-1"}
    assert broker.stay("lives", MINUTE)
    assert other.recover() == 0
    assert broker.take("lives", ["celery"], 1, 1) == [one]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_clock_keeps_no_dead_workers_tasks(
    backend: Backend, broker: Broker, other: Broker, step: Span
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("dies", 20)
    broker.take("dies", ["celery"], 1, 1)

    backend.step(step)

    assert eventually(other.recover) == 1
    assert not broker.stay("dies", MINUTE)
    other.join("lives", MINUTE)
    assert messages(other.take("lives", ["celery"], 9, 1)) == [b"1"]


@pytest.mark.parametrize("step", [0, *STEPS])
def test_what_a_dead_worker_had_is_not_held_although_nobody_gave_it_back(
    backend: Backend, broker: Broker, other: Broker, step: Span
) -> None:
    emit(broker, ("a", "id-1"))
    broker.join("dies", 20)
    broker.take("dies", ["celery"], 1, 1)

    backend.step(step)

    eventually(lambda: not other.held_runs(["id-1"]))


def test_data_that_are_set_back_take_no_living_workers_tasks(
    backend: Backend, broker: Broker, other: Broker
) -> None:
    emit(broker, ("a", "id-1"))
    broker.join("lives", LEASE)
    other.join("other", LEASE)
    [one] = broker.take("lives", ["celery"], 1, 1)

    def live_on(length: Span) -> None:
        until = elapsed() + length
        eventually(lambda: beat() and elapsed() >= until)

    def beat() -> bool:
        assert other.stay("other", LEASE)
        assert other.recover() == 0
        return broker.stay("lives", LEASE)

    elapsed = SystemClock().elapsed
    with backend.set_back():
        live_on(LEASE * 3 // 2)
    assert other.held_runs(["id-1"]) == {"id-1"}
    assert other.recover() == 0
    live_on(LEASE * 3 // 2)

    assert broker.take("lives", ["celery"], 1, 1) == [one]


def test_data_that_are_set_back_keep_no_dead_workers_tasks(
    backend: Backend, broker: Broker, other: Broker
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("dies", 20)
    [one] = broker.take("dies", ["celery"], 1, 1)

    with backend.set_back():
        assert eventually(other.recover) == 1

    assert eventually(other.recover) == 1
    other.join("lives", MINUTE)
    assert messages(other.take("lives", ["celery"], 9, 1)) == [one.message]


def test_messages_that_wait_for_their_time_follow_a_step_of_the_clock(
    backend: Backend, broker: Broker
) -> None:
    now = SystemClock().now()
    broker.send([Outgoing(CELERY, b"1", due=now + HOUR)])
    broker.join("w", MINUTE)

    backend.step(-HOUR)
    nothing = broker.take("w", ["celery"], 9, 1)
    backend.step(2 * HOUR + SECOND)
    early = broker.take("w", ["celery"], 9, 2)

    assert nothing == []
    assert messages(early) == [b"1"]


# How Redis's clock is watched

LENGTH = 6 * SECOND


class Watched:
    """A worker's lease in Redis, and another worker that looks at it each second."""

    def __init__(self) -> None:
        self.watch = ServerLeases()
        self.server, self.passed, self.faults = NOON, 5 * HOUR, 0
        self.lease = WorkerLease("w", NOON, 0)
        self.beat()

    def beat(self) -> None:
        self.lease = WorkerLease("w", self.server + LENGTH, LENGTH)

    def seconds_until_it_has_run_out(self, most: int = 60) -> int:
        """Look each second, until the lease has run out."""
        for seconds in range(most):
            if self.look():
                return seconds
            self.pass_time(SECOND)
        return most

    def look(self) -> bool:
        found = self.watch.run_out(
            [self.lease], self.server, self.passed, self.passed, self.faults
        )
        return found == [self.lease]

    def pass_time(self, length: Span) -> None:
        self.server += length
        self.passed += length


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_silent_worker_is_dead_when_its_lease_ends(watched: Watched) -> None:
    assert watched.seconds_until_it_has_run_out() == 6


@pytest.mark.parametrize("step", [SECOND * 3, HOUR])
def test_after_a_step_forward_a_lease_lasts_its_whole_length(
    watched: Watched, step: Span
) -> None:
    watched.look()

    watched.server += step

    assert watched.seconds_until_it_has_run_out() in range(6, 11)


def test_after_a_step_back_a_lease_lasts_its_length_and_no_longer(
    watched: Watched,
) -> None:
    watched.look()

    watched.server -= HOUR

    assert watched.seconds_until_it_has_run_out() == 6


def test_whoever_begins_to_look_knows_nothing_of_the_clock(watched: Watched) -> None:
    watched.pass_time(HOUR)

    assert watched.seconds_until_it_has_run_out() == 6


def test_a_server_that_did_not_answer_may_have_refused_heartbeats(
    watched: Watched,
) -> None:
    for _ in range(5):
        watched.look()
        watched.pass_time(SECOND)
    watched.pass_time(MINUTE)
    watched.faults += 1

    assert watched.seconds_until_it_has_run_out() == 6


def test_a_worker_that_is_heard_of_lives_whatever_the_clock_does(
    watched: Watched,
) -> None:
    steps = [HOUR, -2 * HOUR, 700, -700, SECOND * 4, -SECOND * 4]
    for second in range(120):
        if second % 20 == 7:
            watched.server += steps[second // 20]
        if second % 2 == 0:
            watched.beat()
        assert not watched.look(), second
        watched.pass_time(SECOND)


def test_a_clock_that_goes_a_little_wrong_is_believed(watched: Watched) -> None:
    for _ in range(600):
        watched.beat()
        watched.look()
        watched.pass_time(SECOND)
        watched.server += 1
    watched.beat()

    assert watched.seconds_until_it_has_run_out() == 6


def test_after_a_set_back_a_lease_lasts_its_whole_length(watched: Watched) -> None:
    snapshot = watched.lease
    for _ in range(60):
        watched.beat()
        watched.look()
        watched.pass_time(SECOND)

    watched.lease = snapshot

    assert watched.seconds_until_it_has_run_out() == 6


def test_a_lease_from_a_snapshot_may_have_ended_since_the_last_look(
    watched: Watched,
) -> None:
    snapshot = watched.lease
    for _ in range(6):
        watched.look()
        watched.beat()
        watched.pass_time(SECOND)

    assert snapshot.ends == watched.server
    watched.lease = snapshot

    assert watched.seconds_until_it_has_run_out() == 6


def test_of_more_dead_workers_than_are_found_at_once_all_are_dead() -> None:
    watch = ServerLeases()
    dead = [WorkerLease(str(n), NOON + LENGTH, LENGTH) for n in range(AT_ONCE + 1)]

    def look(seconds: int, leases: list[WorkerLease]) -> list[WorkerLease]:
        passed = seconds * SECOND
        return watch.run_out(leases, NOON + passed, passed, passed, 0)

    for seconds in range(6):
        look(seconds, [])

    assert look(7, dead[:AT_ONCE]) == dead[:AT_ONCE]
    assert look(8, dead[AT_ONCE:]) == dead[AT_ONCE:]
