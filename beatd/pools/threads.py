"""Jobs run in threads of this process."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue

from beatd.pools.base import (
    Finished,
    Job,
    Lost,
    PoolEvent,
    Runner,
    Started,
    TimedOut,
    run,
)


class Threads:
    """`size` threads that take jobs from one line.

    Python cannot end a thread. A job past its time limit ends in TimedOut and another
    thread takes its place, but its code runs on until it comes to an end by itself;
    what it then gives is dropped. `kill` leaves behind what runs in the same way.

    Invariant: a token is in `_open` from `submit` until its one outcome is told.
    """

    def __init__(
        self,
        runner: Runner,
        on_event: Callable[[PoolEvent], object],
        *,
        size: int,
        initialise: Callable[[], object] | None = None,
    ) -> None:
        self.size = size
        self._runner = runner
        self._on_event = on_event
        self._initialise = initialise
        self._line: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._ended = threading.Semaphore(0)

    def start(self) -> None:
        if self._initialise:
            self._initialise()
        for _ in range(self.size):
            self._add_thread()

    def submit(self, jobs: Sequence[Job]) -> None:
        with self._lock:
            self._open.update(job.token for job in jobs)
        for job in jobs:
            self._line.put(job)

    def stop(self) -> None:
        self._dismiss()
        for _ in range(self.size):
            self._ended.acquire()

    def kill(self) -> None:
        with self._lock:
            left = list(self._open)
        for token in left:
            self._tell(Lost(token, "the pool was stopped and left its thread behind"))
        self._dismiss()

    def _add_thread(self) -> None:
        # A daemon: a thread that was left behind does not hold up the process's end.
        threading.Thread(target=self._work, name="task", daemon=True).start()

    def _dismiss(self) -> None:
        # Behind all jobs, so that each of them is run before its thread ends.
        for _ in range(self.size):
            self._line.put(None)

    def _work(self) -> None:
        while job := self._line.get():
            if job.token not in self._open:
                continue
            self._on_event(Started(job.token, os.getpid()))
            with self._time_limit(job):
                outcome = run(self._runner, job)
            if not self._tell(outcome):
                # Somebody else told how it ended: this thread has been given up.
                return
        self._ended.release()

    def _time_limit(self, job: Job) -> AbstractContextManager[None]:
        return self._timer(job, job.time_limit) if job.time_limit else nullcontext()

    @contextmanager
    def _timer(self, job: Job, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._give_up, [job, seconds])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self, job: Job, seconds: float) -> None:
        if self._tell(TimedOut(job.token, seconds)):
            self._add_thread()

    def _tell(self, outcome: Finished | TimedOut | Lost) -> bool:
        """Tell how a job ended, unless that was told already."""
        with self._lock:
            if outcome.token not in self._open:
                return False
            self._open.remove(outcome.token)
        self._on_event(outcome)
        return True
