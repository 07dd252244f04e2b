"""Celery's request objects, for who asks for one in a worker's process or in a child.

Receivers of `task_received` get one, and tasks with a `Request` class of their own have
its methods called. What Celery's own methods do beatd does elsewhere.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

from beatd.event_log import EventLog
from beatd.message import Call
from beatd.message.wire import as_sent

tell = EventLog(__name__)

CELERYS = "celery.worker.request:Request"
"""What a task without a class of its own names."""


def request_for(app: Any, call: Call, hostname: str) -> Any:
    """Return the request that Celery's worker makes of a message.

    It is of the task's own class, whose bases do nothing by themselves.
    """
    from celery.utils.imports import symbol_by_name
    from celery.worker.strategy import hybrid_to_proto2

    envelope, task = call.envelope, app.tasks[call.envelope.task]
    headers, properties = as_sent(envelope.raw)
    message = SimpleNamespace(
        headers=headers,
        properties=properties,
        delivery_info={
            **(properties.get("delivery_info") or {}),
            "redelivered": envelope.redelivered,
        },
        content_type=envelope.content_type,
        content_encoding="utf-8",
        body=envelope.body,
    )
    if envelope.decoded is not None:  # protocol 1: what others have in headers
        read = {"args": call.args, "kwargs": call.kwargs}
        _, headers, _, _ = hybrid_to_proto2(message, {**envelope.decoded, **read})
    embed = {
        "callbacks": call.callbacks,
        "errbacks": call.errbacks,
        "chain": call.chain,
        "chord": call.chord,
    }
    return _quiet(symbol_by_name(task.Request))(
        message,
        app=app,
        hostname=hostname,
        task=task,
        body=(call.args, call.kwargs, embed),
        headers={**headers, "task": envelope.task, "id": envelope.id},
        decoded=True,
    )


def has_own_request(task: Any) -> bool:
    """Return whether a task has a `Request` class of its own."""
    return bool(task.Request != CELERYS)


def tell_raised(app: Any, call: Call, hostname: str, info: Any) -> None:
    """Tell the task's own request what its run has raised, or that its process died.

    Like all of these, it never raises. A success is not told: Celery's worker replaces
    the `on_success` of each class by one of its own.
    """
    try:
        request_for(app, call, hostname).on_failure(info, return_ok=True)
    except Exception:  # the user's code
        _log_raised(call)


def tell_time_limit(app: Any, call: Call, hostname: str, seconds: float) -> None:
    """Tell the task's own request that its time limit has ended its run."""
    try:
        request_for(app, call, hostname).on_timeout(False, seconds)
    except Exception:  # the user's code
        _log_raised(call)


def _log_raised(call: Call) -> None:
    words = "the Request of %s raised"
    tell.exception("request.failed", words, call.envelope.task)


@cache
def _quiet(own: type) -> type:
    """Return the class with bases that leave storing and acknowledging to beatd."""
    from celery.worker.request import Request

    class Quiet(Request):  # type: ignore[misc] # Celery has no types
        def on_failure(self, exc_info: Any, *_: Any, **__: Any) -> None: ...

        def on_timeout(self, soft: bool, timeout: float) -> None: ...

        def on_retry(self, exc_info: Any) -> None: ...

        def acknowledge(self) -> None: ...

        def reject(self, requeue: bool = False) -> None: ...

    return type(own.__name__, (Quiet,) if own is Request else (own, Quiet), {})
