"""beatd: a periodic task scheduler that emits each slot exactly once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from beatd.version import __version__

if TYPE_CHECKING:
    from beatd import signals, states
    from beatd.app import AsyncResult, Beatd, current_app, current_task, shared_task
    from beatd.errors import (
        Ignore,
        Reject,
        Retry,
        SoftTimeLimitExceeded,
        TimeLimitExceeded,
    )
    from beatd.routing import Exchange, Queue
    from beatd.schedules import cron, crontab, every, once, rrule, solar
    from beatd.tasks import (
        GroupResult,
        ResultSet,
        Signature,
        StampingVisitor,
        Task,
        chain,
        chord,
        chunks,
        group,
        maybe_signature,
        result_from_tuple,
        signature,
        xmap,
        xstarmap,
    )

__all__ = [
    "AsyncResult",
    "Beatd",
    "Exchange",
    "GroupResult",
    "Ignore",
    "Queue",
    "Reject",
    "ResultSet",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "StampingVisitor",
    "Task",
    "TimeLimitExceeded",
    "__version__",
    "chain",
    "chord",
    "chunks",
    "cron",
    "crontab",
    "current_app",
    "current_task",
    "every",
    "group",
    "maybe_signature",
    "once",
    "result_from_tuple",
    "rrule",
    "shared_task",
    "signals",
    "signature",
    "solar",
    "states",
    "xmap",
    "xstarmap",
]

_MODULES = {
    **dict.fromkeys(("AsyncResult", "Beatd", "current_app", "shared_task"), "app"),
    **dict.fromkeys(("GroupResult", "ResultSet", "Signature", "Task"), "tasks"),
    **dict.fromkeys(("chain", "chord", "chunks", "group", "xmap", "xstarmap"), "tasks"),
    **dict.fromkeys(("maybe_signature", "result_from_tuple", "signature"), "tasks"),
    **dict.fromkeys(("Exchange", "Queue"), "routing"),
    "current_task": "app",
    "StampingVisitor": "tasks",
    **dict.fromkeys(
        ("cron", "crontab", "every", "once", "rrule", "solar"), "schedules"
    ),
    **dict.fromkeys(("Ignore", "Reject", "Retry"), "errors"),
    **dict.fromkeys(("SoftTimeLimitExceeded", "TimeLimitExceeded"), "errors"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import beatd` costs little."""
    if name in ("signals", "states"):
        return import_module(f"beatd.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'beatd' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"beatd.{_MODULES[name]}"), name)
    return value
