"""How much a worker does at the same time, and how much it holds for that."""

from collections.abc import Callable

from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.event_log import EventLog
from beatd.pools.base import Pool
from beatd.worker.autoscale import Autoscale
from beatd.worker.fetcher import PrefetchWindow

tell = EventLog(__name__)

UNLIMITED = 10_000
"""Deliveries that a worker holds at most when the settings set no limit."""


def capacity_of(settings: Settings, pool: Pool, autoscale: Autoscale | None) -> int:
    """Return how many deliveries a worker holds at most."""
    # For the pool to grow there has to be more than it runs now.
    places = autoscale.most if autoscale else pool.size
    if settings.worker_disable_prefetch:
        return places
    multiplier = settings.worker_prefetch_multiplier
    return places * multiplier if multiplier else UNLIMITED


class Sizing:
    """Changes the size of a pool, and what the worker may hold with it.

    Invariant: what is in flight and what `window` has free are `capacity` together, but
    for what stands aside.
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
        self.autoscale = autoscale
        """Decides the size as the load changes; None: nobody does."""

    @property
    def size(self) -> int:
        """How many tasks run at the same time."""
        return self._pool.size

    @property
    def capacity(self) -> int:
        """How many deliveries the worker holds at most."""
        return capacity_of(self._settings, self._pool, self.autoscale)

    def resize(self, size: int) -> None:
        """Run this many at the same time, one at least, and hold accordingly many."""
        before = self.capacity
        self._pool.resize(size)
        self._window.clear(self.capacity - before)

    def scale_between(self, most: int, least: int) -> None:
        """Let the pool's size follow the load between these bounds."""
        assert self.autoscale
        before = self.capacity
        self.autoscale.most, self.autoscale.least = most, least
        self._window.clear(self.capacity - before)

    def follow(self, load: Callable[[], int]) -> None:
        """Make the pool as large as the load wants it, if that is asked for."""
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
                size,
                before,
                size=size,
            )
