"""The port of a pool: it promises one outcome for each job, and to stop in time."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

T = TypeVar("T")


class Job(msgspec.Struct, frozen=True, array_like=True):
    """One delivery to run; undecoded, so that it can go to another process as it is."""

    token: str
    """The delivery's token, by which outcomes name the job."""
    message: bytes
    deliveries: int
    time_limit: float | None
    """Seconds after which the run is ended by force, where the pool can."""
    soft_time_limit: float | None
    """Seconds after which the runner has SoftTimeLimitExceeded raised in the task."""


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """The runner came to an end and returned `report`."""

    token: str
    report: bytes


class TimedOut(msgspec.Struct, frozen=True):
    """The time limit passed and the run was ended by force."""

    token: str
    time_limit: float


class Lost(msgspec.Struct, frozen=True):
    """The job's process is gone; `reason` says how (`signal 9 (SIGKILL)`)."""

    token: str
    reason: str


class Started(msgspec.Struct, frozen=True):
    """The run has begun in process `pid`; comes before the outcome."""

    token: str
    pid: int


class Returned(msgspec.Struct, frozen=True):
    """The pool gives back these jobs, in their order: they have not begun."""

    tokens: Sequence[str]


class Turn(msgspec.Struct, frozen=True):
    """The pool has no thread of its own: who reads its events is to call `take`.

    `take` runs one job, and returns when that has ended. Events before this one are
    acted on before the job runs.
    """

    take: Callable[[], object]


class Several(msgspec.Struct, frozen=True):
    """Events that came together, in their order."""

    events: Sequence["PoolEvent"]


PoolEvent: TypeAlias = Started | Finished | TimedOut | Lost | Returned | Turn | Several

Runner: TypeAlias = Callable[[Job], bytes]
"""Runs one job in the process and thread that the pool chooses; never raises.

The runner (runs/execute.py) wraps only the task's own code in `soft_limit` of
pools/limits.py, so that its exception cannot hit the bookkeeping around that code.
"""


class InThread(Protocol):
    """Runs a function in a thread: it may block while the event loop goes on."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return or raise what the function does; it must not raise StopIteration."""
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

    A pool is made of a runner, of `on_event`, which it calls from any thread and which
    only puts the event into an inbox, and of keywords: `size`, and `initialise`, called
    before the first job in each process in which jobs run.
    """

    @property
    def size(self) -> int:
        """How many jobs run at the same time."""
        ...

    @property
    def demand(self) -> int:
        """How many jobs the pool should be given: those that run now, or may soon."""
        ...

    def start(self) -> None:
        """Get ready to run; with processes, after all task modules are imported."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take these jobs; each ends in one Finished, TimedOut or Lost, or is Returned.

        A job is returned if it would wait here behind others that take long.
        """
        ...

    def recall(self) -> None:
        """Have the jobs returned that wait behind others."""
        ...

    def resize(self, size: int) -> None:
        """Run this many jobs at the same time from now on, at least one.

        New places are there at once. Surplus places go when they are idle: no job is
        lost. A pool that cannot change its size keeps it, and one for which the system
        has no more threads says so: `size` shows what it is.
        """
        ...

    def processes(self) -> list[int]:
        """Return the ids of the processes in which jobs run."""
        ...

    def stop(self) -> None:
        """Wait until the running jobs have ended, then release everything."""
        ...

    def kill(self) -> None:
        """End at once; running jobs end in Lost where the pool can end them."""
        ...


@runtime_checkable
class ProcessPool(Pool, Protocol):
    """A pool each of whose jobs has a process to itself while it runs."""

    def terminate(self, token: str, number: int) -> None:
        """Send a signal to the process of this job, and of this job alone.

        The job ends in Lost, unless its code survives the signal or has just ended.
        SIGTERM, SIGINT and SIGHUP are sent as SIGKILL: processes of a pool outlive
        them, as these signals are often sent to the whole process group.
        """
        ...

    def renew(self, *, fresh: bool) -> bool:
        """Have new processes run all jobs that have not begun; let the others end.

        `fresh`: the new processes load the code as it is now, and take over when it is
        loaded; if it cannot be loaded all stays as it is, and the log says so. Return
        False, having done nothing, if this pool cannot load code anew.
        """
        ...


def each_of(event: PoolEvent) -> Sequence[PoolEvent]:
    """Return the events that this one stands for: itself, or several."""
    return event.events if isinstance(event, Several) else [event]


def run(runner: Runner, job: Job) -> Finished | Lost:
    """Run one job in this thread; if the runner raises, only this job is lost."""
    try:
        return Finished(job.token, runner(job))
    except BaseException as error:  # the task's process is not to end
        return lost_by(job, error)


def lost_by(job: Job, error: BaseException) -> Lost:
    """Return the outcome of a job whose runner raised, which it should not."""
    return Lost(job.token, f"the runner raised {error!r}")
