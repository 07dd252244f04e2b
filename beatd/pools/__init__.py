"""Where jobs run: `create` is the only place that knows all pools."""

from collections.abc import Callable

from beatd import greenlets
from beatd.errors import ConfigError
from beatd.pools.base import AsyncRunner, Pool, PoolEvent
from beatd.pools.prefork.forkserver import Starter

NAMES = ("prefork", "threads", "solo", "asyncio", *greenlets.NAMES)


def create(
    name: str,
    runner: AsyncRunner,
    on_event: Callable[[PoolEvent], object],
    *,
    size: int,
    initialise: Callable[[], object] | None = None,
    max_tasks_per_child: int | None = None,
    max_memory_per_child: int | None = None,
    alive_timeout: float | None = None,
    spawn: Starter | None = None,
    fork: bool = True,
    on_renewed: Callable[[bytes], object] = lambda about: None,
    on_crash: Callable[[BaseException], object] | None = None,
) -> Pool:
    """Make the pool that `worker_pool` names; what it cannot do it leaves out.

    Raises ConfigError when there is no pool of that name, or it cannot be used here.
    """
    if name == "prefork":
        from beatd.pools.prefork.pool import Prefork

        return Prefork(
            runner,
            on_event,
            size=size,
            initialise=initialise,
            max_tasks_per_child=max_tasks_per_child,
            max_memory_per_child=max_memory_per_child,
            alive_timeout=alive_timeout,
            spawn=spawn,
            fork=fork,
            on_renewed=on_renewed,
            on_crash=on_crash,
        )
    if name == "threads":
        from beatd.pools.threads import Threads

        return Threads(runner, on_event, size=size, initialise=initialise)
    if name == "solo":
        from beatd.pools.solo import Solo

        return Solo(runner, on_event, initialise=initialise)
    if name == "asyncio":
        from beatd.pools.asyncio import Asyncio

        return Asyncio(runner, on_event, size=size, initialise=initialise)
    if name in greenlets.NAMES:
        from beatd.pools.green import Green

        kind = greenlets.named(name)
        return Green(runner, on_event, kind, size=size, initialise=initialise)
    expected = ", ".join(NAMES)
    raise ConfigError("worker_pool", [f"expected one of {expected}; got {name!r}"])
