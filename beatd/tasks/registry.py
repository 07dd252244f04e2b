"""The tasks of an application, by their names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from beatd.config.faults import Unreadable
from beatd.config.modules import import_module
from beatd.errors import ConfigError, NotRegistered
from beatd.tasks.current import Application, current_app
from beatd.tasks.task import Task

_shared: dict[str, Task[..., Any]] = {}
"""Tasks of no application in particular: every application has them."""


def share(task: Task[..., Any]) -> None:
    """Let every application have this task."""
    _shared[task.name] = task


class Registry(Mapping[str, Task[..., Any]]):
    """The tasks of one application, by name, and the tasks shared by all applications.

    `prepare` is called with a task each time before the registry returns it.
    """

    def __init__(
        self, prepare: Callable[[Task[..., Any]], object] = lambda task: None
    ) -> None:
        self._own: dict[str, Task[..., Any]] = {}
        self._prepare = prepare

    def register(self, task: Task[..., Any]) -> None:
        """Add a task; it takes the place of an earlier task with the same name."""
        self._own[task.name] = task

    def __getitem__(self, name: str) -> Task[..., Any]:
        task = self._own.get(name) or _shared.get(name)
        if task is None:
            raise NotRegistered(name)
        self._prepare(task)
        return task

    def __iter__(self) -> Iterator[str]:
        return iter(_shared | self._own)

    def __len__(self) -> int:
        return len(_shared | self._own)


def name_of(name: str, module: str, main: str = "") -> str:
    """Return the default name of a task: that of its module and its function.

    In a program that was started by its file, Python calls the module `__main__`, and
    processes that import it call it by its name: `main` stands for that name.
    """
    return f"{main if main and module == '__main__' else module}.{name}"


def task_of(
    function: Callable[..., Any],
    app: Callable[[], Application],
    options: Mapping[str, Any],
) -> Task[..., Any]:
    """Make a task of a function.

    The option `base` is its class, `name` its name; the others are its attributes.
    Without a `base` it gets the class of its application's tasks: `Task.join`.
    """
    if isinstance(function, Task) and function.is_shared and app is current_app:
        problem = "it is a shared task already, by another @shared_task"
        raise TypeError(f"{function.name}: {problem}")
    given = dict(options)
    base: type[Task[..., Any]] | None = given.pop("base", None)
    name = given.pop("name", None) or name_of(function.__name__, function.__module__)
    if problems := [*_unsupported(given)]:
        raise ConfigError(f"task {name!r}", problems)
    task = (base or Task)(function, app=app, name=name, **given)
    task.has_own_class = base is not None
    return task


_UNSUPPORTED = {
    "pydantic": "beatd does not validate arguments: do it in the task's own code",
    "pydantic_strict": "beatd does not validate arguments",
    "pydantic_context": "beatd does not validate arguments",
    "pydantic_dump_kwargs": "beatd does not convert results",
    "filter": "beatd makes a task of the function as it is: decorate the function",
    "backend": "beatd has one result backend for all tasks: set result_backend",
    "Strategy": "a message is one run",
    "Request": "beatd's worker has requests of its own",
}
"""Options of Celery's that would change what a task does, and that do nothing here."""


def _unsupported(options: Mapping[str, Any]) -> Iterator[str]:
    for name, reason in _UNSUPPORTED.items():
        if options.get(name):
            yield f"unknown option {name!r}; {reason}"


def import_modules(names: Iterable[str]) -> None:
    """Import modules that hold tasks; raise ConfigError for all that cannot be."""
    problems: list[str] = []
    for name in names:
        try:
            import_module(name)
        except Unreadable as error:
            problems.append(f"{name}: {error.problem}")
    if problems:
        raise ConfigError("imports", problems)
