"""The soft time limit: SoftTimeLimitExceeded raised inside code that runs too long.

In a process's main thread a timer's signal raises it, even out of a system call. In any
other thread Python can only leave the exception for the thread to find before its next
instruction of Python: a thread that waits inside C code finds it when it comes back.
"""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

from beatd.errors import SoftTimeLimitExceeded


def soft_limit(seconds: float | None) -> AbstractContextManager[None]:
    """Raise SoftTimeLimitExceeded in the block when it takes longer than `seconds`.

    It is raised once, no later than the block's end, and never after it.
    """
    if not seconds or seconds <= 0:
        return nullcontext()
    if threading.current_thread() is threading.main_thread():
        return _by_signal(seconds)
    return _by_thread(seconds)


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    inside = True

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal inside
        # A signal that was on its way when the block ended hits nobody.
        if inside:
            inside = False
            raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    lock = threading.Lock()
    inside = True

    def ring() -> None:
        with lock:
            if inside:
                raise_in(thread, ctypes.py_object(SoftTimeLimitExceeded))

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            inside = False
        timer.cancel()
        # Take back an exception that was left for us and not found yet.
        raise_in(thread, None)
