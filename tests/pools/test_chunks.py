"""Several quick jobs in one trip to a child, none of them bound to what goes before."""

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beatd.instant import SECOND
from beatd.pools.base import Finished, Job, Lost, Started, TimedOut
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.children import MOST_JOBS
from beatd.pools.prefork.dispatch import MOST_BYTES
from beatd.pools.prefork.pool import Prefork
from tests.pools import desk
from tests.pools.desk import Desk, job
from tests.servers import PATIENCE, eventually


@contextmanager
def at_pace(size: int = 1, max_tasks_per_child: int | None = None) -> Iterator[Desk]:
    """Yield a pool whose children have been quick, and get many jobs at once."""

    options = PoolOptions(size=size, max_tasks_per_child=max_tasks_per_child)
    at = Desk(lambda *args: Prefork(*args, options=options))
    at.pool.start()
    try:
        quicken(at, size * MOST_JOBS)
        at.returned.clear()
        yield at
    finally:
        at.pool.kill()


def quicken(at: Desk, demand: int) -> None:
    """Have quick jobs run until the pool wants so many at a time."""

    def is_quick() -> bool:
        at.run(*(job(desk.echo, "quick") for _ in range(at.pool.size)))
        return at.pool.demand == demand

    eventually(is_quick, "the pool to be quick")


@pytest.fixture
def pool() -> Iterator[Desk]:
    with at_pace() as at:
        yield at


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no job come back because the machine, not the job before it, is slow."""
    monkeypatch.setattr("beatd.pools.prefork.children.QUICK", int(PATIENCE * SECOND))


def finished(one: Job, report: bytes) -> Finished:
    return Finished(one.token, report)


def test_a_pool_wants_more_jobs_while_they_are_quick(pool: Desk) -> None:
    assert pool.pool.demand == MOST_JOBS

    pool.report(desk.sleep, "0.02")

    assert pool.pool.demand == 1


def test_what_waits_behind_a_long_job_is_given_back_in_order(
    pool: Desk, tmp_path: Path
) -> None:
    long = job(desk.wait_for, tmp_path / "go")
    behind = [job(desk.echo, number) for number in range(5)]
    pool.submit(long, *behind)

    tokens = [one.token for one in behind]
    eventually(lambda: pool.all_events() and pool.returned == tokens, "their return")
    assert pool.pool.demand == 1
    (tmp_path / "go").touch()

    outcomes = pool.outcomes([long, *behind])
    assert outcomes == [
        finished(long, b"seen"),
        *(finished(one, str(number).encode()) for number, one in enumerate(behind)),
    ]
    begun = [event.token for event in pool.events if isinstance(event, Started)]
    assert begun[-5:] == tokens


def test_another_child_runs_what_waits_behind_a_long_job(tmp_path: Path) -> None:
    with at_pace(size=2) as pool:
        long = job(desk.wait_for, tmp_path / "go")
        short = [job(desk.echo, "short") for _ in range(40)]
        pool.submit(*short[:10], long, *short[10:])

        outcomes = pool.outcomes(short)
        (tmp_path / "go").touch()

        assert outcomes == [finished(one, b"short") for one in short]
        assert pool.outcomes([long]) == [finished(long, b"seen")]


@pytest.mark.parametrize("place", [0, 3, 5])
def test_the_end_of_a_child_costs_one_job_of_its_chunk(pool: Desk, place: int) -> None:
    jobs = [job(desk.echo, "lives") for _ in range(5)]
    fatal = job(desk.exit_at_once, 3)
    jobs.insert(place, fatal)

    outcomes = pool.run(*jobs)

    expected = [finished(one, b"lives") for one in jobs]
    assert outcomes == [
        *expected[:place],
        Lost(fatal.token, "exit status 3"),
        *expected[place + 1 :],
    ]


def test_a_time_limit_counts_from_the_jobs_own_beginning(pool: Desk) -> None:
    before = [job(desk.busy, "0.004") for _ in range(20)]
    late = job(desk.sleep, desk.LONG, time_limit=0.05)
    kept = [job(desk.busy, "0.004", time_limit=30.0) for _ in range(3)]

    outcomes = pool.run(*before, late, *kept)

    assert outcomes == [
        *(finished(one, b"was busy") for one in before),
        TimedOut(late.token, 0.05),
        *(finished(one, b"was busy") for one in kept),
    ]


def test_a_child_that_retires_leaves_what_it_has_not_begun_to_the_next() -> None:
    with at_pace(max_tasks_per_child=50) as pool:
        jobs = [job(desk.pid) for _ in range(120)]

        pids = [outcome.report for outcome in pool.run(*jobs)]  # type: ignore[union-attr] # Finished, or it fails

    each = Counter(pids)
    assert len(each) in (3, 4)
    assert max(each.values()) == 50


@pytest.mark.usefixtures("_patient")
def test_recalled_jobs_come_back_unless_they_have_begun(
    pool: Desk, tmp_path: Path
) -> None:
    running = job(desk.wait_for, tmp_path / "go")
    waiting = [job(desk.echo, number) for number in range(3)]
    pool.submit(running)
    pool.started(running)
    pool.pool.submit(waiting)
    pool._jobs.update({one.token: one for one in waiting})

    pool.pool.recall()

    tokens = [one.token for one in waiting]
    eventually(lambda: pool.all_events() and pool.returned == tokens, "their return")
    (tmp_path / "go").touch()
    assert pool.outcomes([running]) == [finished(running, b"seen")]


@pytest.mark.usefixtures("_patient")
def test_a_job_that_has_not_begun_can_be_ended_alone(
    pool: Desk, tmp_path: Path
) -> None:
    running = job(desk.wait_for, tmp_path / "go")
    ended, spared = job(desk.echo, "ended"), job(desk.echo, "spared")
    pool.submit(running, ended, spared)

    pool.process_pool.terminate(ended.token, signal.SIGTERM)
    outcomes = pool.outcomes([ended])
    (tmp_path / "go").touch()

    assert outcomes == [Lost(ended.token, "ended before it began")]
    assert pool.outcomes([running, spared]) == [
        finished(running, b"seen"),
        finished(spared, b"spared"),
    ]


def test_to_end_the_job_that_runs_spares_those_behind_it(pool: Desk) -> None:
    running = job(desk.sleep, desk.LONG)
    spared = [job(desk.echo, "spared") for _ in range(3)]
    pool.submit(running, *spared)
    pool.started(running)

    pool.process_pool.terminate(running.token, signal.SIGKILL)

    assert pool.outcomes([running, *spared]) == [
        Lost(running.token, "signal 9 (SIGKILL)"),
        *(finished(one, b"spared") for one in spared),
    ]


def test_large_messages_go_one_by_one(pool: Desk) -> None:
    size = MOST_BYTES // 2 + 1
    jobs = [job(desk.count_bytes, "y" * size) for _ in range(6)]

    outcomes = pool.run(*jobs)

    assert outcomes == [finished(one, str(size).encode()) for one in jobs]


def test_stop_runs_all_of_a_chunk_to_its_end(pool: Desk) -> None:
    jobs = [job(desk.sleep, "0.02"), *(job(desk.echo, "too") for _ in range(10))]
    pool.submit(*jobs)

    pool.pool.stop()

    assert all(isinstance(outcome, Finished) for outcome in pool.outcomes(jobs))


@pytest.mark.usefixtures("_patient")
def test_kill_loses_each_job_of_a_chunk_once(pool: Desk) -> None:
    jobs = [job(desk.sleep, desk.LONG), *(job(desk.echo, "no") for _ in range(10))]
    pool.submit(*jobs)
    pool.started(jobs[0])

    pool.pool.kill()

    tokens = [event.token for event in pool.all_events() if isinstance(event, Lost)]
    assert sorted(tokens) == sorted({one.token for one in jobs} - set(pool.returned))


STORM: list[Callable[[], Job]] = [
    *(lambda: job(desk.echo, "calm") for _ in range(12)),
    lambda: job(desk.busy, "0.002"),
    lambda: job(desk.sleep, "0.008"),
    lambda: job(desk.sleep, desk.LONG, time_limit=0.01),
    lambda: job(desk.exit_at_once, 1),
    lambda: job(desk.fork_and_return_twice),
]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_asked_of_a_pool_each_job_ends_once(seed: int) -> None:
    chance = random.Random(seed)
    with at_pace(size=2, max_tasks_per_child=40) as pool:
        before = len(pool.events)
        jobs = [chance.choice(STORM)() for _ in range(400)]
        for start in range(0, 400, 20):
            pool.submit(*jobs[start : start + 20])
            match chance.randrange(4):
                case 0:
                    pool.pool.recall()
                case 1:
                    pool.process_pool.renew(fresh=False)
                case 2:
                    pool.pool.resize(chance.randint(1, 3))
                case 3:
                    pool.process_pool.terminate(
                        chance.choice(jobs).token, signal.SIGKILL
                    )
            pool.all_events()
        pool.outcomes(jobs)
        pool.pool.stop()
        events = pool.all_events()[before:]

    ends = Counter(event.token for event in events if not isinstance(event, Started))
    assert ends == Counter(one.token for one in jobs)
    starts = Counter(event.token for event in events if isinstance(event, Started))
    assert max(starts.values()) == 1
