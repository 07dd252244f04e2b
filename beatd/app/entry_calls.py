"""The calls of an app's tasks, as the code of the tasks makes them, for entries."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from beatd import signals
from beatd.app.calls import Caller, Calls, calls_for_each
from beatd.app.recorder import CallRecorder
from beatd.app.shapes import CallShapes
from beatd.config.own_code import name_of
from beatd.message import Made, MessageFormat
from beatd.routing import Router
from beatd.tasks import Task
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import Args, Kwargs

_APPLY_ASYNC = Task.apply_async


class App(Caller, Protocol):
    """The application whose tasks these are."""

    def send_task(
        self, name: str, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> AsyncResult[Any]:
        """Queue a call of a task by its name."""
        ...


class EntryCalls:
    """Makes calls of an app's tasks, and keeps their messages for the scheduler."""

    def __init__(
        self, app: App, calls: Calls, format: MessageFormat, router: Router
    ) -> None:
        self._app = app
        self._calls = calls
        self._shapes = CallShapes(format, router)

    def listened_to(self) -> str:
        """Return who takes part in each call just now; empty if nobody does."""
        for signal in (signals.before_task_publish, signals.after_task_publish):
            for receiver in signal.receivers:
                return f"{name_of(receiver)} is connected to {signal.name}"
        if Task.apply_async is not _APPLY_ASYNC:
            return f"{name_of(Task.apply_async)} is around Task.apply_async"
        return ""

    def calls_for_each(self, name: str) -> str:
        """Return why a call of the task is to be made for each slot; empty if not."""
        return calls_for_each(self._app, name)

    def check(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError for arguments that the task does not take."""
        task = self._app.tasks.get(name)
        if task is not None:
            task.check_arguments(args, kwargs)

    def options_of(
        self, name: str, options: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the options of a call with those of its task, None without a task."""
        task = self._app.tasks.get(name)
        if task is None:
            return None
        return self._calls.known({**task.sent_options(), **options})

    def publish(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Sequence[Made]:
        """Make a call, and return what it would send. It may raise anything."""
        settings = self._app.settings
        policy = settings.task_publish_retry_policy
        recorder = CallRecorder(self._shapes, policy)
        task = self._app.tasks.get(name)
        if task is not None:
            task.apply_async(args, kwargs, **options, producer=recorder)
            return recorder.kept
        if settings.task_default_priority is not None:
            options = {"priority": settings.task_default_priority, **options}
        self._app.send_task(name, args, kwargs, **options, producer=recorder)
        return recorder.kept
