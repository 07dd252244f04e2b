"""`task_annotations`: changes that the settings make to tasks, by name or to all.

Celery's forms: a dict of attributes by task name, `*` for all tasks; an object whose
`annotate(task)` returns a task's attributes, or `annotate_any()` those of all; the
place of such an object's class, `module:Class`; or a list of these.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from beatd.config.faults import Unreadable
from beatd.config.modules import import_module
from beatd.errors import ConfigError
from beatd.tasks import Task

Attributes: TypeAlias = Mapping[str, Any]

NAME = "task_annotations"


class Annotations:
    """The changes that `task_annotations` makes to tasks."""

    def __init__(self, written: Any) -> None:
        listed = written if isinstance(written, list | tuple) else [written]
        self._sources = [_source(one) for one in listed if one is not None]

    def of(self, task: Task[Any, Any]) -> Iterator[Attributes]:
        """Return a task's attributes, and then those of all tasks, which win.

        Each is the answer of the first form in the list that has one. Raises
        ConfigError for an answer that is no dict, or an exception instead of one.
        """
        for ask in (lambda one: one.annotate(task), lambda one: one.annotate_any()):
            answers = (_answer(ask, one) for one in self._sources)
            first = next((found for found in answers if found is not None), None)
            if first is not None:
                yield first


@dataclass(frozen=True, slots=True)
class _Table:
    """Attributes by the task's name."""

    rows: Mapping[str, Any]

    def annotate(self, task: Task[Any, Any]) -> Any:
        return self.rows.get(task.name)

    def annotate_any(self) -> Any:
        return self.rows.get("*")


@dataclass(frozen=True, slots=True)
class _Foreign:
    """An object of the user's, which may have only one of the two methods."""

    made: Any

    def annotate(self, task: Task[Any, Any]) -> Any:
        method = getattr(self.made, "annotate", None)
        return method(task) if method else None

    def annotate_any(self) -> Any:
        method = getattr(self.made, "annotate_any", None)
        return method() if method else None


_Source: TypeAlias = _Table | _Foreign


def _source(written: Any) -> _Source:
    if isinstance(written, Mapping):
        return _Table(written)
    return _Foreign(_instance(written) if isinstance(written, str) else written)


def _instance(place: str) -> Any:
    """Make an object of the class at `module:Class` or `module.Class`."""
    module, _, name = place.replace(":", ".").rpartition(".")
    try:
        return getattr(import_module(module), name)()
    except Unreadable as error:
        raise ConfigError(NAME, [f"{place!r}: {error.problem}"]) from error
    except Exception as error:  # the user's code, or no such class
        raise ConfigError(NAME, [f"{place!r} raised {error!r}"]) from error


def _answer(ask: Callable[[_Source], Any], source: _Source) -> Attributes | None:
    try:
        answer = ask(source)
        return None if answer is None else dict(answer)
    except Exception as error:  # the user's code, or no dict
        raise ConfigError(NAME, [f"{source!r} raised {error!r}"]) from error
