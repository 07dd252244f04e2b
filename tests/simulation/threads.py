"""What the worker takes from `threading` and `queue`, on the greenlets of a process.

So the real worker runs as a whole: its loop, its lease, its fetcher and all that
settles, each in a greenlet where it has a thread.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from types import SimpleNamespace, TracebackType
from typing import Any, Generic, TypeVar

from beatd import background
from beatd.instant import SECOND
from beatd.worker import lease, unkept, window
from tests.simulation.world import Nap, present_process

T = TypeVar("T")


class Condition:
    """Waits for what other greenlets do. Nothing else runs between two waits."""

    def __init__(self) -> None:
        self._process = present_process()
        self._sleepers: list[Nap] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass

    def wait_for(
        self, predicate: Callable[[], object], timeout: float | None = None
    ) -> bool:
        """Return whether it came true within so many seconds."""
        world = self._process.world
        end = None if timeout is None else world.now + max(1, round(timeout * SECOND))
        while not predicate():
            if end is not None and world.now >= end:
                return False
            self._process.rest(self._sleepers, None if end is None else end - world.now)
        return True

    def notify_all(self) -> None:
        self._process.rouse(self._sleepers)


class Lock:
    """Is held by one greenlet."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._is_held = False

    def __enter__(self) -> None:
        self._changed.wait_for(lambda: not self._is_held)
        self._is_held = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_held = False
        self._changed.notify_all()


class Event:
    """Is set once."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._changed.notify_all()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        return self._changed.wait_for(self.is_set, timeout)


class Thread:
    """A greenlet of the process that starts it."""

    def __init__(self, target: Callable[[], object], **named: object) -> None:
        self._target = target
        self._ended = Event()

    def start(self) -> None:
        present_process().spawn(self._run)

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def _run(self) -> None:
        self._target()
        self._ended.set()


class Queue(Generic[T]):
    """Hands items from greenlet to greenlet."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        self._items.append(item)
        self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T:
        if not self._changed.wait_for(lambda: self._items, timeout):
            raise Empty
        return self._items.popleft()

    def get_nowait(self) -> T:
        if not self._items:
            raise Empty
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


_THREADING = SimpleNamespace(Thread=Thread, Event=Event, Lock=Lock, Condition=Condition)

_PLACES: list[tuple[Any, str, Any]] = [
    (background, "threading", _THREADING),
    (background, "SimpleQueue", Queue),
    (unkept, "threading", _THREADING),
    (window, "threading", _THREADING),
    (lease, "threading", _THREADING),
]


@contextmanager
def greenlets_for_threads() -> Iterator[None]:
    """Have what workers are made of use greenlets for a while."""
    before = [(place, name, getattr(place, name)) for place, name, _ in _PLACES]
    for place, name, ours in _PLACES:
        setattr(place, name, ours)
    try:
        yield
    finally:
        for place, name, theirs in before:
            setattr(place, name, theirs)
