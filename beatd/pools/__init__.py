"""Pools, in which jobs run: `create` is the only place that knows them all."""

from collections.abc import Callable

from beatd import greenlets
from beatd.errors import ConfigError
from beatd.pools.base import AsyncRunner, Pool, PoolEvent
from beatd.pools.options import PoolOptions

NAMES = ("prefork", "threads", "solo", "asyncio", *greenlets.NAMES)


def create(
    name: str,
    runner: AsyncRunner,
    on_event: Callable[[PoolEvent], object],
    *,
    options: PoolOptions,
) -> Pool:
    """Return a new pool of the kind that `worker_pool` names.

    Raises ConfigError when there is no pool of that name, or it cannot be used here.
    """
    size, initialise = options.size, options.initialise
    if name == "prefork":
        from beatd.pools.prefork.pool import Prefork

        return Prefork(runner, on_event, options=options)
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
