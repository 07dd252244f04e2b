"""Runs a Celery app's tasks, by Celery's own tracer."""

import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import msgspec

from beatd import greenlets
from beatd.celery_apps.processes import forget_parent
from beatd.celery_apps.requests import has_own_request, tell_raised
from beatd.clock import Clock, SystemClock
from beatd.errors import MessageError
from beatd.event_log import EventLog
from beatd.instant import SECOND
from beatd.message import Call, Limits, read_body, read_envelope
from beatd.pools.base import InThread, Job
from beatd.pools.limits import soft_limit
from beatd.pools.prefork import places
from beatd.results.base import State
from beatd.results.exceptions import repr_of
from beatd.runs import stdout
from beatd.runs.report import Fate, Report, pack_report
from beatd.text import encodable, one_line

tell = EventLog(__name__)

_soft_time_limit: ContextVar[float | None] = ContextVar("soft", default=None)
"""The soft time limit of the task whose code is about to begin."""


@dataclass(frozen=True, slots=True)
class CeleryRunner:
    """Runs the jobs of a pool through Celery's tracer; never raises."""

    app: Any
    limits: Limits
    hostname: str
    clock: Clock = field(default_factory=SystemClock)
    made_in: int = field(default_factory=os.getpid)
    """The process in which the runner was made."""

    def initialise(self) -> None:
        """Do what Celery does in a process before its first task."""
        from billiard.process import current_process
        from celery import signals as theirs
        from celery._state import _set_task_join_will_block
        from celery.app.trace import build_tracer
        from celery.exceptions import SoftTimeLimitExceeded

        if place := places.here():
            # By this number tasks choose one of several devices, Celery a file name.
            # The name is the one that a process of Celery's own pool has.
            current_process().index = place - 1
            current_process().name = f"ForkPoolWorker-{place}"
        if os.getpid() != self.made_in:
            forget_parent()
        # A task that waits for other tasks occupies a place of the pool that these may
        # need: Celery refuses to wait, except in greenlets.
        _set_task_join_will_block(not greenlets.patched())
        self.app.loader.init_worker_process()
        for name, task in self.app.tasks.items():
            task.run = _limited(task.run, SoftTimeLimitExceeded)
            # A tracer keeps the id of the process in which it was made.
            task.__trace__ = build_tracer(
                name, task, self.app.loader, self.hostname, app=self.app
            )
        theirs.worker_process_init.send(sender=self.hostname)

    def __call__(self, job: Job) -> bytes:
        """Run a job in this thread."""
        try:
            return pack_report(self._report(job))
        except BaseException as error:
            # This is no fault of the task, and another try may do harm.
            tell.exception("task.broken", "cannot run a message")
            reason = f"Celery could not run it: {one_line(repr_of(error))}"
            return pack_report(Report(fate=Fate.SET_ASIDE, reason=reason))

    async def run(self, job: Job, in_thread: InThread) -> bytes:
        """Run a job in a thread: Celery has no coroutines."""
        return await in_thread(partial(self, job))

    def _report(self, job: Job) -> Report:
        try:
            call = read_body(read_envelope(job.message, self.limits), self.limits)
        except MessageError as error:
            return Report(fate=Fate.SET_ASIDE, reason=str(error))
        _soft_time_limit.set(job.soft_time_limit)
        began = self.clock.elapsed()
        report, raised = self._trace(
            call, request_of(call, self.hostname, again=job.deliveries > 1)
        )
        seconds = (self.clock.elapsed() - began) / SECOND
        if raised and has_own_request(self.app.tasks[call.envelope.task]):
            tell_raised(self.app, call, self.hostname, raised)
        return msgspec.structs.replace(report, seconds=seconds)

    def _trace(self, call: Call, request: Mapping[str, Any]) -> tuple[Report, Any]:
        """Return the report, and Celery's ExceptionInfo if the task has raised."""
        from celery.app.trace import trace_task
        from celery.exceptions import Reject

        task = self.app.tasks[call.envelope.task]
        try:
            value, info, _, shown = trace_task(
                task, call.envelope.id, call.args, call.kwargs, request
            )
        except Reject as error:
            return _rejected(task, call, request, error), info_of(error)
        except BaseException as error:  # with Celery it would end the process
            info, value = _ended_by(task, call, request, error)
        if info is None:
            return Report(state=State.SUCCESS, result=encodable(shown or "")), None
        if info.state == "REJECTED":
            return _rejected(task, call, request, info.retval), value
        return _report_of(task, info, value), value


def request_of(call: Call, hostname: str, *, again: bool) -> dict[str, Any]:
    """Return the request that Celery's worker would make of the message."""
    envelope = call.envelope
    # The request has the option only if the message has it: else the task decides.
    ignored = envelope.ignore_result
    known: dict[str, Any] = {} if ignored is None else {"ignore_result": ignored}
    if envelope.compression is not None:
        known["compression"] = envelope.compression
    headers, properties = envelope.custom_headers_and_properties
    return {
        **headers,
        "properties": properties,
        "lang": "py",
        "task": envelope.task,
        "id": envelope.id,
        "shadow": envelope.shadow,
        "eta": envelope.eta_text,
        "expires": envelope.expires_text,
        "group": envelope.group,
        "group_index": envelope.group_index,
        "retries": envelope.retries,
        "timelimit": [envelope.time_limit, envelope.soft_time_limit],
        "root_id": envelope.root_id,
        "parent_id": envelope.parent_id,
        "argsrepr": envelope.argsrepr,
        "kwargsrepr": envelope.kwargsrepr,
        "origin": envelope.origin,
        "replaced_task_nesting": envelope.replaced_task_nesting,
        "stamped_headers": envelope.stamped_headers,
        "stamps": envelope.stamps,
        **known,
        "reply_to": envelope.reply_to,
        "correlation_id": envelope.correlation_id,
        "delivery_info": {
            "exchange": envelope.exchange,
            "routing_key": envelope.routing_key,
            "priority": envelope.priority,
            "redelivered": envelope.redelivered or again,
        },
        "hostname": hostname,
        "is_eager": False,
        "callbacks": call.callbacks,
        "errbacks": call.errbacks,
        "chain": call.chain,
        "chord": call.chord,
    }


def _limited(run: Callable[..., Any], error: type[BaseException]) -> Callable[..., Any]:
    """Limit the time of a task's own code, but not of Celery's code around it."""

    @wraps(run)
    def limited(*args: Any, **kwargs: Any) -> Any:
        seconds = _soft_time_limit.get()
        # Tasks that this task calls as functions run within its limit.
        _soft_time_limit.set(None)
        try:
            with soft_limit(seconds, error):
                return run(*args, **kwargs)
        except BaseException as raised:
            # Without this frame, which says nothing to who reads the traceback.
            if raised.__traceback__:
                raised.__traceback__ = raised.__traceback__.tb_next
            raise
        finally:
            stdout.flush()

    return limited


def _ended_by(
    task: Any, call: Call, request: Mapping[str, Any], error: BaseException
) -> tuple[Any, Any]:
    """Return Celery's end of a failure: SystemExit ends the run, not the worker."""
    from celery.app.trace import TraceInfo
    from celery.exceptions import WorkerLostError

    lost = WorkerLostError(f"the task raised {one_line(repr_of(error))}")
    context = context_of(call, request)
    try:
        raise lost from error
    except WorkerLostError:
        info = TraceInfo(State.FAILURE, lost)
        return info, info.handle_error_state(task, context)


def _report_of(task: Any, info: Any, raised: Any) -> Report:
    """Return the report of a run that did not succeed; Celery has stored its result."""
    error = info.retval
    shown = one_line(repr_of(error))
    if info.state == "IGNORED":
        return Report(reason=shown)
    if info.state == State.RETRY:
        return Report(
            state=State.RETRY,
            reason=one_line(str(error)),
            exception=shown,
            traceback=encodable(raised.traceback),
            ends_run=False,
        )
    return Report(
        # A fault of Celery itself may come again, so its message is set aside.
        fate=Fate.SET_ASIDE if raised.internal else Fate.SETTLED,
        state=State.FAILURE,
        reason=f"Celery could not run it: {shown}" if raised.internal else shown,
        exception=shown,
        traceback=encodable(raised.traceback),
        expected=isinstance(error, task.throws or ()),
    )


def _rejected(task: Any, call: Call, request: Mapping[str, Any], error: Any) -> Report:
    """Return the report of a message that its task has rejected.

    If it is for good, the run has failed: Celery's worker stores that and tells those
    who wait for it, outside of its tracer.
    """
    reason = one_line(str(error.reason))
    if error.requeue:
        return Report(fate=Fate.REQUEUED, reason=reason, ends_run=False)
    own = call.envelope.ignore_result
    ignored = task.ignore_result if own is None else own
    task.backend.mark_as_failure(
        call.envelope.id,
        error,
        request=context_of(call, request),
        store_result=not ignored or task.store_errors_even_if_ignored,
    )
    info = info_of(error)
    send_task_failure(task, call, error, info)
    return Report(
        fate=Fate.SET_ASIDE,
        state=State.FAILURE,
        reason=f"rejected: {reason}",
        exception=one_line(repr_of(error)),
        traceback=encodable(info.traceback),
    )


def context_of(call: Call, request: Mapping[str, Any]) -> Any:
    """Return Celery's context of a run, for what is done outside of its tracer."""
    from celery.app.task import Context

    return Context(request, args=call.args, kwargs=call.kwargs, called_directly=False)


def info_of(error: BaseException) -> Any:
    """Return Celery's ExceptionInfo of an exception."""
    from billiard.einfo import ExceptionInfo

    try:
        raise error
    except BaseException:  # ExceptionInfo reads what is being handled
        return ExceptionInfo()


def send_task_failure(task: Any, call: Call, error: BaseException, info: Any) -> None:
    """Send Celery's signal for a failure that its tracer does not tell of."""
    from celery import signals as theirs

    theirs.task_failure.send(
        sender=task,
        task_id=call.envelope.id,
        exception=error,
        args=call.args,
        kwargs=call.kwargs,
        traceback=info.traceback,
        einfo=info,
    )
