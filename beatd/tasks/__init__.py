"""Tasks: functions that workers run by their names, and what a run knows of itself.

current.py       the application that calls go through when they name none
async_result.py  a run, for clients that have its id
request.py       a run, for itself
task.py          `Task`: options, calls, retries, hooks
registry.py      the tasks of an application, by name
shared.py        tasks of no application in particular
"""

from beatd.tasks.async_result import AsyncResult
from beatd.tasks.registry import (
    Registry,
    import_modules,
    name_of,
    share,
    task_of,
)
from beatd.tasks.request import (
    Again,
    ExceptionInfo,
    Request,
    current_request,
    running,
)
from beatd.tasks.task import SENT_OPTIONS, Task

__all__ = [
    "SENT_OPTIONS",
    "Again",
    "AsyncResult",
    "ExceptionInfo",
    "Registry",
    "Request",
    "Task",
    "current_request",
    "import_modules",
    "name_of",
    "running",
    "share",
    "task_of",
]
