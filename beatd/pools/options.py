"""What a pool is made with, besides the runner and who hears of its events."""

from collections.abc import Callable
from dataclasses import dataclass

from beatd.pools.prefork.forkserver import Starter


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What may be asked of any pool; a pool leaves out what it cannot do.

    Those below `initialise` are for pools whose jobs have processes of their own.
    """

    size: int
    """How many jobs run at the same time."""
    initialise: Callable[[], object] | None = None
    """Called before the first job wherever jobs run."""
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    """In KiB, looked at after each job."""
    alive_timeout: float | None = None
    """A child that is not ready so many seconds after it was asked for, what
    `initialise` takes included, is killed, and another takes its place."""
    spawn: Starter | None = None
    """Starts a fork server that is a new interpreter."""
    fork: bool = True
    """Whether the first fork server is a copy of this process all the same."""
    on_renewed: Callable[[bytes], object] = lambda about: None
    """Told what a new interpreter says of its code, before its children run any job.
    Called in the pool's thread: it only takes note."""
    on_crash: Callable[[BaseException], object] | None = None
    """Told of an end of the pool that nobody foresaw; it only takes note."""
