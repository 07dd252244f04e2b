"""Rate limits: how often the runs of a task may begin, and the runs that wait."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from beatd.instant import SECOND, Span

T = TypeVar("T")

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def rate_of(limit: str | float | None) -> float:
    """Return a limit as runs a second: `10/m`, `5/s`, `100/h`, or a number. 0 is none.

    Raises ValueError.
    """
    if isinstance(limit, str):
        number, _, unit = limit.strip().partition("/")
        runs = float(number or 0)
        if (unit or "s") not in _SECONDS:
            raise ValueError(f"expected a rate such as 10/s, 10/m or 10/h: {limit!r}")
        runs /= _SECONDS[unit or "s"]
    else:
        runs = limit or 0
    if not 0 <= runs < math.inf:  # also refuses NaN
        raise ValueError(f"expected a rate of 0 or more: {limit!r}")
    return runs


def sift(line: deque[T], wanted: Callable[[T], bool]) -> list[T]:
    """Remove the wanted items of a line, whose order stays; return them."""
    gone = [item for item in line if wanted(item)]
    if gone:
        left = [item for item in line if not wanted(item)]
        line.clear()
        line.extend(left)
    return gone


@dataclass
class _Line(Generic[T]):
    """The runs of one task: a bucket for one token, and the runs that wait for it."""

    pause: float
    """Between two beginnings, in milliseconds; 0: no limit any more."""
    free_at: float = 0
    """When the next token is there, by a clock that only goes forward."""
    waiting: deque[T] = field(default_factory=deque)


class Turns(Generic[T]):
    """The runs that wait because of a rate limit, in order, task by task.

    No task waits behind another one. `now` is any clock that only goes forward.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line[T]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[T]:
        return (item for line in self._lines.values() for item in line.waiting)

    def __contains__(self, task: object) -> bool:
        return task in self._lines

    def limit(self, task: str, rate: float) -> None:
        """Let so many runs of the task begin in a second; 0: no limit."""
        line = self._lines.setdefault(task, _Line(0))
        line.pause = SECOND / rate if rate else 0
        line.free_at = 0

    def must_wait(self, task: str, now: Span) -> bool:
        """Say whether a run of this task has to wait."""
        line = self._lines[task]
        return bool(line.waiting) or line.free_at > now

    def begin(self, task: str, now: Span) -> None:
        """Take note that a run of this task begins."""
        line = self._lines[task]
        line.free_at = now + line.pause

    def wait(self, task: str, item: T) -> None:
        """Add a run to those that wait, behind those of the same task."""
        self._lines[task].waiting.append(item)
        self._number += 1

    def next(self, now: Span) -> T | None:
        """Remove and return a run that may begin now; None if none may."""
        for line in self._lines.values() if self._number else ():
            if line.waiting and line.free_at <= now:
                self._number -= 1
                return line.waiting.popleft()
        return None

    def due(self) -> float | None:
        """Return when the next run may begin; None if none waits."""
        lines = self._lines.values() if self._number else ()
        return min((line.free_at for line in lines if line.waiting), default=None)

    def take_out(self, wanted: Callable[[T], bool]) -> list[T]:
        """Remove the wanted runs from those that wait; return them."""
        lines = self._lines.values()
        gone = [item for line in lines for item in sift(line.waiting, wanted)]
        self._number -= len(gone)
        return gone
