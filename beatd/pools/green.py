"""Jobs run in greenlets: the `gevent` and `eventlet` pools."""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from beatd.greenlets import Greenlets
from beatd.pools.base import Job, PoolEvent, Runner, TimedOut, run
from beatd.pools.limits import time_limit
from beatd.pools.pending import PendingJobs


class Green:
    """A greenlet for each job, up to `size` of them.

    The process is patched (beatd/greenlets.py), so that a task that waits lets others
    run: all share one thread. One that computes holds up the others, and all limits.

    A job past its time limit ends in TimedOut, gives up its place and has GreenletExit
    raised in it; what it does about that is dropped. `kill` does the same to all jobs.

    Invariant: each job whose end has not been told is in `_waiting` or in `_running`.
    """

    def __init__(
        self,
        runner: Runner,
        on_event: Callable[[PoolEvent], object],
        greenlets: Greenlets,
        *,
        size: int,
        initialise: Callable[[], object] | None = None,
    ) -> None:
        self.size = size
        self._runner = runner
        self._greenlets = greenlets
        self._initialise = initialise
        self._pending = PendingJobs(on_event)
        self._waiting: deque[Job] = deque()
        self._running: dict[str, Any] = {}
        self._one_ended = threading.Condition()

    @property
    def demand(self) -> int:
        return self.size

    def start(self) -> None:
        if self._initialise:
            self._initialise()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._pending.add(jobs)
        self._waiting.extend(jobs)
        self._fill()

    def recall(self) -> None:
        """No job waits for others in this pool."""

    def resize(self, size: int) -> None:
        self.size = size
        self._fill()

    def processes(self) -> list[int]:
        return [os.getpid()]

    def stop(self) -> None:
        with self._one_ended:
            self._one_ended.wait_for(lambda: not self._running)

    def kill(self) -> None:
        self._waiting.clear()
        self._pending.lose_all("the pool was stopped")
        running, self._running = self._running, {}
        for greenlet in running.values():
            self._greenlets.kill(greenlet)

    # A greenlet is never interrupted between two lines that do not wait.

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.size:
            job = self._waiting.popleft()
            run_it = partial(self._run, job)
            self._running[job.token] = self._greenlets.spawn(run_it)

    def _run(self, job: Job) -> None:
        if self._pending.begin(job):
            with time_limit(job.time_limit, partial(self._end_late, job)):
                outcome = run(self._runner, job)
            self._pending.end(outcome)
        self._leave(job)

    def _end_late(self, job: Job) -> None:
        assert job.time_limit is not None
        if self._pending.end(TimedOut(job.token, job.time_limit)):
            greenlet = self._running[job.token]
            self._leave(job)
            self._greenlets.kill(greenlet)

    def _leave(self, job: Job) -> None:
        self._running.pop(job.token, None)
        self._fill()
        with self._one_ended:
            self._one_ended.notify_all()
