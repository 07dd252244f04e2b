"""What became of a worker's tasks, in numbers: for /metrics."""

from beatd.instant import SECOND, Span
from beatd.results.base import State

STATES = (
    *(State.SUCCESS, State.FAILURE, State.RETRY, State.REVOKED),
    *("EXPIRED", "IGNORED", "REQUEUED", "LOST"),
)
"""What a task may end in: Celery's states, and four ends that have none there."""

BOUNDS: tuple[Span, ...] = tuple(1 << power for power in range(23))
"""Milliseconds up to which run times are counted together: up to about an hour."""


class Tally:
    """What became of tasks since the process began.

    The worker's loop counts; other threads may read at any time, as nothing is ever
    added to the dict or the list.
    """

    def __init__(self) -> None:
        self.ends: dict[str, int] = dict.fromkeys(STATES, 0)
        """By state, how many tasks ended in it, also before their code began."""
        self.run_times = [0] * (len(BOUNDS) + 1)
        """Runs by the first of BOUNDS that they did not exceed; the others at last."""
        self.seconds = 0.0
        """How long all of these runs took together."""

    def ended(self, state: str, seconds: float) -> None:
        """Count a run of a task's code, and how long it took."""
        self.ends[state] += 1
        self.run_times[min(int(seconds * SECOND).bit_length(), len(BOUNDS))] += 1
        self.seconds += seconds
