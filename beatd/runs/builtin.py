"""The tasks that every worker of Celery's has, and those that a worker may be given.

celery.map, celery.starmap  runs one task's code for many values, in one run
celery.accumulate           returns the values of a group that has replaced a task
beatd.run                   runs a command; only if `builtin_tasks` names it
beatd.http                  makes a request; only if `builtin_tasks` names it
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from beatd.config.builtin_tasks import HTTP, RUN, builtin_arguments
from beatd.message import Signature
from beatd.runs import command
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


def run(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run a command; return its exit `status` and the end of its `output`.

    Arguments
        command: the program and its arguments, as a list; with `shell` one text
        shell: whether /bin/sh reads the command
        timeout: seconds; then the command, and all that it has started, gets SIGTERM,
            and SIGKILL five seconds later
        cwd: the folder that it runs in
        env: variables, added to the worker's
        input: text for its standard input, which is empty else
        ok_statuses: exit statuses that are no failure; 0 is the only one else

    Raises CommandFailed, which shows the last lines of the output. What is left of the
    command's process group when it has ended is killed. BEATD_TASK_ID and, for a slot
    of an entry, BEATD_SLOT are among its variables.
    """
    said = builtin_arguments(RUN, args, kwargs)
    request = self.request
    marks = {"BEATD_TASK_ID": request.id, "BEATD_SLOT": request.get("beatd_slot")}
    variables = {name: str(value) for name, value in marks.items() if value}
    return command.run(command.Command(**said), variables, _hard_limit(self))


def http(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Make a request; return `status` and the beginning of the `body` of its answer.

    Arguments
        url: where to, http:// or https://; a login in it becomes basic authentication
        method: GET if there is no body, POST if there is one, unless it is named
        headers: a dict of texts
        body, json: a text, or a value to be sent as JSON
        timeout: seconds for all of it; 30 if none is named
        expected_status: a status, or a list of them; any from 200 to 299 else

    Raises RequestFailed. Redirects are followed; with headers, a login or a body only
    those to the same server.
    """
    # Not above: urllib.request and http.client take a twentieth of a worker's start.
    from beatd.runs import web_request

    said = builtin_arguments(HTTP, args, kwargs)
    return web_request.send(web_request.WebRequest(**said))


BUILTIN: Mapping[str, Callable[..., Any]] = {RUN: run, HTTP: http}
"""The tasks of beatd's own that a worker has if it is told to; each gets its task."""


def add_named_tasks(tasks: Registry, names: Iterable[str]) -> None:
    """Add these tasks of beatd's own."""
    for name in names:
        tasks.register(Task(BUILTIN[name], name=name, bind=True))


_MARGIN = 1.0
"""Seconds after a run's time limit until its command is ended here: where the pool can
end the run, it has done so by then, and says so."""


def _hard_limit(task: Any) -> float | None:
    """Return the seconds after which the pool counts the run as over, and a little."""
    settings = task.app.conf
    limit = (task.request.timelimit or (None,))[0] or task.time_limit
    limit = limit or settings.task_time_limit
    return limit + _MARGIN if limit else None
