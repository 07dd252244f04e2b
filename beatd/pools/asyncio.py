"""Jobs run on one event loop: the `asyncio` pool."""

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from beatd.background import start_thread
from beatd.event_log import EventLog
from beatd.pools.base import (
    AsyncRunner,
    Finished,
    Job,
    PoolEvent,
    TimedOut,
    lost_by,
)
from beatd.pools.pending import PendingJobs

tell = EventLog(__name__)

T = TypeVar("T")

GRACE = 5.0
"""Seconds that tasks left on the loop may take to end when they are cancelled."""


class Asyncio:
    """An event loop in a thread of its own, with up to `size` jobs on it.

    A coroutine's job runs on the loop, a plain function's in a thread for the time of
    its run. A job past its time limit ends in TimedOut, gives up its place and is
    cancelled; what it then returns or raises is dropped. A plain function runs on until
    it ends by itself. `kill` does the same to all jobs.

    A coroutine that never awaits anything holds up all others, and their limits:
    nothing can take the loop from it.

    Invariant: each job whose end has not been told is in `_waiting`, or in `_running`,
    or on its way to the loop.
    """

    def __init__(
        self,
        runner: AsyncRunner,
        on_event: Callable[[PoolEvent], object],
        *,
        size: int,
        initialise: Callable[[], object] | None = None,
    ) -> None:
        self.size = size
        self._runner = runner
        self._initialise = initialise
        self._pending = PendingJobs(on_event)
        self._waiting: deque[Job] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._task_threads = _TaskThreads()
        self._stopping = False
        self._over = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="asyncio", daemon=True)

    @property
    def demand(self) -> int:
        return self.size

    def start(self) -> None:
        if self._initialise:
            self._initialise()
        start_thread(self._thread)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._pending.add(jobs)
        self._do(lambda: self._waiting.extend(jobs))

    def recall(self) -> None:
        """No job waits for others in this pool."""

    def resize(self, size: int) -> None:
        self.size = size
        self._do(lambda: None)

    def processes(self) -> list[int]:
        return [os.getpid()]

    def stop(self) -> None:
        self._do(self._wind_down)
        self._thread.join()

    def kill(self) -> None:
        self._pending.lose_all("the pool was stopped")
        self._do(self._end_now)
        self._thread.join(GRACE)  # a coroutine that holds the loop is left behind

    def _do(self, what: Callable[[], object]) -> None:
        """Call `what` on the loop, then start the jobs that there is a place for."""

        def turn() -> None:
            what()
            self._fill()

        with suppress(RuntimeError):  # the loop is closed: nothing is left to do
            self._loop.call_soon_threadsafe(turn)

    # All that follows runs on the loop, or around it in its thread.

    def _live(self) -> None:
        while not self._over:
            self._outlast(self._loop.run_forever)
        self._outlast(self._clear_up)
        self._task_threads.dismiss()
        self._loop.close()

    def _outlast(self, work: Callable[[], None]) -> None:
        """Do this part of the loop's work; survive what tasks have left on the loop."""
        try:
            work()
        except BaseException as error:  # SystemExit comes out of the loop
            words = "something that a task left running wanted to end the worker: %r"
            tell.error("pool.loop", words, error)

    def _clear_up(self) -> None:
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=GRACE))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.size:
            job = self._waiting.popleft()
            self._running[job.token] = self._loop.create_task(self._run(job))
        if self._stopping and not self._running and not self._over:
            self._over = True
            self._loop.stop()

    def _wind_down(self) -> None:
        self._stopping = True

    def _end_now(self) -> None:
        self._stopping = True
        self._waiting.clear()
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    async def _run(self, job: Job) -> None:
        if self._pending.begin(job):
            limit = job.time_limit
            timer = self._loop.call_later(limit, self._end_late, job) if limit else None
            try:
                report = await self._runner.run(job, self._in_thread)
            except BaseException as error:  # the task's loop is not to end
                self._pending.end(lost_by(job, error))
            else:
                self._pending.end(Finished(job.token, report))
            if timer:
                timer.cancel()
        self._running.pop(job.token, None)
        self._fill()

    def _end_late(self, job: Job) -> None:
        assert job.time_limit is not None
        if self._pending.end(TimedOut(job.token, job.time_limit)):
            self._running.pop(job.token).cancel()
            self._fill()

    async def _in_thread(self, function: Callable[[], T]) -> T:
        ended: Future[T] = Future()
        ended.set_running_or_notify_cancel()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                ended.set_result(context.run(function))
            except BaseException as error:  # the task's own code
                ended.set_exception(error)

        self._task_threads.do(work)
        return await asyncio.wrap_future(ended)


class _TaskThreads:
    """As many threads as are needed at the same time, kept for later work.

    They are daemons: unlike those of a ThreadPoolExecutor, a thread that never ends
    takes no place from the others, and does not hold up the end of the process.
    """

    def __init__(self) -> None:
        self._line: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._number = 0

    def do(self, work: Callable[[], None]) -> None:
        """Call `work` at once, in a thread."""
        self._line.put(work)
        if not self._idle.acquire(blocking=False):
            self._number += 1
            threading.Thread(target=self._live, name="task", daemon=True).start()

    def dismiss(self) -> None:
        """Let each thread end as soon as it has nothing to do."""
        for _ in range(self._number):
            self._line.put(None)

    def _live(self) -> None:
        while work := self._line.get():
            work()
            self._idle.release()
