"""How large a pool should be: as large as the load, and smaller when that stays low."""

from collections import deque
from dataclasses import dataclass, field

from beatd.bounds import count_of
from beatd.instant import SECOND, Span

KEEPALIVE: Span = 30 * SECOND
"""How long the load has to stay low before the pool shrinks; Celery's."""

LOOK: Span = SECOND
"""The time between two looks at the load while nothing happens."""


@dataclass
class Autoscale:
    """Decides, look by look, how many jobs a pool should run at the same time.

    As many as there were to do at any look within `keepalive`: it grows at once, and
    shrinks when the load has been low for that long.

    Invariant: `_peaks` holds the looks that no later one has reached, oldest first.
    """

    most: int
    least: int
    keepalive: Span = KEEPALIVE
    _peaks: deque[tuple[Span, int]] = field(default_factory=deque, init=False)

    def size(self, now: Span, load: int) -> int:
        """Return the size for a load; `now` is any clock that only goes forward."""
        wanted = min(max(load, self.least), self.most)
        peaks = self._peaks
        while peaks and peaks[-1][1] <= wanted:
            peaks.pop()
        peaks.append((now, wanted))
        while peaks[0][0] <= now - self.keepalive and len(peaks) > 1:
            peaks.popleft()
        return peaks[0][1]


def bounds_of(text: str) -> tuple[int, int]:
    """Return the bounds in `max,min` (in any order) or `max`, the larger one first.

    The smaller one is at least 1: one place has to take what comes.

    Raises ValueError.
    """
    numbers = sorted((count_of(int(word)) for word in text.split(",")), reverse=True)
    if len(numbers) > 2 or numbers[0] < 1:
        raise ValueError(text)
    return numbers[0], max(1, numbers[1] if len(numbers) == 2 else 1)
