"""The options of a pool: all it is made with but the runner and `on_event`."""

from collections.abc import Callable
from dataclasses import dataclass

from beatd.pools.prefork.forkserver import Starter


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """The options of any pool; a pool ignores those that it cannot fulfil.

    Options below `initialise` are for pools whose jobs have processes of their own.
    """

    size: int
    """How many jobs run at the same time."""
    initialise: Callable[[], object] | None = None
    """Called before the first job in each process in which jobs run."""
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    """In KiB; checked after each job."""
    alive_timeout: float | None = None
    """Seconds that the start of a child may take, with `initialise`. A child that is
    not ready then is killed and replaced."""
    spawn: Starter | None = None
    """Starts a fork server that is a new interpreter."""
    fork: bool = True
    """Whether the first fork server is a copy of this process, even with `spawn`."""
    on_renewed: Callable[[bytes], object] = lambda about: None
    """Called with what a new interpreter tells of its code, before its children run any
    job; in the pool's thread, so it must not take long."""
    on_crash: Callable[[BaseException], object] | None = None
    """Called, in the pool's thread, when the pool ends by an unforeseen error."""
