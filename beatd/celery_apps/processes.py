"""The beginning and the end of a process of the pool, as those of Celery's own pool.

What flushes at the end of a process, Sentry for one, relies on them.
"""

from multiprocessing import util
from types import SimpleNamespace
from typing import Any


def forget_parent() -> None:
    """Drop what belongs to the process that this one is a fork of, as billiard does."""
    from billiard import util as billiards

    # The parent's finalizers are not to run at the end of this process.
    billiards._finalizer_registry.clear()
    # kombu drops here the connections that were made before the fork. Only
    # multiprocessing calls this by itself, and the pool forks without it.
    util._run_after_forkers()  # type: ignore[attr-defined] # nothing public


def end_loop(**_: Any) -> None:
    """Call what has been put around the loop of billiard's processes; it has ended."""
    from billiard.pool import Worker

    if Worker.workloop.__module__ == Worker.__module__:
        return  # nobody has
    idle = SimpleNamespace(
        # A process that may run no task: the loop itself does nothing.
        maxtasks=0,
        outq=SimpleNamespace(put=None),
        **dict.fromkeys(("inqW_fd", "synqW_fd", "max_memory_per_child")),
        **dict.fromkeys(("prepare_result", "wait_for_job", "wait_for_syn")),
        _ensure_messages_consumed=lambda completed: True,
    )
    Worker.workloop(idle)


def call_exit_hooks(**_: Any) -> None:
    """Call what is registered with billiard for the end of a process."""
    from billiard.util import _exit_function

    _exit_function()
