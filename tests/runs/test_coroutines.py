"""Coroutines in any thread, and the soft time limit inside them."""

import asyncio
import contextvars
import threading

import pytest

from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.limits import soft_limit
from beatd.runs.coroutines import run_coroutine

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word")


async def loop_of() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_one_thread_keeps_its_loop_and_another_has_its_own() -> None:
    loops = [run_coroutine(loop_of()), run_coroutine(loop_of())]
    thread = threading.Thread(target=lambda: loops.append(run_coroutine(loop_of())))
    thread.start()
    thread.join()

    assert loops[0] is loops[1]
    assert loops[2] is not loops[0]


def test_a_coroutine_runs_in_the_context_it_was_started_in() -> None:
    async def word() -> str:
        await asyncio.sleep(0)
        return WORD.get()

    token = WORD.set("here")
    try:
        assert run_coroutine(word()) == "here"
    finally:
        WORD.reset(token)


def test_the_soft_time_limit_is_raised_inside_a_coroutine_that_waits() -> None:
    async def patient() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
            return "cleaned up"
        return "not interrupted"

    with soft_limit(0.05):
        assert run_coroutine(patient()) == "cleaned up"


def test_the_soft_time_limit_comes_out_of_a_coroutine_that_lets_it() -> None:
    with pytest.raises(SoftTimeLimitExceeded), soft_limit(0.05):
        run_coroutine(asyncio.sleep(30))

    assert run_coroutine(asyncio.sleep(0, "the next one")) == "the next one"


def test_what_a_failed_coroutine_left_in_the_loop_is_ended() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("background")

    tasks: list[asyncio.Task[None]] = []

    async def fails() -> None:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        run_coroutine(fails())

    assert ended == ["background"]
