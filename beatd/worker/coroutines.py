"""Coroutines run to their end, in whatever thread a task runs in."""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from beatd import greenlets
from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.limits import Interruptible

T = TypeVar("T")


class _Kept:
    """An event loop that ends with its thread."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def __del__(self) -> None:
        self.runner.close()


class _Threads(threading.local):
    """One event loop for each thread, kept from run to run."""

    kept: _Kept | None = None


_threads = _Threads()


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the present context, wait for its end, and give its value."""
    if kind := greenlets.patched():
        return _Apart(coroutine).run(kind)
    kept = _threads.kept = _threads.kept or _Kept()
    loop = kept.runner.get_loop()
    inside = Interruptible(coroutine)
    task = loop.create_task(inside, context=contextvars.copy_context())
    try:
        try:
            return loop.run_until_complete(task)
        except SoftTimeLimitExceeded as error:
            # One that rings while the loop waits comes out of the loop.
            if task.done():
                raise
            inside.interrupt(task, error)
            return loop.run_until_complete(task)
    except BaseException:
        # Whatever the task has left in the loop ends with it.
        _threads.kept = None
        kept.runner.close()
        raise


class _Apart(Generic[T]):
    """A greenlet's coroutine, run in a real thread.

    A thread can run one event loop at a time, and all greenlets share one thread.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._inside = Interruptible(coroutine)
        self._context = contextvars.copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self._limit: BaseException | None = None

    def run(self, kind: greenlets.Greenlets) -> T:
        """Wait, as a greenlet does, for the coroutine's end; give its value."""
        apart = kind.spawn(partial(kind.in_native_thread, self._live))
        try:
            kind.wait(apart)
        except BaseException as limit:  # raised in the greenlet, for what it runs
            self._pass_on(limit)
            if not isinstance(limit, SoftTimeLimitExceeded):
                raise
            kind.wait(apart)
        assert self._task
        return self._task.result()

    def _live(self) -> None:
        runner = asyncio.Runner()
        self._loop = runner.get_loop()
        self._task = self._loop.create_task(self._inside, context=self._context)
        self._loop.call_soon(self._interrupt)
        # The task keeps what it raises; what else comes out was left in the loop.
        with suppress(BaseException):
            self._loop.run_until_complete(self._task)
        with suppress(BaseException):
            runner.close()

    def _pass_on(self, limit: BaseException) -> None:
        self._limit = limit
        if self._loop:  # otherwise it looks when it begins
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        limit, self._limit = self._limit, None
        if limit and self._task:
            self._inside.interrupt(self._task, limit)
