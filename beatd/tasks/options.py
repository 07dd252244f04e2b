"""The options of tasks: what values they take, and how each is checked.

A worker checks them when it starts: a value that fails only where it is used would end
the worker, or leave a run without an end.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from beatd.bounds import rate_of, seconds_of
from beatd.errors import ConfigError
from beatd.message.options import option_problems
from beatd.tasks.listed import flat
from beatd.tasks.task import SENT_OPTIONS, Task
from beatd.text import one_line, quoted


def check_tasks(tasks: Iterable[Task[..., Any]]) -> None:
    """Raise ConfigError for options of wrong values, those of all tasks at once."""
    problems = [problem for task in tasks for problem in problems_of(task)]
    if problems:
        raise ConfigError("the options of tasks", problems)


def problems_of(task: Task[..., Any]) -> list[str]:
    """Return what is wrong with a task's options, with the task's name and module."""
    where = f"task {one_line(task.name)!r} (module {task.__module__})"
    return [f"{where}: {problem}" for problem in _problems_of(task)]


def _problems_of(task: Task[..., Any]) -> Iterable[str]:
    for name, check in _CHECKS.items():
        try:
            check(getattr(task, name))
        except ValueError as error:
            yield f"{name}: {error}"
    sent = {name: getattr(task, name) for name in SENT_OPTIONS}
    for name, problem in option_problems(sent):
        if name not in _CHECKS:
            yield problem


_Check: TypeAlias = Callable[[Any], object]


def _optional(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _limit(value: object) -> float:
    """Return a time limit; messages carry it, and JSON has no timedelta."""
    if isinstance(value, timedelta):
        raise ValueError(f"expected a number of seconds, got {quoted(value)}")
    return seconds_of(value)


def _rate(value: object) -> float:
    try:
        return rate_of(value)
    except ValueError:
        expected = "expected a rate such as 10/s, 10/m, 10/h or a number"
        raise ValueError(f"{expected}, got {quoted(value)}") from None


def _tries(value: object) -> object:
    """Return how often a task is tried again; infinity says the same as None.

    It is only compared with, so that any number does that can be told to others.
    """
    if isinstance(value, int | float) and (abs(value) < 2**63 or value == math.inf):
        return value
    raise ValueError(f"expected a number, got {quoted(value)}")


def _backoff(value: object) -> object:
    return value if isinstance(value, bool) else seconds_of(value)


def _flag(value: object) -> None:
    if not isinstance(value, bool) and value not in (0, 1):
        raise ValueError(f"expected True or False, got {quoted(value)}")


def _retry_kwargs(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a dict, got {quoted(value)}")
    if "max_retries" in value:
        _optional(_tries)(value["max_retries"])
    for _, problem in option_problems(value):
        raise ValueError(problem)


def _exceptions(value: object) -> None:
    for one in flat(value):
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise ValueError(f"expected classes of exceptions, got {quoted(one)}")


def _throws(value: object) -> None:
    """Check what `isinstance` is asked: also classes that exceptions have beside."""
    for one in flat(value):
        if not isinstance(one, type):
            raise ValueError(f"expected classes of exceptions, got {quoted(one)}")


_CHECKS: Mapping[str, _Check] = {
    "time_limit": _optional(_limit),
    "soft_time_limit": _optional(_limit),
    "rate_limit": _rate,
    "max_retries": _optional(_tries),
    "default_retry_delay": _optional(seconds_of),
    "retry_backoff": _backoff,
    "retry_backoff_max": seconds_of,
    "retry_kwargs": _optional(_retry_kwargs),
    "autoretry_for": _exceptions,
    "dont_autoretry_for": _exceptions,
    "throws": _optional(_throws),
    "ignore_result": _optional(_flag),
}
