"""The tasks that every worker of Celery's has, and that clients rely on.

celery.map, celery.starmap  runs one task's code for many values, in one run
celery.accumulate           returns the values of a group that has replaced a task
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from beatd.message import Signature
from beatd.runs.coroutines import run_coroutine
from beatd.tasks import Registry, Task


def add_builtin_tasks(tasks: Registry) -> None:
    """Add the built-in tasks to those of an application."""

    def run(signature: Signature, args: Sequence[Any]) -> Any:
        value = tasks[signature["task"]](*args)
        return run_coroutine(value, None) if inspect.iscoroutine(value) else value

    def map_(task: Signature, it: Iterable[Any]) -> list[Any]:
        return [run(task, [item]) for item in it]

    def starmap(task: Signature, it: Iterable[Sequence[Any]]) -> list[Any]:
        return [run(task, item) for item in it]

    def accumulate(*values: Any, index: int | None = None) -> Any:
        return values if index is None else values[index]

    for function in (map_, starmap, accumulate):
        name = f"celery.{function.__name__.rstrip('_')}"
        tasks.register(Task(function, name=name))
