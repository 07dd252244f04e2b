"""Jobs run one after the other, in the thread that reads the pool's events."""

import os
from collections import deque
from collections.abc import Callable, Sequence

from beatd.pools.base import (
    Job,
    Lost,
    PoolEvent,
    Returned,
    Runner,
    Started,
    Turn,
    run,
)


class Solo:
    """The shortest pool, for debugging and for one task at a time.

    A job runs in a Turn, so that its beginning is known before it runs. No other thread
    could end a job by force, so the time limit has no effect, nor has `kill` while a
    job runs; the soft time limit has.
    """

    size = 1

    def __init__(
        self,
        runner: Runner,
        on_event: Callable[[PoolEvent], object],
        *,
        initialise: Callable[[], object] | None = None,
    ) -> None:
        self._runner = runner
        self._on_event = on_event
        self._initialise = initialise
        self._jobs: deque[Job] = deque()
        """Of the first one, the beginning has been told."""

    @property
    def demand(self) -> int:
        return self.size

    def start(self) -> None:
        if self._initialise:
            self._initialise()

    def submit(self, jobs: Sequence[Job]) -> None:
        is_idle = not self._jobs
        self._jobs.extend(jobs)
        if is_idle:
            self._begin()

    def _begin(self) -> None:
        if self._jobs:
            self._on_event(Started(self._jobs[0].token, os.getpid()))
            self._on_event(Turn(self._run))

    def _run(self) -> None:
        if self._jobs:  # else it was killed
            outcome = run(self._runner, self._jobs[0])
            self._jobs.popleft()
            self._on_event(outcome)
            self._begin()

    def recall(self) -> None:
        waiting = [job.token for job in list(self._jobs)[1:]]
        if waiting:
            self._jobs = deque([self._jobs[0]])
            self._on_event(Returned(waiting))

    def resize(self, size: int) -> None:
        """Only the thread that hands jobs in runs them: the size stays 1."""

    def processes(self) -> list[int]:
        return [os.getpid()]

    def stop(self) -> None:
        while self._jobs:
            self._run()

    def kill(self) -> None:
        killed, self._jobs = self._jobs, deque()
        for job in killed:
            self._on_event(Lost(job.token, "the pool was stopped before it began"))
