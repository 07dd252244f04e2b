"""What every pool promises, whatever it runs jobs in."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beatd import greenlets
from beatd.errors import ConfigError
from beatd.pools import create
from beatd.pools.base import (
    Finished,
    Lost,
    Pool,
    PoolEvent,
    Returned,
    Started,
    TimedOut,
    Turn,
)
from beatd.pools.options import PoolOptions
from tests.pools import desk
from tests.pools.desk import Desk, job

PATCHED = greenlets.patched()
"""Set where test_green.py runs these tests, in a process of its own."""

NAMES = [PATCHED.name] if PATCHED else ["solo", "threads", "prefork", "asyncio"]
WITH_COMPANY = [name for name in NAMES if name != "solo"]  # it runs one at a time
ABLE_TO_INTERRUPT = [name for name in NAMES if not PATCHED]
"""A greenlet that computes lets no other run, which could interrupt it."""


@pytest.fixture(params=NAMES)
def pool(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from at_work(request.param)


@pytest.fixture(params=WITH_COMPANY)
def pool_of_two(request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A pool that runs two jobs at the same time."""
    yield from at_work(request.param)


def at_work(name: str) -> Iterator[Desk]:
    options = PoolOptions(size=2, initialise=desk.initialise)
    at = Desk(lambda *args: create(name, *args, options=options))
    at.pool.start()
    yield at
    at.pool.kill()


def test_a_job_begins_and_then_ends_with_the_runners_report(pool: Desk) -> None:
    one = job(desk.echo, "hello")

    outcomes = pool.run(one)

    assert outcomes == [Finished(one.token, b"hello")]
    first, second = pool.all_events()
    assert isinstance(first, Started)
    assert first.token == one.token
    assert second == outcomes[0]


def test_started_names_the_process_that_runs_the_job(pool: Desk) -> None:
    one = job(desk.pid)

    (outcome,) = pool.run(one)

    assert outcome == Finished(one.token, str(pool.started(one).pid).encode())


def test_each_of_many_jobs_ends_once_with_its_own_report(pool: Desk) -> None:
    jobs = [job(desk.echo, number) for number in range(300)]

    outcomes = pool.run(*jobs)
    pool.pool.stop()

    reports = [one.message.partition(b"\0")[2] for one in jobs]
    assert outcomes == [
        Finished(one.token, report) for one, report in zip(jobs, reports, strict=True)
    ]
    assert len(pool.all_events()) == 2 * len(jobs)


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
def test_a_task_that_wants_to_end_the_process_does_not(pool: Desk, name: str) -> None:
    assert pool.report(desk.raise_named, name) == f"{name}()"
    assert pool.report(desk.echo, "next") == "next"


def test_a_runner_that_raises_loses_its_job_and_no_other(pool: Desk) -> None:
    broken, next_one = pool.run(job(desk.break_the_runner), job(desk.echo, "next"))

    assert isinstance(broken, Lost)
    assert isinstance(next_one, Finished)


def test_the_soft_limit_is_raised_inside_a_task_that_waits(pool: Desk) -> None:
    one = job(desk.clean_up_at_the_soft_limit, "doze", soft_time_limit=0.05)

    assert pool.run(one) == [Finished(one.token, b"cleaned up")]


@pytest.mark.parametrize("pool", ABLE_TO_INTERRUPT, indirect=True)
def test_the_soft_limit_is_raised_inside_a_task_that_computes(pool: Desk) -> None:
    one = job(desk.clean_up_at_the_soft_limit, "busy", soft_time_limit=0.05)

    assert pool.run(one) == [Finished(one.token, b"cleaned up")]


def test_a_soft_limit_never_hits_the_next_job(pool: Desk) -> None:
    # Each job ends at about its limit, and is followed by one without any.
    pairs = [
        (job(desk.busy, "0.002", soft_time_limit=0.002), job(desk.busy, "0.002"))
        for _ in range(40)
    ]

    outcomes = pool.run(*(one for pair in pairs for one in pair))

    limited = [outcome.report for outcome in outcomes[0::2]]  # type: ignore[union-attr] # Finished, or it fails
    assert outcomes[1::2] == [Finished(two.token, b"was busy") for _, two in pairs]
    assert set(limited) <= {b"was busy", b"SoftTimeLimitExceeded()"}


def test_a_job_that_keeps_its_limits_is_left_alone(pool: Desk) -> None:
    one = job(desk.echo, "quick", time_limit=30, soft_time_limit=20)

    assert pool.run(one) == [Finished(one.token, b"quick")]


def test_initialise_ran_where_the_first_job_runs(pool: Desk) -> None:
    assert pool.report(desk.is_initialised) == "True"


def test_stop_lets_every_job_end(pool: Desk) -> None:
    jobs = [job(desk.sleep, "0.05") for _ in range(5)]

    pool.submit(*jobs)
    pool.pool.stop()

    assert pool.outcomes(jobs) == [Finished(one.token, b"slept") for one in jobs]


def test_two_jobs_run_at_the_same_time(pool_of_two: Desk, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    one, two = job(desk.meet, a, b), job(desk.meet, b, a)

    outcomes = pool_of_two.run(one, two)

    assert outcomes == [Finished(one.token, b"met"), Finished(two.token, b"met")]


def test_a_long_job_does_not_hold_up_short_ones(
    pool_of_two: Desk, tmp_path: Path
) -> None:
    long = job(desk.wait_for, tmp_path / "go")
    short = [job(desk.echo, "short") for _ in range(20)]
    pool_of_two.submit(long, *short)

    outcomes = pool_of_two.outcomes(short)
    (tmp_path / "go").touch()

    assert outcomes == [Finished(one.token, b"short") for one in short]
    assert pool_of_two.outcomes([long]) == [Finished(long.token, b"seen")]


def test_a_job_past_its_time_limit_ends_and_its_place_is_taken(
    pool_of_two: Desk, tmp_path: Path
) -> None:
    late = [job(desk.wait_for, tmp_path / "go", time_limit=0.1) for _ in range(2)]

    timed_out = pool_of_two.run(*late)
    ran = pool_of_two.run(job(desk.echo, "1"), job(desk.echo, "2"))
    (tmp_path / "go").touch()  # a thread that was given up comes to its end
    pool_of_two.pool.stop()

    assert timed_out == [TimedOut(one.token, 0.1) for one in late]
    assert all(isinstance(outcome, Finished) for outcome in ran)
    assert len(pool_of_two.all_events()) == 8


def test_kill_ends_what_runs_and_what_waits_as_lost(
    pool_of_two: Desk, tmp_path: Path
) -> None:
    running = [job(desk.wait_for, tmp_path / "go") for _ in range(2)]
    waiting = [job(desk.echo, "too late") for _ in range(2)]
    pool_of_two.submit(*running, *waiting)
    for one in running:
        pool_of_two.started(one)

    pool_of_two.pool.kill()

    outcomes = pool_of_two.outcomes([*running, *waiting])
    (tmp_path / "go").touch()
    assert all(isinstance(outcome, Lost) for outcome in outcomes)
    assert len(pool_of_two.all_events()) == 6


def test_a_pool_that_grows_runs_more_at_the_same_time(
    pool_of_two: Desk, tmp_path: Path
) -> None:
    jobs = [job(desk.wait_for, tmp_path / "go") for _ in range(4)]
    pool_of_two.submit(*jobs)

    pool_of_two.pool.resize(4)
    for one in jobs:
        pool_of_two.started(one)
    (tmp_path / "go").touch()

    outcomes = pool_of_two.outcomes(jobs)
    assert outcomes == [Finished(one.token, b"seen") for one in jobs]
    assert pool_of_two.pool.size == 4


def test_a_pool_that_shrinks_lets_what_runs_end_and_then_runs_fewer(
    pool_of_two: Desk, tmp_path: Path
) -> None:
    running = [job(desk.wait_for, tmp_path / "go") for _ in range(2)]
    later = [job(desk.doze, "0.01") for _ in range(4)]
    pool_of_two.submit(*running)
    for one in running:
        pool_of_two.started(one)

    pool_of_two.pool.resize(1)
    (tmp_path / "go").touch()
    ended = pool_of_two.outcomes(running)
    pool_of_two.run(job(desk.echo, "the second place may go"))
    pool_of_two.run(*later)

    assert ended == [Finished(one.token, b"seen") for one in running]
    tokens = {one.token for one in later}
    events = [event for event in pool_of_two.all_events() if event.token in tokens]
    kinds = [type(event) for event in events]
    assert kinds == [Started, Finished] * len(later)


def test_a_pool_that_grows_and_shrinks_all_the_time_loses_nothing(
    pool_of_two: Desk,
) -> None:
    jobs = [job(desk.echo, number) for number in range(120)]

    for number in range(0, 120, 4):
        pool_of_two.submit(*jobs[number : number + 4])
        pool_of_two.pool.resize(1 + number % 5)
    outcomes = pool_of_two.outcomes(jobs)
    pool_of_two.pool.stop()

    assert all(isinstance(outcome, Finished) for outcome in outcomes)
    assert len(pool_of_two.all_events()) == 2 * len(jobs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bound", ["max_tasks_per_child", "max_memory_per_child"])
def test_bounds_of_a_child_hold_where_there_are_children(name: str, bound: str) -> None:
    bounds: dict[str, Any] = {bound: 1}  # task, or KiB
    at = Desk(lambda *args: create(name, *args, options=PoolOptions(size=1, **bounds)))
    at.pool.start()
    pids = [at.report(desk.pid) for _ in range(3)]
    at.pool.stop()

    assert len(set(pids)) == (3 if name == "prefork" else 1)


@pytest.mark.skipif("solo" not in NAMES, reason="nothing is left to end it by force")
def test_solo_runs_on_past_the_time_limit() -> None:
    at = Desk(lambda *args: create("solo", *args, options=PoolOptions(size=1)))
    one = job(desk.sleep, 0.1, time_limit=0.01)

    assert at.run(one) == [Finished(one.token, b"slept")]


@pytest.fixture
def told() -> list[PoolEvent]:
    return []


@pytest.fixture
def solo(told: list[PoolEvent]) -> Pool:
    return create("solo", desk.runner, told.append, options=PoolOptions(size=1))


def test_solo_tells_of_a_beginning_before_the_job_runs(
    solo: Pool, told: list[PoolEvent]
) -> None:
    one = job(desk.echo, "hello")

    solo.submit([one])

    began, turn = told
    assert began == Started(one.token, os.getpid())
    assert isinstance(turn, Turn)
    turn.take()
    assert told[2:] == [Finished(one.token, b"hello")]


def test_solo_returns_the_jobs_that_wait_for_their_turn(
    solo: Pool, told: list[PoolEvent]
) -> None:
    first, second, third = (job(desk.echo, number) for number in range(3))
    solo.submit([first, second])
    solo.submit([third])

    solo.recall()
    assert told[2:] == [Returned([second.token, third.token])]
    solo.stop()

    assert told[3:] == [Finished(first.token, b"0")]


def test_solo_loses_what_was_not_run_when_it_is_killed(
    solo: Pool, told: list[PoolEvent]
) -> None:
    first, second = job(desk.echo, 1), job(desk.echo, 2)
    solo.submit([first, second])
    turn = told[1]
    assert isinstance(turn, Turn)

    solo.kill()
    turn.take()

    lost = [event.token for event in told[2:] if isinstance(event, Lost)]
    assert lost == [first.token, second.token]
    assert len(told) == 4


@pytest.mark.skipif("solo" not in NAMES, reason="the other pools can grow")
def test_a_pool_that_cannot_change_keeps_its_size() -> None:
    at = Desk(lambda *args: create("solo", *args, options=PoolOptions(size=1)))

    at.pool.resize(4)

    assert at.pool.size == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_without_jobs_stops(name: str) -> None:
    at = Desk(lambda *args: create(name, *args, options=PoolOptions(size=2)))
    at.pool.start()

    at.pool.stop()

    assert at.all_events() == []


def test_an_unknown_pool_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"one of prefork, .*; got 'fork'"):
        create("fork", desk.runner, print, options=PoolOptions(size=1))
