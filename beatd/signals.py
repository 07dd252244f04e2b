"""What happens to tasks and workers, for functions that want to know; Celery's names.

    from beatd.signals import task_failure

    @task_failure.connect
    def page(sender, exception, **_):
        ...

In the process that runs the task, with the task as sender:

    task_prerun     task_id, task, args, kwargs
    task_postrun    task_id, task, args, kwargs, retval, state
    task_success    result, runtime (seconds)
    task_failure    task_id, exception, args, kwargs, traceback, einfo
    task_retry      request, reason, einfo

In the worker's own process:

    task_revoked    request, terminated, signum, expired; the sender is the task
    worker_init     before its pool starts; here and below the sender is the worker
    worker_ready    it takes tasks from now on
    worker_shutdown it has ended

In each process of a pool, before its first task: worker_process_init, without a sender.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

logger = logging.getLogger(__name__)

Receiver = TypeVar("Receiver", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Connection:
    receiver: Callable[..., Any]
    sender: Any
    key: object
    """Connections with the same one are the same."""

    def hears(self, sender: Any) -> bool:
        wanted = self.sender
        return wanted is None or wanted is sender or wanted == _name_of(sender)


@dataclass(slots=True)
class Signal:
    """Something that happens, and who is told."""

    name: str
    _connections: tuple[_Connection, ...] = field(default=(), init=False)

    @overload
    def connect(
        self,
        receiver: Receiver,
        *,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: object = None,
    ) -> Receiver: ...

    @overload
    def connect(
        self,
        *,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: object = None,
    ) -> Callable[[Receiver], Receiver]: ...

    def connect(
        self,
        receiver: Any = None,
        *,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: object = None,
    ) -> Any:
        """Call `receiver` each time, with the sender and more as keywords.

        Usable as a decorator, with arguments or without. `sender` is the only one to
        hear: a task, or its name. With `dispatch_uid` a second connection takes the
        place of the first. What is connected stays so, `weak` or not.
        """

        def connect(receiver: Receiver) -> Receiver:
            key = (dispatch_uid or receiver, _name_of(sender))
            self._forget(key)
            self._connections += (_Connection(receiver, sender, key),)
            return receiver

        return connect if receiver is None else connect(receiver)

    def disconnect(
        self,
        receiver: Any = None,
        *,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: object = None,
    ) -> bool:
        """Undo `connect` with the same arguments; say whether there was anything."""
        before = self._connections
        self._forget((dispatch_uid or receiver, _name_of(sender)))
        return self._connections != before

    def send(self, sender: Any = None, **said: Any) -> None:
        """Call all who want to hear of it; what they raise is logged."""
        for connection in self._connections:
            if not connection.hears(sender):
                continue
            try:
                connection.receiver(signal=self, sender=sender, **said)
            except Exception:  # foreign code, which must not harm a run
                logger.exception(
                    "%r, connected to %s, raised",
                    connection.receiver,
                    self.name,
                    extra={"event": "signal.failed", "signal": self.name},
                )

    def _forget(self, key: object) -> None:
        self._connections = tuple(one for one in self._connections if one.key != key)


def _name_of(sender: Any) -> Any:
    return getattr(sender, "name", sender)


task_prerun = Signal("task_prerun")
task_postrun = Signal("task_postrun")
task_success = Signal("task_success")
task_failure = Signal("task_failure")
task_retry = Signal("task_retry")
task_revoked = Signal("task_revoked")
worker_init = Signal("worker_init")
worker_ready = Signal("worker_ready")
worker_process_init = Signal("worker_process_init")
worker_shutdown = Signal("worker_shutdown")
