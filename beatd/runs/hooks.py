"""The task's own hooks, and receivers of signals, called around a run."""

from collections.abc import Callable
from typing import Any

import msgspec

from beatd import signals
from beatd.errors import Retry
from beatd.event_log import EventLog
from beatd.results.base import State
from beatd.tasks import ExceptionInfo, Request, Task

tell = EventLog(__name__)


class Hooks(msgspec.Struct, frozen=True):
    """Calls the user's hooks around one run; what a hook raises is logged."""

    task: Task[..., Any]
    request: Request

    def begun(self) -> None:
        """Tell receivers that the task's code is about to run."""
        request = self.request
        signals.task_prerun.send(
            self.task,
            task_id=request.id,
            task=self.task,
            args=request.args,
            kwargs=request.kwargs,
        )

    def succeeded(self, value: Any, seconds: float) -> None:
        """Tell the task and receivers that the run has returned this value."""
        task, call = self.task, self._call
        self._do("on_success", task.on_success, value, *call)
        signals.task_success.send(task, result=value, runtime=seconds)
        self._do("after_return", task.after_return, State.SUCCESS, value, *call, None)

    def failed(self, error: BaseException, text: str) -> None:
        """Tell the task and receivers that the run has failed with this error."""
        task, call = self.task, self._call
        info = ExceptionInfo(error, text)
        self._do("on_failure", task.on_failure, error, *call, info)
        self._send_failure(info)
        self._do("after_return", task.after_return, State.FAILURE, error, *call, info)

    def rejected(self, error: BaseException, text: str) -> None:
        """Tell receivers that the run has failed, as its message is rejected."""
        self._send_failure(ExceptionInfo(error, text))

    def retried(self, retry: Retry, text: str) -> None:
        """Tell the task and receivers that the run will be tried again."""
        task, call = self.task, self._call
        info = ExceptionInfo(retry, text)
        self._do("on_retry", task.on_retry, retry.exc or retry, *call, info)
        signals.task_retry.send(task, request=self.request, reason=retry, einfo=info)

    def over(self, state: str, value: Any) -> None:
        """Tell receivers that the run is over, however it ended."""
        request = self.request
        signals.task_postrun.send(
            self.task,
            task_id=request.id,
            task=self.task,
            args=request.args,
            kwargs=request.kwargs,
            retval=value,
            state=state,
        )

    def _send_failure(self, info: ExceptionInfo) -> None:
        request, error = self.request, info.exception
        signals.task_failure.send(
            self.task,
            task_id=request.id,
            exception=error,
            args=request.args,
            kwargs=request.kwargs,
            traceback=error.__traceback__,
            einfo=info,
        )

    @property
    def _call(self) -> tuple[Any, Any, Any]:
        return self.request.id, self.request.args, self.request.kwargs

    def _do(self, name: str, hook: Callable[..., object], *words: object) -> None:
        try:
            hook(*words)
        except BaseException:  # foreign code: the run has ended all the same
            tell.exception(
                "hook.failed",
                "%s of task %s raised",
                name,
                self.task.name,
                task=self.task.name,
            )
