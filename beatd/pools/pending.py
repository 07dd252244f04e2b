"""Each job has one end, whether the job itself, its time limit or the pool tells it."""

import os
import threading
from collections.abc import Callable, Iterable

from beatd.pools.base import Finished, Job, Lost, PoolEvent, Started, TimedOut


class PendingJobs:
    """The jobs of a pool whose end has not been told yet; the first to tell it counts.

    Invariant: of each job that was added `on_event` hears one end, and no start after.
    """

    def __init__(self, on_event: Callable[[PoolEvent], object]) -> None:
        self._on_event = on_event
        self._tokens: set[str] = set()
        self._lock = threading.Lock()

    def add(self, jobs: Iterable[Job]) -> None:
        """Take note of these jobs."""
        with self._lock:
            self._tokens.update(job.token for job in jobs)

    def begin(self, job: Job) -> bool:
        """Tell that a job begins; return False if it has ended before it began."""
        with self._lock:
            if job.token not in self._tokens:
                return False
            self._on_event(Started(job.token, os.getpid()))
        return True

    def end(self, outcome: Finished | TimedOut | Lost) -> bool:
        """Tell how a job ended; return False if that was told already."""
        with self._lock:
            if outcome.token not in self._tokens:
                return False
            self._tokens.remove(outcome.token)
            self._on_event(outcome)
        return True

    def lose_all(self, reason: str) -> None:
        """Tell of every job that it is lost."""
        for token in list(self._tokens):
            self.end(Lost(token, reason))
