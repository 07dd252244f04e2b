"""How many runs a pool gets through, as it was measured while it was busy."""

from math import exp

from beatd.instant import Span

AHEAD: Span = 50
"""What waits in a worker for a place in the pool gets one within this, as far as known.
And how far back the measurement goes, roughly."""

MOST_AHEAD = 1_000
"""So many deliveries wait for a place at most, however quick the runs are."""


class Throughput:
    """How many runs a pool gets through: older times count for less and less.

    What a pool does not get to because nothing is there for it counts for nothing.
    """

    def __init__(self) -> None:
        self._ended = 0.0
        self._busy = 0.0
        self._since_last_end: Span = 0

    def passed(self, time: Span, ended: int) -> None:
        """Take note of how many runs ended in a time in which the pool was busy."""
        kept = exp(-time / AHEAD)
        self._ended = self._ended * kept + ended
        self._busy = self._busy * kept + time
        self._since_last_end = 0 if ended else self._since_last_end + time

    def ahead(self) -> int:
        """Return how many runs to hold beside those that the pool runs.

        None, if the last one has ended so long ago that those that run are long ones.
        """
        if self._since_last_end >= AHEAD:
            return 0
        if self._ended > self._busy * (MOST_AHEAD / AHEAD):
            return MOST_AHEAD
        return int(self._ended / self._busy * AHEAD) if self._ended else 0
