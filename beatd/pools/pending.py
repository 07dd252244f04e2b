"""Jobs that have not ended yet: each gets one outcome, whatever else happens."""

import os
import threading
from collections.abc import Callable, Iterable

from beatd.pools.base import Finished, Job, Lost, PoolEvent, Started, TimedOut


class PendingJobs:
    """The jobs of a pool that have no outcome yet; only the first outcome counts.

    Invariant: for each job that was added `on_event` is called with one outcome, and
    not with Started after that.
    """

    def __init__(self, on_event: Callable[[PoolEvent], object]) -> None:
        self._on_event = on_event
        self._tokens: set[str] = set()
        self._lock = threading.Lock()

    def add(self, jobs: Iterable[Job]) -> None:
        """Add these jobs."""
        with self._lock:
            self._tokens.update(job.token for job in jobs)

    def begin(self, job: Job) -> bool:
        """Report that a job begins; return False if it has an outcome already."""
        with self._lock:
            if job.token not in self._tokens:
                return False
            self._on_event(Started(job.token, os.getpid()))
        return True

    def end(self, outcome: Finished | TimedOut | Lost) -> bool:
        """Report the outcome of a job; return False if it has one already."""
        with self._lock:
            if outcome.token not in self._tokens:
                return False
            self._tokens.remove(outcome.token)
            self._on_event(outcome)
        return True

    def lose_all(self, reason: str) -> None:
        """Report every job as lost."""
        for token in list(self._tokens):
            self.end(Lost(token, reason))
