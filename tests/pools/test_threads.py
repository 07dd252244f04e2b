"""The threads pool where the system has no thread left."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from beatd.pools.base import Finished, Job, Lost, PoolEvent, Started
from beatd.pools.threads import Threads
from tests.servers import PATIENCE


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
