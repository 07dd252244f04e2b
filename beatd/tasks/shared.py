"""Tasks that belong to no application in particular, and the one that runs now."""

from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from beatd.tasks.current import current_app
from beatd.tasks.registry import share, task_of
from beatd.tasks.request import current_request
from beatd.tasks.task import Task

P = ParamSpec("P")
R = TypeVar("R")


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(
    *, bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(function: Any = None, /, **options: Any) -> Any:
    """Make a task that belongs to no application in particular: every one has it.

    Its calls go through the application that was made last; without one, an application
    is made from the config.
    """

    def make(function: Callable[..., Any]) -> Task[..., Any]:
        task = task_of(function, current_app, options)
        share(task)
        return task

    return make(function) if function else make


class _CurrentTask:
    """Stands for the task whose run this code is in; outside of runs it is false."""

    def __getattr__(self, name: str) -> Any:
        return getattr(running_task(), name)

    def __bool__(self) -> bool:
        return running_task() is not None

    def __repr__(self) -> str:
        return repr(running_task())


def running_task() -> Task[..., Any] | None:
    """Return the task whose run this code is in; None outside of runs."""
    request = current_request()
    if request is None:
        return None
    task: Task[..., Any] = current_app().tasks[request.task]
    return task


current_task = _CurrentTask()
