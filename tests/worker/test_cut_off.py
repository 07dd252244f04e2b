"""A worker that was cut off for longer than its lease while others have its tasks."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import Answer, Delivery
from beatd.brokers.memory import MemoryBroker
from beatd.errors import BrokerUnavailable
from beatd.instant import HOUR, SECOND
from beatd.pools.base import Lost, Returned, Started, TimedOut
from beatd.tasks import Task
from beatd.worker.inbox import Fetched, TimePassed
from tests.brokers.making import take_all
from tests.fakes import NOON, FakeClock
from tests.servers import PATIENCE, Server, eventually
from tests.worker.bench import Bench, HeldPool, with_held_pool
from tests.worker.project import Project

LEASE = 6 * SECOND
CANCEL = "worker_cancel_long_running_tasks_on_connection_loss"


class Cut(MemoryBroker):
    """A broker that takes acknowledgements, and whose answers may be lost."""

    is_cut = False

    def settle(self, *request: Any) -> list[Answer]:
        answers = super().settle(*request)
        if self.is_cut:
            raise BrokerUnavailable("the connection was cut")
        return answers


def with_task(
    *, cancel: bool = False, broker: Broker | None = None, **options: Any
) -> tuple[Task[..., None], Bench, HeldPool]:
    """Return a task, and a worker whose pool has one place for it."""
    settings: dict[str, Any] = {CANCEL: cancel}
    bench = Bench(broker=broker, **settings)

    @bench.app.task(name="proj.nap", **options)
    def nap() -> None:
        pass

    return nap, bench, with_held_pool(bench, size=1)


def cut_off(bench: Bench) -> list[Delivery]:
    """Let another worker end the lease; give what it then takes."""
    bench.clock.go_to(bench.clock.now() + LEASE)
    bench.broker.recover()
    bench.broker.join("other", HOUR)
    return take_all(bench.broker, "other", ["celery"])


def left_with(bench: Bench, worker: str) -> int:
    """Return how many deliveries a worker still has in flight."""
    before = len(take_all(bench.broker, "count", ["celery"]))
    bench.broker.leave(worker)
    bench.broker.join("count", HOUR)
    return len(take_all(bench.broker, "count", ["celery"])) - before


def test_a_run_that_ends_when_others_have_it_takes_nothing_from_them() -> None:
    nap, bench, pool = with_task()
    nap.delay()
    bench.run()
    (theirs,) = cut_off(bench)
    assert theirs.deliveries == 2
    bench.inbox.put(TimedOut(pool.jobs[0].token, 1))
    bench.run()

    assert pool.signals == []
    assert bench.worker.window.free() == bench.worker.sizing.capacity
    assert left_with(bench, "other") == 1


def test_what_runs_at_most_once_does_not_begin_when_others_have_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nap, bench, pool = with_task(acks_late=False)
    for _ in range(3):
        nap.delay()
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()  # one is being acknowledged, two wait
    assert len(cut_off(bench)) == 3
    while bench.settle() | bench.handle():  # before the lease is looked after
        pass

    assert pool.jobs == []
    assert bench.worker.held == 0
    assert bench.worker.window.free() == bench.worker.sizing.capacity
    assert left_with(bench, "other") == 3
    said = [getattr(one, "event", "") for one in caplog.records]
    assert said == ["task.gone"] * 3
    assert "3 so far" in caplog.text


def test_what_runs_at_most_once_begins_when_nobody_has_it() -> None:
    nap, bench, pool = with_task(acks_late=False)
    nap.delay()
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    bench.clock.go_to(NOON + HOUR)  # cut off for long, but the only worker
    bench.run()

    assert len(pool.jobs) == 1


def test_an_acknowledgement_whose_answer_was_lost_begins_a_run_once() -> None:
    broker = Cut()
    nap, bench, pool = with_task(acks_late=False, broker=broker)
    nap.delay()
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    broker.is_cut = True
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            bench.worker.settler.settling.turn()
    assert pool.jobs == []
    broker.is_cut = False
    bench.run()

    assert len(pool.jobs) == 1


@pytest.mark.parametrize("is_done", [True, False])
def test_what_was_being_acknowledged_when_the_lease_was_lost_begins_if_it_was_done(
    is_done: bool,
) -> None:
    broker = Cut(clock := FakeClock())
    nap, bench, pool = with_task(acks_late=False, broker=broker)
    nap.delay()
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    if is_done:
        broker.is_cut = True
        with pytest.raises(BrokerUnavailable):
            bench.worker.settler.settling.turn()
        broker.is_cut = False
    clock.go_to(NOON + LEASE)
    theirs = cut_off(bench)
    bench.run()

    assert len(theirs) == (0 if is_done else 1)
    assert len(theirs) + len(pool.jobs) == 1
    assert bench.worker.held == len(pool.jobs)


def test_what_was_taken_under_a_lease_that_is_lost_does_not_begin() -> None:
    nap, bench, pool = with_task(acks_late=False)
    nap.delay()
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    late = bench.inbox.get_nowait()
    cut_off(bench)
    bench.run()
    bench.inbox.put(late)
    bench.run()

    assert pool.jobs == []
    assert bench.worker.window.free() == bench.worker.sizing.capacity


def test_what_may_run_twice_runs_on_and_what_waits_is_left_to_others() -> None:
    nap, bench, pool = with_task()
    nap.delay()
    nap.delay()
    bench.run()
    bench.inbox.put(Started(pool.jobs[0].token, 1))
    bench.run()
    assert len(cut_off(bench)) == 2
    bench.run()
    assert bench.worker.held == 1
    bench.inbox.put(TimedOut(pool.jobs[0].token, 1))
    bench.run()

    assert len(pool.jobs) == 1
    assert bench.worker.window.free() == bench.worker.sizing.capacity
    assert left_with(bench, "other") == 2


def test_what_the_pool_has_not_begun_is_called_back_for_others() -> None:
    nap, bench, pool = with_task()
    pool.demand = 2
    nap.delay()
    nap.delay()
    bench.run()
    begun, unbegun = [job.token for job in pool.jobs]
    bench.inbox.put(Started(begun, 1))
    bench.run()
    cut_off(bench)
    bench.run()
    assert pool.recalled
    bench.inbox.put(Returned([unbegun]))
    bench.run()

    assert len(pool.jobs) == 2
    assert bench.worker.held == 1
    assert left_with(bench, "other") == 2


def test_what_was_asked_for_under_one_lease_and_came_under_the_next_goes_back() -> None:
    nap, bench, pool = with_task()
    nap.delay()
    lease = bench.worker.intake.lease
    lease.turn()
    number = lease.number
    bench.clock.go_to(NOON + LEASE)
    bench.broker.recover()
    lease.turn()
    came = bench.broker.take("here-1", ["celery"], 9, 99)
    bench.worker.window.fill(len(came))
    bench.inbox.put(Fetched(came, number))
    while bench.handle() | bench.settle():
        pass

    assert pool.jobs == []
    assert bench.worker.window.free() == bench.worker.sizing.capacity
    bench.broker.join("other", HOUR)
    assert len(bench.broker.take("other", ["celery"], 9, 1)) == 1


def test_runs_that_others_may_have_are_ended_when_the_settings_ask() -> None:
    nap, bench, pool = with_task(cancel=True)
    for _ in range(2):
        nap.delay()
    bench.run()
    bench.clock.go_to(NOON + LEASE - 1)
    bench.inbox.put(TimePassed())
    bench.handle()
    assert pool.signals == []

    bench.clock.go_to(NOON + LEASE)  # nothing was heard of the broker
    for _ in range(2):
        bench.inbox.put(TimePassed())
        bench.handle()
    assert pool.signals == [(pool.jobs[0].token, signal.SIGTERM)]
    bench.inbox.put(Lost(pool.jobs[0].token, "signal 9 (SIGKILL)"))
    bench.handle()
    bench.settle()

    assert len(pool.jobs) == 1
    bench.broker.join("other", HOUR)
    again = bench.broker.take("other", ["celery"], 9, 1)
    assert [delivery.deliveries for delivery in again] == [1, 1]
    assert bench.results.states == []


def test_a_run_that_was_ended_as_others_have_it_is_not_begun_again() -> None:
    nap, bench, pool = with_task(cancel=True)
    nap.delay()
    bench.run()
    cut_off(bench)
    bench.run()
    bench.inbox.put(Lost(pool.jobs[0].token, "signal 9 (SIGKILL)"))
    bench.run()

    assert len(pool.jobs) == 1
    assert bench.worker.window.free() == bench.worker.sizing.capacity
    assert left_with(bench, "other") == 1


def test_what_the_pool_did_not_get_to_goes_back_to_others_too() -> None:
    nap, bench, pool = with_task(cancel=True)
    nap.delay()
    bench.run()
    cut_off(bench)
    bench.run()
    bench.inbox.put(Returned([pool.jobs[0].token]))
    bench.run()

    assert bench.worker.held == 0
    assert bench.worker.window.free() == bench.worker.sizing.capacity


def test_what_is_acknowledged_runs_here_though_the_pool_did_not_get_to_it() -> None:
    nap, bench, pool = with_task(acks_late=False, cancel=True)
    pool.demand = 2
    for _ in range(2):
        nap.delay()
    bench.run()
    pool.demand = 1
    bench.inbox.put(Returned([pool.jobs[1].token]))
    bench.handle()
    cut_off(bench)
    bench.run()
    bench.inbox.put(TimedOut(pool.jobs[0].token, 1))
    bench.run()

    assert len(pool.jobs) == 3


def test_a_run_that_cannot_be_ended_goes_on() -> None:
    nap, bench, pool = with_task(cancel=True)
    nap.delay()
    bench.run()
    cut_off(bench)
    bench.run()
    bench.inbox.put(TimedOut(pool.jobs[0].token, 1))
    bench.run()

    assert bench.results.states == ["FAILURE"]
    assert left_with(bench, "other") == 1


def test_what_was_acknowledged_before_is_nobody_elses() -> None:
    nap, bench, pool = with_task(acks_late=False, cancel=True)
    nap.delay()
    bench.run()
    cut_off(bench)
    bench.run()

    assert len(pool.jobs) == 1
    assert pool.signals == []


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, server.url(0), server.url(1))
    yield made
    made.app.close()


def test_a_worker_that_was_paused_ends_what_another_runs_by_now(
    project: Project,
) -> None:
    project.configure(**{CANCEL: True})
    with project.worker("-c", "1") as paused:
        project.app.send_task("proj.mark", ["long", 600])
        eventually(lambda: project.runs("long") == 1)
        paused.signal(signal.SIGSTOP)
        with project.worker("-c", "1", "--disable-prefetch") as other:
            eventually(lambda: project.runs("long") == 2)
            paused.signal(signal.SIGCONT)
            paused.await_line("ended here: the worker was cut off")
            sums = [project.app.send_task("proj.add", [n, 1]) for n in range(3)]

            assert [one.get(timeout=PATIENCE) for one in sums] == [1, 2, 3]
            assert project.runs("long") == 2
            other.signal(signal.SIGQUIT)
            other.wait()
        eventually(lambda: project.runs("long") == 3)  # the one left has it again
        paused.signal(signal.SIGQUIT)
        paused.wait()
