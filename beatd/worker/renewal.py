"""New code for a running worker: its pool's processes are replaced.

The worker's own process does not import code again. A new interpreter does, and tells
the worker which tasks it has, with the options that the worker's loop needs.
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
"""The options of a task that the worker's loop needs."""


class About(msgspec.Struct, frozen=True):
    """What a new interpreter tells the worker of its code."""

    tasks: dict[str, dict[str, Any]]
    """The options of each task, by its name."""
    modules: list[str]
    """The modules that remote control asked for."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The pool has moved to processes with new code; `about` is an encoded About."""

    about: bytes


def describe(tasks: Registry, modules: Sequence[str]) -> bytes:
    """Return the encoded About of a new interpreter."""
    table = {
        name: {option: getattr(task, option) for option in OPTIONS}
        for name, task in tasks.items()
    }
    return msgspec.msgpack.encode(About(table, list(modules)), enc_hook=str)


def understand(about: bytes) -> About:
    """Return the About that a new interpreter has encoded."""
    return msgspec.msgpack.decode(about, type=About)


def learn(tasks: Registry, about: About) -> list[str]:
    """Register the tasks that the new processes have; return the new and changed names.

    A task that is gone stays registered: the new processes decide about its messages.
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
    """Modules that no interpreter has tried to import yet."""

    def to_load(self) -> list[str]:
        """Return all that a new interpreter is to import; forget what was asked for."""
        names = list(dict.fromkeys([*self.loaded, *self.asked]))
        self.asked = ()
        return names


class Renewal:
    """Has the pool's processes replaced, and updates tasks from the new ones' About."""

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
        """Have new processes run what follows; return False if the pool has none.

        `fresh`: they load the code as it is now, and these modules, too.
        """
        self._modules.asked = modules
        return isinstance(self._pool, ProcessPool) and self._pool.renew(fresh=fresh)

    def end(self, about: About) -> None:
        """Update tasks and modules by what the pool's new processes have."""
        self._modules.loaded = about.modules
        for name in learn(self._tasks, about):
            self._on_changed(name)
