"""Coroutines run to their end, in whatever thread a task runs in."""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from beatd.errors import SoftTimeLimitExceeded

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


class _Interruptible(Coroutine[Any, Any, T]):
    """A coroutine in which another exception can be raised than CancelledError.

    A soft time limit that rings while the loop waits comes out of the loop, not into
    the task. It is carried inside by way of a cancellation.
    """

    def __init__(self, inner: Coroutine[Any, Any, T]) -> None:
        self._inner = inner
        self.instead: BaseException | None = None

    def send(self, value: Any) -> Any:
        return self._inner.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        error, self.instead = self.instead, None
        return self._inner.throw(error or value or kind)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._inner.__await__()


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in this thread, in the present context, and give its value."""
    kept = _threads.kept = _threads.kept or _Kept()
    loop = kept.runner.get_loop()
    carrier = _Interruptible(coroutine)
    task = loop.create_task(carrier, context=contextvars.copy_context())
    try:
        try:
            return loop.run_until_complete(task)
        except SoftTimeLimitExceeded as error:
            if task.done():
                raise
            carrier.instead = error
            task.cancel()
            return loop.run_until_complete(task)
    except BaseException:
        # Whatever the task has left in the loop ends with it.
        _threads.kept = None
        kept.runner.close()
        raise
