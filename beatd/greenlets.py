"""gevent and eventlet: many greenlets in one thread, in a process patched for them.

Both replace those parts of the standard library that wait, and have to do so before any
other module imports a name from there. `beatd/__main__.py` calls `patch_for` before it
imports anything else; so this module imports next to nothing itself.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from beatd.errors import ConfigError

T = TypeVar("T")


class Greenlets(Protocol):
    """The functions that pools need of gevent or eventlet."""

    name: str

    def spawn(self, function: Callable[[], object]) -> Any:
        """Start a greenlet, and return it."""
        ...

    def kill(self, greenlet: Any) -> None:
        """Raise GreenletExit in a greenlet, where it waits."""
        ...

    def timeout(
        self, seconds: float, error: BaseException
    ) -> AbstractContextManager[Any]:
        """Raise `error` in the block when it takes longer, where it waits."""
        ...

    def current(self) -> Any:
        """Return the greenlet that runs now; it is `dead` once it has ended."""
        ...

    def in_native_thread(self, function: Callable[[], T]) -> T:
        """Run a function in a real thread; it must raise nothing worse than Exception.

        Other greenlets go on. There are few such threads: wait until one is free.
        """
        ...


class Gevent:
    """The functions of gevent."""

    name = "gevent"

    def __init__(self) -> None:
        import gevent

        self._gevent = gevent
        self.current = gevent.getcurrent
        self.timeout = gevent.Timeout

    def spawn(self, function: Callable[[], object]) -> Any:
        return self._gevent.spawn(function)

    def kill(self, greenlet: Any) -> None:
        greenlet.kill(block=False)

    def in_native_thread(self, function: Callable[[], T]) -> T:
        value: T = self._gevent.get_hub().threadpool.apply(function)
        return value


class Eventlet:
    """The functions of eventlet."""

    name = "eventlet"

    def __init__(self) -> None:
        import eventlet
        import eventlet.tpool

        self._eventlet = eventlet
        self.current = eventlet.getcurrent
        self.timeout = eventlet.Timeout
        self._wake_for_signals()

    def spawn(self, function: Callable[[], object]) -> Any:
        return self._eventlet.spawn(function)

    def kill(self, greenlet: Any) -> None:
        greenlet.kill()

    def in_native_thread(self, function: Callable[[], T]) -> T:
        value: T = self._eventlet.tpool.execute(function)
        return value

    def _wake_for_signals(self) -> None:
        """Have signals end the hub's wait: by itself it goes on until the next timer.

        Until then nothing would act on what a signal handler has done.
        """
        import signal
        import socket

        bell, self._clapper = socket.socketpair()
        self._clapper.setblocking(False)
        signal.set_wakeup_fd(self._clapper.fileno(), warn_on_full_buffer=False)

        def listen() -> None:
            while bell.recv(4096):
                pass

        self._eventlet.spawn(listen)


NAMES = ("gevent", "eventlet")

_patched: Greenlets | None = None


def patched() -> Greenlets | None:
    """Return the greenlets for which this process is patched; None if it is not."""
    return _patched


def named(name: str) -> Greenlets:
    """Return the greenlets of this name.

    Raises ConfigError when they are not installed, or the process not patched for them.
    """
    if _patched and _patched.name == name:
        return _patched
    if find_spec(name) is None:
        problem = f"pool {name} needs the extra of that name: pip install beatd[{name}]"
    else:
        problem = (
            f"{name} replaces parts of Python, before anything else is imported: start"
            f" with `beatd worker -P {name}`, or call beatd.greenlets.patch({name!r})"
            " in the first line of your program"
        )
    raise ConfigError("worker_pool", [problem])


def patch(name: str) -> None:
    """Patch this process for `gevent` or `eventlet`, once and for all."""
    global _patched
    if name == "gevent":
        from gevent import monkey

        monkey.patch_all()
        _patched = Gevent()
    else:
        import eventlet

        eventlet.monkey_patch()
        _patched = Eventlet()


def patch_for(words: Sequence[str]) -> None:
    """Patch this process if the command line asks for a worker with such a pool.

    Do nothing if the pool is not installed: `named` reports that later.
    """
    name = _pool_in(words)
    if "worker" in words and name in NAMES:
        with suppress(ImportError):
            patch(name)


_POOL = re.compile(r"(?:-[BCDEq]*P|--pool=)(.+)")
_POOL_FOLLOWS = re.compile(r"-[BCDEq]*P|--pool")


def _pool_in(words: Sequence[str]) -> str:
    for word, following in pairwise([*words, ""]):
        if _POOL_FOLLOWS.fullmatch(word):
            return following
        if found := _POOL.fullmatch(word):
            return found[1]
    return ""
