"""Tasks: functions that workers run by their names, and what a run knows of itself.

current.py       the application of calls that name no application
async_result.py  a run, as clients see it, by its id
group_result.py  runs of a group
request.py       a run, as its own code sees it
signature.py     a call to make later
stamping.py      labels for all calls of a canvas
composed.py      several, as one
canvas.py        chains, groups, chords
maps.py          one task with many arguments
listed.py        what an option lists
arguments.py     those of a next try
task.py          `Task`: options, calls, retries, hooks
registry.py      the tasks of an application, by name
shared.py        tasks of no application in particular
"""

from beatd.tasks.async_result import AsyncResult
from beatd.tasks.canvas import chain, chord, group
from beatd.tasks.group_result import GroupResult, ResultSet, result_from_tuple
from beatd.tasks.maps import chunks, xmap, xstarmap
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
    sending_request,
)
from beatd.tasks.signature import Signature, maybe_signature, signature
from beatd.tasks.stamping import StampingVisitor
from beatd.tasks.task import SENT_OPTIONS, Task

__all__ = [
    "SENT_OPTIONS",
    "Again",
    "AsyncResult",
    "ExceptionInfo",
    "GroupResult",
    "Registry",
    "Request",
    "ResultSet",
    "Signature",
    "StampingVisitor",
    "Task",
    "chain",
    "check_tasks",
    "chord",
    "chunks",
    "current_request",
    "group",
    "import_modules",
    "maybe_signature",
    "name_of",
    "problems_of",
    "result_from_tuple",
    "running",
    "sending_request",
    "share",
    "signature",
    "task_of",
    "xmap",
    "xstarmap",
]
