"""How many tasks a worker runs at the same time, and how many deliveries it holds."""

from collections.abc import Callable

from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.event_log import EventLog
from beatd.instant import Span
from beatd.pools.base import Pool
from beatd.worker.autoscale import Autoscale
from beatd.worker.throughput import Throughput
from beatd.worker.window import PrefetchWindow

tell = EventLog(__name__)

UNLIMITED = 10_000
"""How many deliveries a worker holds at most when the settings set no limit."""


MOST_BESIDE = 100
"""What remote control may make of a pool that began smaller. Whoever wants more starts
the worker with it: a message must not start thousands of processes."""


class Sizing:
    """Changes the size of a pool, and with it the size of the prefetch window.

    The window is as large as the settings say. If they do not, it follows how many runs
    the pool gets through.

    Invariant: the deliveries in flight (but for those that stand aside, or wait for a
    result backend that is away) and the free places of `window` are together the
    `capacity` that was when `window` was resized last.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        autoscale: Autoscale | None,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._throughput = Throughput()
        self._busy_since: Span | None = None
        """When the ends were counted last; None: the pool had no run then."""
        self._ended = 0
        self.ceiling = max(MOST_BESIDE, pool.size, autoscale.most if autoscale else 0)
        """The largest size that remote control may ask for."""
        self.autoscale = autoscale
        """Decides the size as the load changes; None: the size stays."""
        self.window = PrefetchWindow(self.capacity, self._places)

    @property
    def size(self) -> int:
        """How many tasks run at the same time."""
        return self._pool.size

    @property
    def capacity(self) -> int:
        """How many deliveries the worker holds at most."""
        places = self._places
        if self._settings.worker_disable_prefetch:
            return places
        multiplier = self._settings.worker_prefetch_multiplier
        if multiplier is None:
            return places + self._throughput.ahead()
        return places * multiplier or UNLIMITED

    @property
    def _places(self) -> int:
        """How many deliveries run at the same time at most."""
        # The pool grows only if more is waiting than it runs now.
        return self.autoscale.most if self.autoscale else self._pool.size

    def resize(self, size: int) -> None:
        """Run this many tasks at the same time, at least one; adapt the window."""
        self._pool.resize(size)
        self._fit_window()

    def scale_between(self, most: int, least: int) -> None:
        """Let the pool's size follow the load between these bounds."""
        assert self.autoscale
        self.autoscale.most, self.autoscale.least = most, least
        self._fit_window()

    @property
    def is_measured(self) -> bool:
        """Whether the window follows what is measured."""
        return self._settings.worker_prefetch_multiplier is None

    def ended(self) -> None:
        """Take note that a run has ended."""
        self._ended += 1

    def measure(self, given: int) -> None:
        """Count what has ended since the last call; fit the window to it.

        So many runs the pool has now.
        """
        now = self._clock.elapsed()
        if self._busy_since is not None:
            self._throughput.passed(now - self._busy_since, self._ended)
        self._ended, self._busy_since = 0, now if given else None
        self._fit_window()

    def surplus(self, waiting: int, given: int) -> int:
        """Return how many of those that wait are more than the worker should hold.

        So many wait, and so many runs the pool has.
        """
        return max(waiting - max(self.capacity - given, 0), 0)

    def follow(self, load: Callable[[], int]) -> None:
        """Make the pool as large as the load needs it, if the pool is autoscaled."""
        if self.autoscale is None:
            return
        before = self.size
        size = self.autoscale.size(self._clock.elapsed(), load())
        if size != before:
            self.resize(size)
        if self.size != before:
            tell.info(
                "pool.resized",
                "runs %d at a time, no longer %d",
                self.size,
                before,
                size=self.size,
            )

    def _fit_window(self) -> None:
        self.window.resize(self.capacity, self._places)
