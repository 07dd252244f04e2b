"""What a pool promises: one outcome for each job, and to stop in time."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery to run: bytes in, so that it can go to another process as it is."""

    token: str
    """The delivery's token; names the job in its outcome."""
    message: bytes
    deliveries: int
    time_limit: float | None
    """Seconds after which the run is ended by force, where the pool can."""
    soft_time_limit: float | None
    """Seconds after which the runner has SoftTimeLimitExceeded raised in the task."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The runner came to an end and returned `report`."""

    token: str
    report: bytes


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The time limit passed and the run was ended by force."""

    token: str
    time_limit: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The job's process is gone; `reason` says how (`signal 9 (SIGKILL)`)."""

    token: str
    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    """The run has begun in process `pid`; comes before the other outcomes."""

    token: str
    pid: int


@dataclass(frozen=True, slots=True)
class Returned:
    """These jobs, in their order, have not begun, and the pool does not have them."""

    tokens: Sequence[str]


PoolEvent: TypeAlias = Started | Finished | TimedOut | Lost | Returned

Runner: TypeAlias = Callable[[Job], bytes]
"""Runs one job where the pool wants it run, and never raises: runs/execute.py.

It wraps the task's own code, and only that, in `soft_limit(job.soft_time_limit)` of
pools/limits.py, so that the exception cannot hit the bookkeeping around it.
"""


class InThread(Protocol):
    """Runs a function that may block in a thread, while the event loop goes on."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return what the function does; raise what it raises, but no StopIteration."""
        ...


class AsyncRunner(Protocol):
    """A runner that can also share the running event loop with others."""

    def __call__(self, job: Job) -> bytes:
        """Run one job in this thread."""
        ...

    async def run(self, job: Job, in_thread: InThread) -> bytes:
        """Run one job on this loop if it is a coroutine's, else in a thread.

        For a coroutine it is `soft_limited` that raises SoftTimeLimitExceeded.
        """
        ...


class Pool(Protocol):
    """Runs jobs.

    A pool is made of a runner, `on_event`, which it calls from any thread and which
    only takes note (puts the event into an inbox), and keywords: `size`, and
    `initialise`, called before the first job wherever jobs run.
    """

    @property
    def size(self) -> int:
        """How many jobs run at the same time."""
        ...

    @property
    def demand(self) -> int:
        """How many jobs the pool is best given: those that run now, or may soon."""
        ...

    def start(self) -> None:
        """Get ready to run; with processes, after all task modules are imported."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take these jobs; each ends in one Finished, TimedOut or Lost, or is Returned.

        A job is returned when it would wait here for others that take their time.
        """
        ...

    def recall(self) -> None:
        """Have the jobs returned that have not begun and wait for others."""
        ...

    def resize(self, size: int) -> None:
        """Run this many jobs at the same time from now on, one at least.

        New places are there at once. Of too many, those that are idle go first, and
        the others when their job has ended: no job is lost. `size` says what
        came of it: a pool that cannot change keeps its own.
        """
        ...

    def processes(self) -> list[int]:
        """Return the ids of the processes in which jobs run."""
        ...

    def stop(self) -> None:
        """Let the jobs that run end, then let go of everything; returns when done."""
        ...

    def kill(self) -> None:
        """End at once; jobs that run end in Lost where the pool can end them."""
        ...


@runtime_checkable
class ProcessPool(Pool, Protocol):
    """A pool each of whose jobs has a process to itself while it runs."""

    def terminate(self, token: str, number: int) -> None:
        """Send a signal to the process of this job, and of this job alone.

        The job ends in Lost, unless its code goes on or has just come to its end.
        SIGTERM and what else whole groups are sent, and processes outlive, is SIGKILL.
        """
        ...

    def renew(self, *, fresh: bool) -> bool:
        """Have processes that know nothing of earlier jobs run all that follow.

        What runs goes on to its end. `fresh`: they have the code as it is now, and are
        there when it is loaded; if it cannot be loaded all stays as it is, and the log
        says so. False where no process can load the code anew: nothing was done.
        """
        ...


def run(runner: Runner, job: Job) -> Finished | Lost:
    """Run one job here; a runner that breaks its promise costs this job only."""
    try:
        return Finished(job.token, runner(job))
    except BaseException as error:
        return lost_by(job, error)


def lost_by(job: Job, error: BaseException) -> Lost:
    """Return the end of a job whose runner broke its promise."""
    return Lost(job.token, f"the runner raised {error!r}")
