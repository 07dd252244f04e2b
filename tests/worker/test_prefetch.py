"""The prefetch window follows what the pool gets through, when no setting says it."""

from typing import Any

import pytest

from beatd.brokers.items import Answer, Delivery
from beatd.brokers.memory import MemoryBroker
from beatd.instant import SECOND, Span
from beatd.message import Limits, read_body, read_envelope
from beatd.pools.base import Finished, Lost, Returned, Several, Started
from beatd.runs.report import Report, pack_report
from beatd.worker.inbox import TimePassed
from beatd.worker.loop import LONGEST_WAIT
from beatd.worker.throughput import AHEAD, MOST_AHEAD, Throughput
from tests.fakes import FakeClock
from tests.worker.bench import Bench, HeldPool

PLACES = 2


def bench_with(*numbers: int, **settings: Any) -> tuple[Bench, HeldPool]:
    """Return a bench whose queue has calls with these numbers, and its pool."""
    bench = Bench(
        **{"worker_prefetch_multiplier": None, "pool": HeldPool(PLACES), **settings}
    )
    task = bench.app.task(name="nothing")(_nothing)
    for number in numbers:
        task.delay(number)
    bench.worker.intake.lease.turn()
    return bench, bench.pool


def _nothing(number: int) -> None:
    pass


def take(bench: Bench) -> None:
    """Let the worker take what it may hold."""
    while bench.worker.intake.fetcher.turn() | bench.handle() | bench.settle():
        pass


def held(bench: Bench) -> int:
    """Return how many deliveries the worker has."""
    return bench.worker.held


def end(bench: Bench, pool: HeldPool, number: int, took: Span) -> None:
    """Let so much time pass, and then so many runs have ended."""
    bench.clock.go_to(bench.clock.now() + took)
    jobs, pool.jobs = pool.jobs[:number], pool.jobs[number:]
    events = [Started(job.token, 1) for job in jobs]
    ends = [Finished(job.token, pack_report(Report(state="SUCCESS"))) for job in jobs]
    bench.worker.handle(*events, *ends)
    bench.settle()
    bench.handle()


def wait(bench: Bench, length: Span) -> None:
    """Let so much time pass in which nothing happens."""
    bench.clock.go_to(bench.clock.now() + length)
    bench.worker.handle(TimePassed())
    bench.settle()
    bench.handle()


def test_nothing_waits_here_before_anything_is_measured() -> None:
    bench, _ = bench_with(*range(100))
    take(bench)

    assert held(bench) == PLACES


def test_what_runs_within_the_time_ahead_waits_here() -> None:
    bench, pool = bench_with(*range(100))
    for _ in range(20):
        take(bench)
        end(bench, pool, PLACES, took=10)

    # Two in ten milliseconds.
    assert bench.worker.sizing.capacity == pytest.approx(PLACES + AHEAD / 5, abs=1)


def test_a_worker_with_quick_runs_soon_takes_hundreds_at_once() -> None:
    bench, pool = bench_with(*range(3 * MOST_AHEAD))
    turns = 0
    while held(bench) <= MOST_AHEAD:
        take(bench)
        end(bench, pool, len(pool.jobs), took=turns % 2)
        turns += 1
        take(bench)

    assert turns < 50
    assert bench.worker.sizing.capacity == PLACES + MOST_AHEAD


def test_with_long_runs_a_worker_holds_no_more_than_it_runs() -> None:
    bench, pool = bench_with(*range(100))
    for _ in range(5):
        take(bench)
        assert held(bench) == PLACES
        end(bench, pool, PLACES, took=10 * SECOND)


def many_waiting(**settings: Any) -> tuple[Bench, HeldPool]:
    """Return a bench at which runs wait behind two that have begun."""
    bench, pool = bench_with(*range(60), **settings)
    take(bench)
    end(bench, pool, PLACES, took=0)
    take(bench)
    bench.worker.handle(*[Started(job.token, 1) for job in pool.jobs])
    assert held(bench) == 60 - PLACES
    return bench, pool


def numbers_in(messages: list[bytes]) -> list[int]:
    limits = Limits()
    return [read_body(read_envelope(one, limits), limits).args[0] for one in messages]


def test_what_would_wait_behind_long_runs_goes_back_to_its_queue_in_order() -> None:
    bench, _ = many_waiting()
    first = numbers_in([run.delivery.message for run in bench.worker.backlog])
    wait(bench, LONGEST_WAIT)
    wait(bench, AHEAD)

    assert held(bench) == PLACES
    bench.broker.join("other", SECOND)
    found = bench.broker.take("other", ["celery"], len(first), 1)
    assert numbers_in([one.message for one in found]) == first
    assert {one.deliveries for one in found} == {1}


def test_nothing_goes_back_before_it_has_waited_for_long() -> None:
    bench, _ = many_waiting()
    before = held(bench)
    wait(bench, LONGEST_WAIT - 1)

    assert held(bench) == before


def test_nothing_goes_back_while_the_pool_gets_through_it() -> None:
    bench, pool = bench_with(*range(4 * LONGEST_WAIT))
    for _ in range(LONGEST_WAIT):
        take(bench)
        before = held(bench)
        end(bench, pool, PLACES, took=1)
        assert held(bench) == before - PLACES

    assert len(bench.worker.backlog) > AHEAD


@pytest.mark.parametrize("multiplier", [1, 4, 30])
def test_a_multiplier_that_somebody_set_is_obeyed(multiplier: int) -> None:
    bench, pool = bench_with(*range(100), worker_prefetch_multiplier=multiplier)
    take(bench)
    assert held(bench) == PLACES * multiplier

    bench.worker.handle(*[Started(job.token, 1) for job in pool.jobs])
    wait(bench, 10 * SECOND)
    assert held(bench) == PLACES * multiplier


def test_what_has_lost_a_process_here_stays_here() -> None:
    # The broker counts workers that died, and not processes of theirs.
    bench, pool = many_waiting()
    job = pool.jobs.pop()
    bench.worker.handle(Lost(job.token, "signal 9 (SIGKILL)"))
    wait(bench, LONGEST_WAIT)
    wait(bench, AHEAD)

    assert [run.token for run in bench.worker.backlog] == [job.token]
    assert held(bench) == PLACES + 1


def test_what_is_acknowledged_stays_here() -> None:
    bench, pool = bench_with(*range(60), task_acks_late=False)
    take(bench)
    end(bench, pool, PLACES, took=0)
    pool.demand = PLACES + 1  # one more waits in the pool
    take(bench)
    *begun, behind = pool.jobs
    pool.demand = PLACES
    started = [Started(job.token, 1) for job in begun]
    bench.worker.handle(*started, Returned([behind.token]))
    assert held(bench) > PLACES + 1
    wait(bench, LONGEST_WAIT)
    wait(bench, AHEAD)

    assert [run.token for run in bench.worker.backlog] == [behind.token]


def test_time_in_which_the_pool_had_nothing_counts_for_nothing() -> None:
    bench, pool = bench_with(*range(10))
    take(bench)
    while pool.jobs:
        end(bench, pool, PLACES, took=10)
        take(bench)
    before = bench.worker.sizing.capacity
    wait(bench, 3600 * SECOND)

    assert bench.worker.sizing.capacity == before > PLACES


def test_a_throughput_is_never_more_than_the_most() -> None:
    throughput = Throughput()
    throughput.passed(0, 1)
    assert throughput.ahead() == MOST_AHEAD

    throughput.passed(AHEAD, 0)
    assert throughput.ahead() == 0


def test_what_ended_together_is_settled_together() -> None:
    bench, pool = bench_with(*range(100), worker_prefetch_multiplier=50)
    pool.demand = 100
    take(bench)
    jobs = pool.jobs.copy()
    events = [Started(job.token, 1) for job in jobs]
    ends = [Finished(job.token, pack_report(Report(state="SUCCESS"))) for job in jobs]
    bench.worker.handle(Several([*events, *ends]))

    assert bench.worker.settler.settling.waiting == 1
    assert bench.worker.settler.settling.turn()
    assert not bench.worker.settler.settling.turn()
    assert len(jobs) == 100


class CountingBroker(MemoryBroker):
    """Counts the requests that a worker makes for its deliveries."""

    requests = 0

    def take(self, *about: Any, **more: Any) -> list[Delivery]:
        self.requests += 1
        return super().take(*about, **more)

    def settle(self, *about: Any, **more: Any) -> list[Answer]:
        self.requests += 1
        return super().settle(*about, **more)


def test_many_quick_runs_cost_few_requests() -> None:
    broker = CountingBroker(FakeClock())
    bench, pool = bench_with(*range(5_000), broker=broker)
    pool.demand = 500
    while bench.worker.intake.fetcher.turn():
        while bench.handle() or pool.jobs:
            end(bench, pool, len(pool.jobs), took=0)

    assert bench.worker.workload.total.total() == 5_000
    assert broker.requests < 50


class CountingPool(HeldPool):
    """Counts the jobs that it is given each time."""

    def __init__(self) -> None:
        super().__init__(PLACES)
        self.given: list[int] = []

    def submit(self, jobs: Any) -> None:
        self.given.append(len(jobs))
        super().submit(jobs)


def test_what_is_acknowledged_together_goes_to_the_pool_together() -> None:
    pool = CountingPool()
    bench, _ = bench_with(
        *range(100), pool=pool, worker_prefetch_multiplier=50, task_acks_late=False
    )
    pool.demand = 100
    take(bench)

    assert pool.given == [100]
