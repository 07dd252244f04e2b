"""The runs that wait in a worker, and which of them is next."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from beatd.bounds import rate_of
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.event_log import EventLog
from beatd.instant import Span
from beatd.tasks import Registry
from beatd.worker.in_flight import InFlight, InFlightState
from beatd.worker.rate import Turns, sift
from beatd.worker.window import PrefetchWindow

tell = EventLog(__name__)

MOST_ASIDE = 1_000
"""Deliveries that may wait for a rate limit without a place in the prefetch window."""


class Backlog:
    """The runs that wait, in order, each within the rate limit of its task.

    A run that waits for a rate limit stands aside: it holds up no other task, and has
    no place in the window, unless MOST_ASIDE others have none already.
    """

    def __init__(
        self,
        *,
        tasks: Registry,
        settings: Settings,
        window: PrefetchWindow,
        drops: Callable[[InFlight], bool],
        clock: Clock,
    ) -> None:
        """`drops` returns whether a run whose turn has come must not begin."""
        self._tasks = tasks
        self._settings = settings
        self._window = window
        self._drops = drops
        self._clock = clock
        self._ready: deque[InFlight] = deque()
        self._returned: deque[InFlight] = deque()
        """Runs that the pool returned: a rate limit has let them begin already."""
        self._turns: Turns[InFlight] = Turns()

    def __len__(self) -> int:
        return self.ready + len(self._turns)

    def __iter__(self) -> Iterator[InFlight]:
        yield from self._returned
        yield from self._ready
        yield from self._turns

    @property
    def ready(self) -> int:
        """How many runs wait only for a free place in the pool."""
        return len(self._returned) + len(self._ready)

    def waited(self) -> Span:
        """Return how long the first of those waits that wait only for the pool."""
        first = self._returned[0] if self._returned else None
        first = first or (self._ready[0] if self._ready else None)
        return self._clock.elapsed() - first.arrived if first else 0

    def due_in(self) -> float | None:
        """Return the milliseconds until a rate limit lets a run begin, if one waits."""
        due = self._turns.due()
        return None if due is None else max(due - self._clock.elapsed(), 0)

    def add(self, run: InFlight) -> None:
        """Let a run wait behind the others."""
        run.arrived = self._clock.elapsed()
        self._ready.append(run)

    def put_back(self, returned: Sequence[InFlight]) -> None:
        """Let these wait before all others: the pool did not get to them."""
        self._returned.extendleft(reversed(returned))

    def next(self) -> InFlight | None:
        """Remove and return the run that is next; None if none may begin now."""
        now = self._clock.elapsed()
        while self._returned:
            returned = self._returned.popleft()
            if not self._drops(returned):
                return returned
        while run := self._turns.next(now):
            self._come_back(run)
            if not self._drops(run):
                self._turns.begin(run.task.name, now)
                return run
        while self._ready:
            run = self._ready.popleft()
            name = run.task.name
            if name not in self._turns:
                self.limit_rate(name)
            if self._drops(run):
                continue
            if not self._turns.must_wait(name, now):
                self._turns.begin(name, now)
                return run
            self._step_aside(run)
        return None

    def clear(self) -> list[InFlight]:
        """Remove all runs, and return them."""
        return self.take_out(lambda run: True)

    def take_out(self, wanted: Callable[[InFlight], bool]) -> list[InFlight]:
        """Remove the wanted runs, and return them."""
        late = self._turns.take_out(wanted)
        for run in late:
            self._come_back(run)
        return [*sift(self._returned, wanted), *sift(self._ready, wanted), *late]

    def take_last(self, number: int) -> list[InFlight]:
        """Remove so many of those that wait only for the pool; return them in order.

        The last ones; but none that is acknowledged, or has lost a process here: no
        other worker would know how many.
        """
        found: list[InFlight] = []
        for line in self._ready, self._returned:
            kept: list[InFlight] = []
            while line and len(found) < number:
                run = line.pop()
                stays = run.acknowledged or run.losses
                (kept if stays else found).append(run)
            line.extend(reversed(kept))
        return found[::-1]

    def limit_rate(self, task: str) -> None:
        """Apply the task's present rate limit from now on."""
        own = self._tasks[task].rate_limit
        limit = self._settings.task_default_rate_limit if own is None else own
        rate = 0.0
        try:
            if not self._settings.worker_disable_rate_limits:
                rate = rate_of(limit)
        except ValueError as error:
            words = "the runs of %s are not limited: %s"
            tell.error("rate.bad", words, task, error)
        self._turns.limit(task, rate)

    def _step_aside(self, run: InFlight) -> None:
        if len(self._turns) < MOST_ASIDE:
            run.become(InFlightState.ASIDE)
            self._window.clear(1)
        self._turns.wait(run.task.name, run)

    def _come_back(self, run: InFlight) -> None:
        if run.state is InFlightState.ASIDE:
            run.become(InFlightState.WAITING)
            self._window.fill(1)
