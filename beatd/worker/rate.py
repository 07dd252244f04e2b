"""Rate limits: how often runs of a task may begin, and the runs that wait for that."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from beatd.instant import SECOND, Span

T = TypeVar("T")


def sift(queue: deque[T], wanted: Callable[[T], bool]) -> list[T]:
    """Remove the wanted items of a queue, whose order stays; return them."""
    gone = [item for item in queue if wanted(item)]
    if gone:
        left = [item for item in queue if not wanted(item)]
        queue.clear()
        queue.extend(left)
    return gone


@dataclass
class _Bucket(Generic[T]):
    """The runs of one task: a bucket for one token, and the runs that wait for it."""

    pause: float
    """Milliseconds between two beginnings; 0: no limit any more."""
    free_at: float = 0
    """When the next run may begin, by a clock that only goes forward."""
    waiting: deque[T] = field(default_factory=deque)


class Turns(Generic[T]):
    """The runs that wait because of a rate limit, in order, task by task.

    No task waits behind another one. `now` is of any clock that only goes forward.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket[T]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[T]:
        return (item for bucket in self._buckets.values() for item in bucket.waiting)

    def __contains__(self, task: object) -> bool:
        return task in self._buckets

    def limit(self, task: str, rate: float) -> None:
        """Let so many runs of the task begin in a second; 0: no limit."""
        bucket = self._buckets.setdefault(task, _Bucket(0))
        bucket.pause = SECOND / rate if rate else 0
        bucket.free_at = 0

    def must_wait(self, task: str, now: Span) -> bool:
        """Return whether a run of this task has to wait."""
        bucket = self._buckets[task]
        return bool(bucket.waiting) or bucket.free_at > now

    def begin(self, task: str, now: Span) -> None:
        """Take note that a run of this task begins."""
        bucket = self._buckets[task]
        bucket.free_at = now + bucket.pause

    def wait(self, task: str, item: T) -> None:
        """Let a run wait, behind the others of its task."""
        self._buckets[task].waiting.append(item)
        self._number += 1

    def next(self, now: Span) -> T | None:
        """Remove and return a run that may begin now; None if none may."""
        for bucket in self._buckets.values() if self._number else ():
            if bucket.waiting and bucket.free_at <= now:
                self._number -= 1
                return bucket.waiting.popleft()
        return None

    def due(self) -> float | None:
        """Return when the next run may begin; None if none waits."""
        if not self._number:
            return None
        return min(
            bucket.free_at for bucket in self._buckets.values() if bucket.waiting
        )

    def take_out(self, wanted: Callable[[T], bool]) -> list[T]:
        """Remove the wanted runs from those that wait; return them."""
        buckets = self._buckets.values()
        gone = [item for bucket in buckets for item in sift(bucket.waiting, wanted)]
        self._number -= len(gone)
        return gone
