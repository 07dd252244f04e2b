"""What only a pool whose jobs have processes of their own can do, and who refuses."""

import os
import signal
from collections.abc import Iterator

import pytest

from beatd.pools import create
from beatd.pools.base import Finished, Lost, ProcessPool
from beatd.pools.options import PoolOptions
from tests.pools import desk
from tests.pools.desk import Desk, job
from tests.servers import eventually


def at_work(name: str, size: int = 2) -> Iterator[Desk]:
    at = Desk(lambda *args: create(name, *args, options=PoolOptions(size=size)))
    at.pool.start()
    yield at
    at.pool.kill()


@pytest.fixture
def pool() -> Iterator[Desk]:
    yield from at_work("prefork")


@pytest.fixture(params=["solo", "threads", "asyncio"])
def sharing_pool(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from at_work(request.param)


@pytest.mark.parametrize(
    ("number", "ended_by"),
    [
        (signal.SIGTERM, signal.SIGKILL),
        (signal.SIGKILL, signal.SIGKILL),
        (signal.SIGUSR1, signal.SIGUSR1),
    ],
)
def test_a_run_can_be_ended_by_a_signal_and_no_other_notices(
    pool: Desk, number: signal.Signals, ended_by: signal.Signals
) -> None:
    doomed, beside = job(desk.doze, desk.LONG), job(desk.doze, 0.3)
    pool.submit(doomed, beside)
    pool.started(doomed)

    pool.process_pool.terminate(doomed.token, number)
    ended, went_on = pool.outcomes([doomed, beside])
    assert ended == Lost(doomed.token, f"signal {int(ended_by)} ({ended_by.name})")
    assert isinstance(went_on, Finished)
    assert isinstance(pool.run(job(desk.echo, "next"))[0], Finished)


def test_a_job_that_waits_for_a_process_is_ended_before_it_begins() -> None:
    for pool in at_work("prefork", size=1):
        first, second = job(desk.doze, desk.LONG), job(desk.echo, "never")
        pool.submit(first, second)
        pool.started(first)
        pool.process_pool.terminate(second.token, signal.SIGTERM)

        assert pool.outcomes([second]) == [Lost(second.token, "ended before it began")]


def test_a_job_that_is_unknown_cannot_be_ended(pool: Desk) -> None:
    pool.process_pool.terminate("nobody's", signal.SIGKILL)

    assert isinstance(pool.run(job(desk.echo, "next"))[0], Finished)


def test_processes_are_those_in_which_jobs_run(pool: Desk) -> None:
    pids = {int(pool.report(desk.pid)) for _ in range(20)}

    assert pids <= set(pool.pool.processes())
    assert os.getpid() not in pool.pool.processes()


def test_a_renewed_pool_runs_jobs_in_new_processes_and_loses_none(pool: Desk) -> None:
    running = job(desk.doze, 0.3)
    pool.submit(running)
    old = set(pool.pool.processes()) | {pool.started(running).pid}
    eventually(lambda: len(pool.pool.processes()) == 2)
    old |= set(pool.pool.processes())

    assert pool.process_pool.renew(fresh=False)
    outcomes = pool.run(*[job(desk.pid) for _ in range(20)])
    new = {int(one.report) for one in outcomes if isinstance(one, Finished)}
    assert len(outcomes) == 20
    assert not new & old
    assert isinstance(pool.outcomes([running])[0], Finished)
    eventually(lambda: not set(pool.pool.processes()) & old)


def test_a_renewed_pool_ends_as_any_other(pool: Desk) -> None:
    running = job(desk.doze, 0.2)
    pool.submit(running)
    pool.started(running)
    pool.process_pool.renew(fresh=False)
    pool.pool.stop()

    assert isinstance(pool.outcomes([running])[0], Finished)
    assert pool.pool.processes() == []


def test_where_jobs_share_a_process_none_can_be_ended_or_renewed(
    sharing_pool: Desk,
) -> None:
    pool = sharing_pool.pool

    assert pool.processes() == [os.getpid()]
    assert not isinstance(pool, ProcessPool)
