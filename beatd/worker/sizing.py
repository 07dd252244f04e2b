"""How many tasks a worker runs at the same time, and how many deliveries it holds."""

from collections.abc import Callable

from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.event_log import EventLog
from beatd.pools.base import Pool
from beatd.worker.autoscale import Autoscale
from beatd.worker.window import PrefetchWindow

tell = EventLog(__name__)

UNLIMITED = 10_000
"""How many deliveries a worker holds at most when the settings set no limit."""


MOST_BESIDE = 100
"""What remote control may make of a pool that began smaller. Whoever wants more starts
the worker with it: a message must not start thousands of processes."""


def capacity_of(
    settings: Settings, pool: Pool, autoscale: Autoscale | None
) -> tuple[int, int]:
    """Return how many deliveries a worker holds and runs at most."""
    # The pool grows only if more is waiting than it runs now.
    places = autoscale.most if autoscale else pool.size
    if settings.worker_disable_prefetch:
        return places, places
    multiplier = settings.worker_prefetch_multiplier
    return places * multiplier if multiplier else UNLIMITED, places


class Sizing:
    """Changes the size of a pool, and with it the size of the prefetch window.

    Invariant: the deliveries in flight (but for those that stand aside, or wait for a
    result backend that is away) and the free places of `window` are together
    `capacity`.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        window: PrefetchWindow,
        autoscale: Autoscale | None,
        settings: Settings,
        clock: Clock,
    ) -> None:
        """`window` is as large as `capacity_of` says."""
        self._pool = pool
        self._window = window
        self._settings = settings
        self._clock = clock
        self.ceiling = max(MOST_BESIDE, pool.size, autoscale.most if autoscale else 0)
        """The largest size that remote control may ask for."""
        self.autoscale = autoscale
        """Decides the size as the load changes; None: the size stays."""

    @property
    def size(self) -> int:
        """How many tasks run at the same time."""
        return self._pool.size

    @property
    def capacity(self) -> int:
        """How many deliveries the worker holds at most."""
        return self._capacity()[0]

    def resize(self, size: int) -> None:
        """Run this many tasks at the same time, at least one; adapt the window."""
        self._pool.resize(size)
        self._window.resize(*self._capacity())

    def scale_between(self, most: int, least: int) -> None:
        """Let the pool's size follow the load between these bounds."""
        assert self.autoscale
        self.autoscale.most, self.autoscale.least = most, least
        self._window.resize(*self._capacity())

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

    def _capacity(self) -> tuple[int, int]:
        return capacity_of(self._settings, self._pool, self.autoscale)
