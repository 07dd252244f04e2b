"""Jobs run in threads of this process."""

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from beatd.background import Faults, start_thread
from beatd.errors import NoThread
from beatd.event_log import EventLog
from beatd.pools.base import Finished, Job, Lost, PoolEvent, Runner, TimedOut, run
from beatd.pools.limits import time_limit
from beatd.pools.pending import PendingJobs
from beatd.text import counted

tell = EventLog(__name__)


class Threads:
    """`size` threads that take jobs from one queue.

    Python cannot end a thread. A job past its time limit ends in TimedOut and another
    thread takes its place, but its code runs on until it ends by itself; what it then
    returns is dropped. `kill` leaves running jobs behind in the same way. If no other
    thread can start, `size` is smaller until that code ends, and its thread goes on.

    Invariant: `_serving` threads take jobs from the queue, or are about to; each None
    in the queue lets one of them go.
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
        self._initialise = initialise
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._pending = PendingJobs(on_event)
        self._serving = 0
        self._unreplaced: set[str] = set()
        """Tokens of jobs that were given up, and whose threads nobody replaces."""
        self._short = Faults()
        self._one_left = threading.Condition()

    @property
    def demand(self) -> int:
        return self.size

    def start(self) -> None:
        if self._initialise:
            self._initialise()
        with self._one_left:
            try:
                for _ in range(self.size):
                    self._hire()
            except NoThread as error:
                self._let_go(self._serving)
                raise NoThread(
                    f"the pool of {self.size} threads (-c, worker_concurrency) cannot"
                    f" start more than {self._serving} of them: {error}"
                ) from error

    def submit(self, jobs: Sequence[Job]) -> None:
        self._pending.add(jobs)
        for job in jobs:
            self._queue.put(job)

    def recall(self) -> None:
        """No job waits for others in this pool."""

    def resize(self, size: int) -> None:
        with self._one_left:
            try:
                while self.size < size:
                    self._hire()
                    self.size += 1
            except NoThread as error:
                self._say_short(size, error)
                return
            self._let_go(self.size - size)
            self.size = size

    def processes(self) -> list[int]:
        return [os.getpid()]

    def stop(self) -> None:
        with self._one_left:
            self._unreplaced.clear()  # these threads are waited for no more
            self._let_go(self._serving)
            self._one_left.wait_for(lambda: not self._serving)

    def kill(self) -> None:
        self._pending.lose_all("the pool was stopped and left its thread behind")
        with self._one_left:
            self._unreplaced.clear()
            self._let_go(self._serving)

    # The three below are called under the lock.

    def _hire(self) -> None:
        """Start a thread. Raises NoThread when the system has none left."""
        # A daemon: a thread that was left behind does not hold up the process's end.
        start_thread(threading.Thread(target=self._work, name="task", daemon=True))
        self._serving += 1

    def _say_short(self, wanted: int, error: NoThread) -> None:
        if self._short.meet():
            words = "the pool runs %s at a time, not %d: %s"
            tell.error("pool.short", words, counted(self.size, "task"), wanted, error)

    def _let_go(self, number: int) -> None:
        # Behind all jobs, so that each of them is run before a thread ends.
        for _ in range(number):
            self._queue.put(None)

    def _work(self) -> None:
        while job := self._queue.get():
            if not self._pending.begin(job):
                continue
            if not self._pending.end(self._run(job)) and not self._resume(job):
                return
        with self._one_left:
            self._serving -= 1
            self._one_left.notify_all()

    def _run(self, job: Job) -> Finished | Lost:
        try:
            with time_limit(job.time_limit, partial(self._give_up, job)):
                return run(self._runner, job)
        except RuntimeError as error:  # no thread is to be had for the limit
            return Lost(job.token, f"nobody could limit its time: {error}")

    def _give_up(self, job: Job) -> None:
        assert job.time_limit is not None
        with self._one_left:
            if not self._pending.end(TimedOut(job.token, job.time_limit)):
                return
            self._serving -= 1
            try:
                self._hire()  # in the place of the one that goes on
            except NoThread as error:
                self._unreplaced.add(job.token)
                self.size -= 1
                self._say_short(self.size + 1, error)
                self._one_left.notify_all()

    def _resume(self, job: Job) -> bool:
        """Return whether this thread, which was given up, is to take jobs again."""
        with self._one_left:
            if job.token not in self._unreplaced:
                return False
            self._unreplaced.remove(job.token)
            self._serving += 1
            self.size += 1
            return True
