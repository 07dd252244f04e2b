"""What coroutines share one event loop for, and how they are stopped."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beatd.pools.asyncio import Asyncio
from beatd.pools.base import Finished, Lost, TimedOut
from tests.pools import desk
from tests.pools.desk import Desk, job
from tests.servers import eventually


@pytest.fixture
def pool() -> Iterator[Desk]:
    at = Desk(lambda *args: Asyncio(*args, size=20))
    at.pool.start()
    yield at
    at.pool.kill()


def test_coroutines_share_one_thread(pool: Desk) -> None:
    jobs = [job(desk.loop_thread) for _ in range(50)]

    outcomes = pool.run(*jobs)

    threads = {one.report for one in outcomes if isinstance(one, Finished)}
    assert len(threads) == 1
    assert threads != {str(threading.get_ident()).encode()}


def test_as_many_coroutines_as_there_are_places_wait_at_the_same_time(
    pool: Desk, tmp_path: Path
) -> None:
    jobs = [job(desk.wait_on_the_loop_for, tmp_path / "go") for _ in range(20)]
    one_more = job(desk.loop_thread)
    pool.submit(*jobs, one_more)
    for one in jobs:
        pool.started(one)

    assert pool.events_of(one_more) == []
    (tmp_path / "go").touch()

    assert pool.outcomes(jobs) == [Finished(one.token, b"seen") for one in jobs]
    assert isinstance(pool.outcomes([one_more])[0], Finished)


def test_a_function_that_blocks_does_not_hold_up_coroutines(
    pool: Desk, tmp_path: Path
) -> None:
    blocks = job(desk.wait_for, tmp_path / "go")
    pool.submit(blocks)
    pool.started(blocks)

    assert pool.report(desk.loop_thread)
    (tmp_path / "go").touch()
    assert pool.outcomes([blocks]) == [Finished(blocks.token, b"seen")]


def test_the_soft_limit_is_raised_inside_and_is_no_cancellation(pool: Desk) -> None:
    one = job(desk.clean_up_on_the_loop, soft_time_limit=0.05)

    assert pool.run(one) == [Finished(one.token, b"cleaned up, 0 to cancel")]


def test_the_soft_limit_is_met_though_what_is_waited_for_swallows_it(
    pool: Desk,
) -> None:
    one = job(desk.wait_for_one_who_is_not_cancelled, soft_time_limit=0.05)

    assert pool.run(one) == [Finished(one.token, b"cleaned up")]


def test_a_coroutine_past_its_time_limit_is_cancelled(
    pool: Desk, tmp_path: Path
) -> None:
    one = job(desk.note_the_cancellation, tmp_path / "cancelled", time_limit=0.05)

    assert pool.run(one) == [TimedOut(one.token, 0.05)]
    eventually((tmp_path / "cancelled").exists, "its cancellation")


def test_a_coroutine_that_refuses_to_be_cancelled_gives_up_its_place(
    pool: Desk, tmp_path: Path
) -> None:
    pool.pool.resize(1)
    one = job(desk.refuse_to_be_cancelled, tmp_path / "go", time_limit=0.05)

    assert pool.run(one) == [TimedOut(one.token, 0.05)]
    assert pool.report(desk.loop_thread)
    (tmp_path / "go").touch()


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize(
    "task", [desk.raise_on_the_loop, desk.leave_behind_what_raises]
)
def test_a_coroutine_that_wants_to_end_the_process_does_not(
    pool: Desk, task: Callable[[str], object], name: str, tmp_path: Path
) -> None:
    pool.report(task, name)

    later = job(desk.wait_on_the_loop_for, tmp_path / "go")
    threading.Timer(0.05, (tmp_path / "go").touch).start()
    assert pool.run(later) == [Finished(later.token, b"seen")]


def test_what_a_coroutine_left_on_the_loop_is_cancelled_at_the_end(
    pool: Desk, tmp_path: Path
) -> None:
    assert pool.report(desk.leave_a_coroutine_behind, tmp_path / "gone") == "left"
    assert pool.report(desk.loop_thread)

    pool.pool.stop()

    assert (tmp_path / "gone").exists()


def test_kill_does_not_wait_for_a_coroutine_that_holds_the_loop(
    pool: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beatd.pools.asyncio.GRACE", 0.05)
    holds, waits = job(desk.hold_the_loop, tmp_path / "go"), job(desk.loop_thread)
    pool.submit(holds, waits)
    pool.started(holds)

    pool.pool.kill()
    outcomes = pool.outcomes([holds, waits])
    (tmp_path / "go").touch()

    assert all(isinstance(one, Lost) for one in outcomes)
