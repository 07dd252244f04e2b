"""beatd: a periodic task scheduler that emits each slot exactly once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from beatd.version import __version__

if TYPE_CHECKING:
    from beatd import signals
    from beatd.app import AsyncResult, Beatd, current_app, shared_task
    from beatd.errors import (
        Ignore,
        Reject,
        Retry,
        SoftTimeLimitExceeded,
        TimeLimitExceeded,
    )
    from beatd.schedules import cron, crontab, every, once, rrule, solar

__all__ = [
    "AsyncResult",
    "Beatd",
    "Ignore",
    "Reject",
    "Retry",
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
    "__version__",
    "cron",
    "crontab",
    "current_app",
    "every",
    "once",
    "rrule",
    "shared_task",
    "signals",
    "solar",
]

_MODULES = {
    **dict.fromkeys(("AsyncResult", "Beatd", "current_app", "shared_task"), "app"),
    **dict.fromkeys(
        ("cron", "crontab", "every", "once", "rrule", "solar"), "schedules"
    ),
    **dict.fromkeys(("Ignore", "Reject", "Retry"), "errors"),
    **dict.fromkeys(("SoftTimeLimitExceeded", "TimeLimitExceeded"), "errors"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import beatd` costs little."""
    if name == "signals":
        return import_module("beatd.signals")
    if name not in _MODULES:
        raise AttributeError(f"module 'beatd' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"beatd.{_MODULES[name]}"), name)
    return value
