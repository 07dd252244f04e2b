"""What greenlets have beyond the contract; test_green.py runs it in patched processes.

Not named `test_...`: in any other process there is nothing to test.
"""

import asyncio
import io
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO, cast

import pytest

from beatd import greenlets
from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.base import Finished, TimedOut
from beatd.pools.green import Green
from beatd.runs.coroutines import run_coroutine
from beatd.runs.stdout import LoggedStream
from tests.pools import desk
from tests.pools.desk import Desk, job
from tests.servers import PATIENCE, eventually


@pytest.fixture
def kind() -> greenlets.Greenlets:
    patched = greenlets.patched()
    assert patched
    return patched


@pytest.fixture
def pool(kind: greenlets.Greenlets) -> Iterator[Desk]:
    at = Desk(lambda runner, on_event: Green(runner, on_event, kind, size=200))
    at.pool.start()
    yield at
    at.pool.kill()


def test_as_many_jobs_as_there_are_places_wait_at_the_same_time(
    pool: Desk, tmp_path: Path
) -> None:
    jobs = [job(desk.wait_for, tmp_path / "go") for _ in range(200)]
    pool.submit(*jobs)
    for one in jobs:
        pool.started(one)

    (tmp_path / "go").touch()

    assert pool.outcomes(jobs) == [Finished(one.token, b"seen") for one in jobs]


def test_the_soft_limit_breaks_into_what_waits(pool: Desk) -> None:
    one = job(desk.sleep, desk.LONG, soft_time_limit=0.05)

    assert pool.run(one) == [Finished(one.token, b"SoftTimeLimitExceeded()")]


def test_a_job_past_its_time_limit_is_ended_where_it_waits(
    pool: Desk, tmp_path: Path
) -> None:
    one = job(desk.note_the_end, tmp_path / "ended", time_limit=0.05)

    assert pool.run(one) == [TimedOut(one.token, 0.05)]
    eventually((tmp_path / "ended").exists, "its end")


def test_a_signal_is_heard_at_once_by_those_who_wait() -> None:
    inbox: SimpleQueue[str] = SimpleQueue()
    before = signal.signal(signal.SIGALRM, lambda *_: inbox.put("rung"))
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert inbox.get(timeout=PATIENCE) == "rung"
    finally:
        signal.signal(signal.SIGALRM, before)

    assert time.monotonic() - began < PATIENCE / 2


def test_coroutines_of_several_greenlets_wait_at_the_same_time(
    kind: greenlets.Greenlets,
) -> None:
    waiting: list[str] = []
    values: list[str] = []

    async def meet(name: str) -> str:
        waiting.append(name)
        while len(waiting) < 4:
            await asyncio.sleep(0.002)
        return name

    for name in "abcd":
        kind.spawn(lambda name=name: values.append(run_coroutine(meet(name))))  # type: ignore[misc] # mypy cannot infer it
    eventually(lambda: len(values) == 4, "all coroutines to meet")

    assert sorted(values) == ["a", "b", "c", "d"]


def test_the_soft_limit_is_raised_inside_a_greenlets_coroutine() -> None:
    async def patient() -> str:
        try:
            await asyncio.sleep(desk.LONG)
        except SoftTimeLimitExceeded:
            return "cleaned up"
        return "never told"

    assert run_coroutine(patient(), 0.05) == "cleaned up"


def test_a_coroutine_is_cancelled_with_its_greenlet(kind: greenlets.Greenlets) -> None:
    told: list[str] = []

    async def wait() -> None:
        told.append("began")
        try:
            await asyncio.sleep(desk.LONG)
        finally:
            told.append("cancelled")

    greenlet = kind.spawn(lambda: run_coroutine(wait()))
    eventually(lambda: told, "the coroutine to begin")
    kind.kill(greenlet)

    eventually(lambda: told == ["began", "cancelled"], "its cancellation")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration])
def test_what_a_greenlets_coroutine_raises_comes_out(
    error: type[BaseException],
) -> None:
    async def fail() -> None:
        raise error

    expected = RuntimeError if error is StopIteration else error
    with pytest.raises(expected):
        run_coroutine(fail())


def test_only_what_greenlets_that_are_gone_began_is_logged_for_them(
    kind: greenlets.Greenlets, caplog: pytest.LogCaptureFixture
) -> None:
    stream = LoggedStream(cast(TextIO, io.StringIO()), logging.WARNING)
    goes_on, said = SimpleQueue[None](), SimpleQueue[None]()

    def say() -> None:
        stream.write("be")
        said.put(None)
        goes_on.get(timeout=PATIENCE)
        stream.write("gun\n")
        stream.write("last words")
        said.put(None)

    kind.spawn(say)
    said.get(timeout=PATIENCE)
    stream.flush()
    goes_on.put(None)
    said.get(timeout=PATIENCE)

    def flushed() -> bool:
        stream.flush()
        return len(caplog.messages) > 1

    eventually(flushed, "its last words")
    assert caplog.messages == ["begun", "last words"]
