"""The threads pool where the system has no thread left."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event

import pytest

from beatd.errors import NoThread
from beatd.pools.base import Finished, Job, Lost, PoolEvent, Started, TimedOut
from beatd.pools.threads import Threads
from tests.servers import PATIENCE, eventually


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Let no thread start in the block: none has memory for so large a stack."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)


def job(token: str, time_limit: float | None = None) -> Job:
    return Job(token, b"", 1, time_limit, None)


def test_a_job_for_whose_time_limit_there_is_no_thread_is_lost() -> None:
    events: SimpleQueue[PoolEvent] = SimpleQueue()
    pool = Threads(lambda job: b"done", events.put, size=1)
    pool.start()

    with no_thread_left():
        pool.submit([job("limited", 60)])
        came = [events.get(timeout=PATIENCE) for _ in range(2)]
    pool.submit([job("next")])
    later = [events.get(timeout=PATIENCE) for _ in range(2)]
    pool.stop()

    assert [type(one) for one in came] == [Started, Lost]
    assert "can't start new thread" in getattr(came[1], "reason", "")
    assert later[1] == Finished("next", b"done")


def test_a_pool_that_cannot_start_says_why_and_what_to_do() -> None:
    pool = Threads(lambda job: b"done", lambda event: None, size=3)

    with no_thread_left(), pytest.raises(NoThread) as refused:
        pool.start()

    said = str(refused.value)
    assert "the pool of 3 threads (-c, worker_concurrency)" in said
    assert "cannot start more than 0 of them: can't start new thread" in said
    assert "ulimit -u" in said


def test_a_pool_that_cannot_grow_says_so_and_keeps_its_size(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: SimpleQueue[PoolEvent] = SimpleQueue()
    pool = Threads(lambda job: b"done", events.put, size=1)
    pool.start()

    with no_thread_left():
        pool.resize(3)
        pool.resize(3)
    at_first = pool.size
    pool.resize(2)
    pool.stop()

    assert (at_first, pool.size) == (1, 2)
    [said] = [one for one in caplog.records if vars(one)["event"] == "pool.short"]
    assert "1 task at a time, not 3: can't start new thread" in said.getMessage()


def test_a_thread_that_nobody_can_replace_takes_jobs_again_when_its_code_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: SimpleQueue[PoolEvent] = SimpleQueue()
    begun, go_on = Event(), Event()

    def runner(job: Job) -> bytes:
        if job.time_limit:
            begun.set()
            assert go_on.wait(PATIENCE)
        return b"done"

    pool = Threads(runner, events.put, size=1)
    pool.start()
    pool.submit([job("slow", 0.3)])
    events.get(timeout=PATIENCE)
    assert begun.wait(PATIENCE)
    with no_thread_left():
        came = events.get(timeout=PATIENCE)
        eventually(lambda: pool.size == 0, "the place to be given up")
    go_on.set()
    pool.submit([job("next")])
    later = [events.get(timeout=PATIENCE) for _ in range(2)]
    eventually(lambda: pool.size == 1, "the place to be there again")
    pool.stop()

    assert came == TimedOut("slow", 0.3)
    assert later[1] == Finished("next", b"done")
    assert "pool.short" in [vars(one)["event"] for one in caplog.records]
