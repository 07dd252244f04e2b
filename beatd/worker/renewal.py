"""New code for a worker that runs: what its processes say of it, and what it learns.

The worker's own process imports nothing anew. A new interpreter does, and says which
tasks it has, with the options by which the worker's loop goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from beatd.pools.base import Pool, ProcessPool
from beatd.tasks import Registry, Task

OPTIONS = (
    *("time_limit", "soft_time_limit", "rate_limit", "acks_late"),
    *("acks_on_failure_or_timeout", "reject_on_worker_lost", "retry_on_worker_lost"),
    *("max_retries", "default_retry_delay"),
    *("ignore_result", "store_errors_even_if_ignored"),
)
"""What the worker's loop asks of a task."""


class About(msgspec.Struct, frozen=True):
    """What a new interpreter says of its code."""

    tasks: dict[str, dict[str, Any]]
    """Options by the tasks' names."""
    modules: list[str]
    """Those that remote control asked for."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The pool has moved to processes with new code; `about` is what these say."""

    about: bytes


def describe(tasks: Registry, modules: Sequence[str]) -> bytes:
    """Return what a new interpreter is to say."""
    table = {
        name: {option: getattr(task, option) for option in OPTIONS}
        for name, task in tasks.items()
    }
    return msgspec.msgpack.encode(About(table, list(modules)), enc_hook=str)


def understand(about: bytes) -> About:
    """Return what a new interpreter has said."""
    return msgspec.msgpack.decode(about, type=About)


def learn(tasks: Registry, about: About) -> list[str]:
    """Let the worker know the tasks that its processes have; name the new and changed.

    One that is gone is still known: what its messages come to, these processes say.
    """
    changed: list[str] = []
    for name, options in about.tasks.items():
        if name not in tasks:
            tasks.register(Task(name=name))
        elif all(getattr(tasks[name], key) == options[key] for key in options):
            continue
        changed.append(name)
        for option, value in options.items():
            setattr(tasks[name], option, value)
    return changed


@dataclass
class Modules:
    """Modules that remote control has added to those that the settings name."""

    loaded: Sequence[str] = ()
    asked: Sequence[str] = ()
    """Not tried yet."""

    def to_load(self) -> list[str]:
        """Name all that a new interpreter is to import; what is asked is asked once."""
        names = list(dict.fromkeys([*self.loaded, *self.asked]))
        self.asked = ()
        return names


class Renewal:
    """Has the pool's processes replaced, and goes by what the new ones say."""

    def __init__(
        self,
        *,
        pool: Pool,
        modules: Modules,
        tasks: Registry,
        on_changed: Callable[[str], object],
    ) -> None:
        """`on_changed` is called with the name of each task that is new or changed."""
        self._pool = pool
        self._modules = modules
        self._tasks = tasks
        self._on_changed = on_changed

    def begin(self, modules: Sequence[str], *, fresh: bool) -> bool:
        """Have new processes run what follows; False if the pool has none.

        `fresh`: they have the code as it is now, and of these modules too.
        """
        self._modules.asked = modules
        return isinstance(self._pool, ProcessPool) and self._pool.renew(fresh=fresh)

    def end(self, about: About) -> None:
        """Go by what the pool's new processes say of their tasks."""
        self._modules.loaded = about.modules
        for name in learn(self._tasks, about):
            self._on_changed(name)
