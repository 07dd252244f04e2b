"""Errbacks that are called in place, with the exception of the run that failed.

An errback that takes no more than the id of that run is sent instead, as a message of
its own: continuations.py.
"""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

from beatd.event_log import EventLog
from beatd.message import Signature
from beatd.message.options import is_signature, listed
from beatd.runs.coroutines import run_coroutine
from beatd.tasks import Task

tell = EventLog(__name__)


def errbacks_of(signature: Signature) -> list[Signature]:
    """Return the errbacks of a call."""
    found = listed((signature.get("options") or {}).get("link_error"))
    return list(filter(is_signature, found or ()))


def wants_exception(task: Task[..., Any], errback: Signature) -> bool:
    """Return whether an errback is to get request, exception and traceback.

    As in Celery, if the errback's function takes more than one argument besides those
    of the signature, and does not get the task itself.
    """
    if task.is_bound:
        return False
    own, named = errback.get("args") or (), errback.get("kwargs") or {}
    if errback.get("immutable"):
        own, named = (), {}
    parameters = task.parameters.parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return True
    by_place = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    room = [one for one in parameters if one.kind in by_place and one.name not in named]
    return len(room) - len(own) > 1


_under_way: set[asyncio.Task[None]] = set()
"""Running errbacks that are coroutines: an event loop does not keep its tasks alive."""


def call_errback(
    task: Task[..., Any], errback: Signature, values: Sequence[Any]
) -> None:
    """Call an errback with `values` in front of its own arguments; never raises."""
    args: Sequence[Any] = errback.get("args") or ()
    if not errback.get("immutable"):
        args = (*values, *args)
    try:
        value = task(*args, **(errback.get("kwargs") or {}))
        if inspect.iscoroutine(value):
            _run(task, value)
    except Exception:  # the user's code
        _log_raised(task)


def _run(task: Task[..., Any], coroutine: Any) -> None:
    """Start a coroutine on the running event loop; without one, run it to its end."""

    async def run() -> None:
        try:
            await coroutine
        except Exception:  # the user's code
            _log_raised(task)

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        run_coroutine(run(), None)
    else:
        under_way = loop.create_task(run())
        _under_way.add(under_way)
        under_way.add_done_callback(_under_way.discard)


def _log_raised(task: Task[..., Any]) -> None:
    tell.exception("errback.failed", "errback %s raised", task.name)
