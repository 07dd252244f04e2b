"""Whether the code that makes messages of calls is Celery's own."""

from functools import cached_property
from typing import Any

from beatd.config.own_code import OwnCode, name_of

_OF_TASKS = ("apply_async", "shadow_name", "_get_exec_options")


class CeleryCode:
    """The code of one app, and who listens to what it sends."""

    def __init__(self, app: Any) -> None:
        import celery
        from celery import signals
        from celery.app.task import Task
        from celery.beat import Scheduler

        self._app = app
        self._own = OwnCode.of("Celery", celery.__file__)
        self._task = Task
        self._signals = (
            signals.before_task_publish,
            signals.after_task_publish,
            signals.task_sent,
        )
        self._apply_async = Task.apply_async
        self._scheduler = Scheduler

    def listened_to(self) -> str:
        """Return who takes part in each call just now; empty if nobody does."""
        for signal in self._signals:
            if signal.receivers:
                return f"{_receiver(signal)} is connected to {signal.name}"
        if self._task.apply_async is not self._apply_async:
            return f"{name_of(self._task.apply_async)} is around Task.apply_async"
        return ""

    def is_around_beat(self) -> bool:
        """Return whether other code is around what Celery's beat sends by."""
        return not self._own.has(self._scheduler.apply_entry)

    def calls_for_each(self, task: Any) -> str:
        """Return why a call of the task is to be made for each slot; empty if not."""
        if self._of_app or task is None:
            return self._of_app
        return self._own.foreign(task, *_OF_TASKS)

    @cached_property
    def _of_app(self) -> str:
        app = self._app
        if app.conf.task_protocol == 1:
            return "with task_protocol = 1, the body of a message has its id"
        for route in app.amqp.router.routes:
            if not self._own.has(type(route).__call__):
                return f"task_routes has {name_of(route)}, which answers each call"
        return self._own.foreign(app, "send_task", "now") or self._own.foreign(
            app.amqp, "create_task_message", "send_task_message"
        )


def _receiver(signal: Any) -> str:
    """Return the name of the first receiver of a signal."""
    _, receiver = signal.receivers[0]
    alive = receiver() if type(receiver).__name__ in _WEAK else receiver
    return name_of(alive)


_WEAK = {"weakref", "ReferenceType", "WeakMethod", "BoundMethodWeakref"}
