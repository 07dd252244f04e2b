"""Tasks: functions that workers run by their names, and what a run knows of itself.

current.py       the application of calls that name no application
async_result.py  a run, as clients see it, by its id
request.py       a run, as its own code sees it
task.py          `Task`: options, calls, retries, hooks
registry.py      the tasks of an application, by name
shared.py        tasks of no application in particular
"""

from beatd.tasks.async_result import AsyncResult
from beatd.tasks.options import check_tasks, problems_of
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
    "check_tasks",
    "current_request",
    "import_modules",
    "name_of",
    "problems_of",
    "running",
    "share",
    "task_of",
]
