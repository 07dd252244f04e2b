"""The runs that the pool has, or is about to have."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.pools.base import Job, Pool, ProcessPool
from beatd.runs.report import option
from beatd.worker.in_flight import InFlight, InFlightState


class Workload:
    """The runs that were given to the pool, or are about to be, and have not ended.

    Invariant: each run here is ACKNOWLEDGING, GIVEN or RUNNING. In the first state it
    is about to go to the pool; in the others the pool reports its end or returns it.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        settings: Settings,
        acknowledge: Callable[[InFlight], object],
        clock: Clock,
    ) -> None:
        """`acknowledge` has a run acknowledged; it is to go to the pool after that."""
        self._pool = pool
        self._settings = settings
        self._acknowledge = acknowledge
        self._clock = clock
        self._runs: dict[str, InFlight] = {}
        self.total: Counter[str] = Counter()
        """How many runs of each task were begun."""

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[InFlight]:
        """Iterate over a copy: runs may be removed meanwhile."""
        return iter(list(self._runs.values()))

    @property
    def room(self) -> int:
        """How many more runs the pool may be given; 0 or less: none."""
        return self._pool.demand - len(self._runs)

    @property
    def begun(self) -> list[InFlight]:
        """The runs that have begun."""
        return [run for run in self if run.has_begun]

    @property
    def unbegun(self) -> list[InFlight]:
        """The runs that the pool has not begun, or is about to get."""
        return [run for run in self if not run.has_begun]

    @property
    def is_acknowledging(self) -> bool:
        """Whether any run waits for the broker's answer to its acknowledgement."""
        return any(run.state is InFlightState.ACKNOWLEDGING for run in self)

    def get(self, token: str) -> InFlight | None:
        """Return the run of this delivery, if it is here."""
        return self._runs.get(token)

    def remove(self, token: str) -> InFlight:
        """Forget the run of this delivery, and return it."""
        return self._runs.pop(token)

    def fill(self, next_run: Callable[[], InFlight | None]) -> None:
        """Fill the pool with runs from `next_run`, until that returns None."""
        jobs = []
        for _ in range(self.room):  # asked once: it costs a look at each child
            run = next_run()
            if run is None:
                break
            self._runs[run.token] = run
            if run.early and run.state is InFlightState.WAITING:
                run.become(InFlightState.ACKNOWLEDGING)
                self._acknowledge(run)
            else:
                run.become(InFlightState.GIVEN)
                jobs.append(self._job(run))
        if jobs:
            self._pool.submit(jobs)

    def give(self, runs: Sequence[InFlight]) -> None:
        """Give the pool these runs, whether there is room or not."""
        self._runs.update((run.token, run) for run in runs)
        if runs:
            self._pool.submit([self._job(run) for run in runs])

    def started(self, token: str, pid: int) -> InFlight:
        """Take note that a run has begun, and return it."""
        run = self._runs[token]
        run.begin(self._clock.now(), pid)
        self.total[run.envelope.task] += 1
        return run

    def recall(self) -> None:
        """Have the pool return the runs that have not begun, to be admitted again."""
        if self.unbegun:
            self._pool.recall()

    def terminate(self, run: InFlight, number: int) -> None:
        """End a run by a signal. Raises NotImplementedError if the pool cannot."""
        if not isinstance(self._pool, ProcessPool):
            raise NotImplementedError("this pool cannot end a run that has begun")
        self._pool.terminate(run.token, number)
        run.terminated = number

    def _job(self, run: InFlight) -> Job:
        envelope, task = run.envelope, run.task
        soft = option(task, "soft_time_limit", self._settings)
        return Job(
            run.token,
            run.delivery.message,
            run.deliveries,
            envelope.time_limit or option(task, "time_limit", self._settings),
            envelope.soft_time_limit or soft,
        )
