"""Tasks: functions that workers run by their names, and what a run knows of itself."""

from beatd.tasks.task import (
    SENT_OPTIONS,
    Again,
    ExceptionInfo,
    Registry,
    Request,
    Task,
    current_request,
    import_modules,
    name_of,
    running,
    share,
)

__all__ = [
    "SENT_OPTIONS",
    "Again",
    "ExceptionInfo",
    "Registry",
    "Request",
    "Task",
    "current_request",
    "import_modules",
    "name_of",
    "running",
    "share",
]
