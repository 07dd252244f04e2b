"""Jobs run one after the other, in the thread that hands them in."""

import os
from collections.abc import Callable, Sequence

from beatd.pools.base import Job, PoolEvent, Runner, Started, run


class Solo:
    """The shortest pool, for debugging and for one task at a time.

    `submit` returns when the jobs have ended. No other thread could end a job by force,
    so the time limit has no effect, nor has `kill` while a job runs; the soft time
    limit has.
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

    @property
    def demand(self) -> int:
        return self.size

    def start(self) -> None:
        if self._initialise:
            self._initialise()

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._on_event(Started(job.token, os.getpid()))
            self._on_event(run(self._runner, job))

    def recall(self) -> None:
        """No job waits for others in this pool."""

    def resize(self, size: int) -> None:
        """Only the thread that hands jobs in runs them: the size stays 1."""

    def processes(self) -> list[int]:
        return [os.getpid()]

    def stop(self) -> None:
        """Nothing runs when this is called."""

    def kill(self) -> None:
        """Nothing runs when this is called."""
