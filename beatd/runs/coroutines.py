"""Runs coroutines to their end, in the thread in which the task runs."""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from beatd import greenlets
from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.limits import Interruptible, soft_limit, soft_limited
from beatd.runs import stdout

T = TypeVar("T")


class _ThreadLoop:
    """An event loop that ends with its thread."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def __del__(self) -> None:
        self.runner.close()


class _Threads(threading.local):
    """One event loop for each thread, kept from run to run."""

    kept: _ThreadLoop | None = None


_threads = _Threads()


def run_coroutine(coroutine: Coroutine[Any, Any, T], soft: float | None = None) -> T:
    """Run a coroutine in the present context to its end, and return its value.

    SoftTimeLimitExceeded is raised in it after `soft` seconds.
    """
    if kind := greenlets.patched():
        return _NativeThreadRun(soft_limited(coroutine, soft)).run(kind)
    if threading.current_thread() is threading.main_thread():
        with soft_limit(soft):
            return _run(coroutine)
    return _run(soft_limited(coroutine, soft))


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    kept = _threads.kept = _threads.kept or _ThreadLoop()
    loop = kept.runner.get_loop()
    inside = Interruptible(coroutine)
    task = loop.create_task(inside, context=contextvars.copy_context())
    try:
        try:
            return loop.run_until_complete(task)
        except SoftTimeLimitExceeded as error:
            # The signal of the soft limit came while the loop waited: the error was
            # raised in the loop, and is to be raised in the coroutine.
            if task.done():
                raise
            inside.interrupt(task, error)
            return loop.run_until_complete(task)
    except BaseException:
        # What the task has left in the loop ends with the loop.
        _threads.kept = None
        kept.runner.close()
        raise


class _NativeThreadRun(Generic[T]):
    """A greenlet's coroutine, run in a real thread.

    A thread can run one event loop at a time, and all greenlets share one thread.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self._given_up = False

    def run(self, kind: greenlets.Greenlets) -> T:
        """Wait, as a greenlet does, for the coroutine's end; return its value."""
        try:
            kind.in_native_thread(self._run)
        except BaseException:  # the greenlet is killed
            self._give_up()
            raise
        assert self._task
        return self._task.result()

    def _run(self) -> None:
        runner = asyncio.Runner()
        self._loop = runner.get_loop()
        self._task = self._loop.create_task(self._coroutine, context=self._context)
        self._loop.call_soon(self._cancel_if_given_up)
        # The task keeps its own exception; any other is of what is left in the loop.
        with suppress(BaseException):
            self._loop.run_until_complete(self._task)
        with suppress(BaseException):  # from coroutines that the task has left
            runner.close()
        # Only this thread can flush what it has printed, and it goes on to other work.
        stdout.flush()

    def _give_up(self) -> None:
        self._given_up = True
        if self._loop:  # without a loop yet, `_run` asks when it begins
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._cancel_if_given_up)

    def _cancel_if_given_up(self) -> None:
        if self._given_up and self._task:
            self._task.cancel()
