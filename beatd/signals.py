"""Signals: events of tasks and workers, by which connected functions are called.

The names are Celery's.

    from beatd.signals import task_failure

    @task_failure.connect
    def page(sender, exception, **_):
        ...

Where a call is sent, by a client, by a run or for an entry of an app, with the name of
its task as sender:

    before_task_publish     body, exchange, routing_key, headers, properties, declare,
                            retry_policy; changes of body, headers, properties and
                            retry_policy take effect; the queue in declare is only
                            for reading
    after_task_publish      body, exchange, routing_key, headers; not of runs

In the process that runs the task, with the task as sender:

    task_prerun             task_id, task, args, kwargs
    task_postrun            task_id, task, args, kwargs, retval, state
    task_success            result, runtime (seconds)
    task_failure            task_id, exception, args, kwargs, traceback, einfo
    task_retry              request, reason, einfo

In the worker's own process, for runs whose process is gone or that never begin:

    task_failure            the same, of a time limit or of a process that died
    task_revoked            request, terminated, signum, expired; the sender is the task

and of messages, with the worker as sender:

    task_received           request: the message without its arguments
    task_unknown            message (bytes), exc, name, id
    task_rejected           message (bytes), exc; it cannot be read

and of the worker itself, which is the sender:

    worker_init             before its pool starts; also in a new interpreter that the
                            pool's processes are forked from
    worker_ready            it takes tasks from now on
    worker_shutting_down    sig, how, exitcode; it takes no more tasks; here the sender
                            is its name
    worker_shutdown         it has ended

In each process of a pool, without a sender:

    worker_process_init     before its first task
    worker_process_shutdown pid, exitcode; after its last task, if it ends by itself

In the scheduler, which is the sender:

    beat_init               before its first tick
    beat_embedded_init      the same, when it runs in a worker

When the log is set up, after the modules of tasks are imported; with loglevel, logfile,
format and colorize:

    setup_logging           if a receiver is connected, it sets up the log, not beatd
    after_setup_logger      logger: the root logger, with its handlers
    after_setup_task_logger logger: the parent of the loggers of tasks
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from beatd.event_log import EventLog

tell = EventLog(__name__)

Receiver = TypeVar("Receiver", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Connection:
    receiver: Callable[..., Any]
    sender: Any
    key: object
    """Connections with the same key are the same."""

    def accepts(self, sender: Any) -> bool:
        wanted = self.sender
        return wanted is None or wanted is sender or wanted == _name_of(sender)


@dataclass(slots=True)
class Signal:
    """One kind of event, and the functions that are called when it happens."""

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

        Usable as a decorator, with arguments or without. With a `sender`, a task or its
        name, only for that one. With a `dispatch_uid`, the connection takes the place
        of an earlier one that has the same. Connections stay, `weak` or not.
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
        """Undo `connect` with the same arguments; return whether it was connected."""
        before = self._connections
        self._forget((dispatch_uid or receiver, _name_of(sender)))
        return self._connections != before

    @property
    def has_receivers(self) -> bool:
        """Whether any function is connected."""
        return bool(self._connections)

    @property
    def receivers(self) -> list[Callable[..., Any]]:
        """Return the functions that are connected."""
        return [connection.receiver for connection in self._connections]

    def send(self, sender: Any = None, **more: Any) -> list[Exception | None]:
        """Call the receivers; return what each raised, which is logged, or None."""
        raised: list[Exception | None] = []
        for connection in self._connections:
            if not connection.accepts(sender):
                continue
            try:
                connection.receiver(signal=self, sender=sender, **more)
                raised.append(None)
            except Exception as error:  # foreign code, which must not harm a run
                raised.append(error)
                tell.exception(
                    "signal.failed",
                    "%r, connected to %s, raised",
                    connection.receiver,
                    self.name,
                    signal=self.name,
                )
        return raised

    def _forget(self, key: object) -> None:
        self._connections = tuple(one for one in self._connections if one.key != key)


def _name_of(sender: Any) -> Any:
    return getattr(sender, "name", sender)


before_task_publish = Signal("before_task_publish")
after_task_publish = Signal("after_task_publish")
task_prerun = Signal("task_prerun")
task_postrun = Signal("task_postrun")
task_success = Signal("task_success")
task_failure = Signal("task_failure")
task_retry = Signal("task_retry")
task_revoked = Signal("task_revoked")
task_received = Signal("task_received")
task_unknown = Signal("task_unknown")
task_rejected = Signal("task_rejected")
worker_init = Signal("worker_init")
worker_ready = Signal("worker_ready")
worker_shutting_down = Signal("worker_shutting_down")
worker_shutdown = Signal("worker_shutdown")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown")
beat_init = Signal("beat_init")
beat_embedded_init = Signal("beat_embedded_init")
setup_logging = Signal("setup_logging")
after_setup_logger = Signal("after_setup_logger")
after_setup_task_logger = Signal("after_setup_task_logger")
