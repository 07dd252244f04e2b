"""Time limits: what is done about code that runs too long.

The soft limit raises SoftTimeLimitExceeded inside the code. In the main thread of a
process a timer's signal does so, even out of a system call. In any other thread Python
can only leave the exception there, and the thread raises it before its next Python
instruction: a thread that waits inside C code raises it when it comes back. In a
greenlet and in a coroutine it is raised where they wait, and only there.
"""

import asyncio
import ctypes
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from types import FrameType
from typing import Any, TypeVar

from beatd import greenlets
from beatd.errors import SoftTimeLimitExceeded

T = TypeVar("T")


@contextmanager
def time_limit(seconds: float | None, end: Callable[[], object]) -> Iterator[None]:
    """Call `end`, in another thread, when the block takes longer than `seconds`."""
    if not seconds:
        yield
        return
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def soft_limit(
    seconds: float | None, error: type[BaseException] = SoftTimeLimitExceeded
) -> AbstractContextManager[Any]:
    """Raise `error` in the block when it takes longer than `seconds`.

    It is raised once, no later than the block's end, and never after it.
    """
    if not seconds or seconds <= 0:
        return nullcontext()
    if kind := greenlets.patched():
        return kind.timeout(seconds, error())
    if threading.current_thread() is threading.main_thread():
        return _by_signal(seconds, error)
    return _by_thread(seconds, error)


@contextmanager
def _by_signal(seconds: float, error: type[BaseException]) -> Iterator[None]:
    inside = True

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal inside
        # A signal that was on its way when the block ended does nothing.
        if inside:
            inside = False
            raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_thread(seconds: float, error: type[BaseException]) -> Iterator[None]:
    thread = threading.get_ident()
    lock = threading.Lock()
    inside = due = struck = False

    def strike() -> None:
        nonlocal struck
        struck = True
        _leave(error, thread)

    def ring() -> None:
        nonlocal due
        with lock:
            due = True
            if inside:
                strike()

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        with lock:
            # Not earlier: the exception would be raised amid the start of the timer.
            inside = True
            if due:
                strike()
        yield
    finally:
        with lock:
            inside = False
        timer.cancel()
        if struck:
            _take_back()


def _leave(kind: type[BaseException], thread: int) -> None:
    """Leave an exception for a thread; it replaces one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(kind)
    )


class _Found(BaseException):
    """The exception that a thread leaves for itself, and then catches."""


def _take_back() -> None:
    """Make sure that no exception is left for this thread.

    The exception is replaced by another one, which is raised at once and caught. Just
    to remove it would not do: the interpreter (CPython 3.11, ceval.c) goes on looking
    for one at every call and jump, and under a profiler never gets beyond the first.
    """
    with suppress(_Found):
        _leave(_Found, threading.get_ident())
        while True:
            pass


async def soft_limited(coroutine: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Await a coroutine; raise SoftTimeLimitExceeded in it when it takes longer."""
    if not seconds or seconds <= 0:
        return await coroutine
    inside = Interruptible(coroutine)
    task = asyncio.current_task()
    assert task
    timer = asyncio.get_running_loop().call_later(
        seconds, inside.interrupt, task, SoftTimeLimitExceeded()
    )
    try:
        return await inside
    finally:
        timer.cancel()


class Interruptible(Coroutine[Any, Any, T]):
    """A coroutine in which any exception can be raised where it waits.

    asyncio itself can raise CancelledError there, and no other: the exception is
    carried inside by way of a cancellation.
    """

    def __init__(self, inner: Coroutine[Any, Any, T]) -> None:
        self._inner = inner
        self._task: asyncio.Task[Any] | None = None
        self._instead: BaseException | None = None

    def interrupt(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """Raise `error` in the coroutine, which this task runs or awaits."""
        self._task, self._instead = task, error
        task.cancel()

    def send(self, value: Any) -> Any:
        if self._instead:  # what it awaited was cancelled, and returned all the same
            return self.throw(asyncio.CancelledError)
        return self._inner.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        error, self._instead = self._instead, None
        if error and self._task:
            self._task.uncancel()  # for code inside that asks whether it is cancelled
        return self._inner.throw(error or value or kind)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self

    def __iter__(self) -> Generator[Any, Any, T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)
