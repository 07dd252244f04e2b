"""Runs deliveries: decodes the call, runs the task, reports how it ended."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias, TypeVar

import msgspec

from beatd.brokers.items import Outgoing
from beatd.clock import Clock, SystemClock
from beatd.errors import Ignore, MessageError, Reject, Retry
from beatd.event_log import EventLog
from beatd.instant import SECOND, Instant, instant_of, span_of
from beatd.message import Call, Limits, read_body, read_envelope, retry_of
from beatd.pools.base import InThread, Job
from beatd.pools.limits import soft_limit, soft_limited
from beatd.results import encoding_of
from beatd.results.base import Meta, State, Stored
from beatd.results.encoding import Encoding
from beatd.results.exceptions import repr_of
from beatd.runs import stdout
from beatd.runs.continuations import Continuations, FollowUp
from beatd.runs.coroutines import run_coroutine
from beatd.runs.hooks import Hooks
from beatd.runs.host import Host
from beatd.runs.report import (
    Fate,
    Report,
    keeps,
    meta_of,
    pack_report,
    result_text,
)
from beatd.runs.tracebacks import traceback_of
from beatd.tasks import Again, AsyncResult, GroupResult, Request, Task, running
from beatd.tasks.listed import classes_in
from beatd.text import one_line

tell = EventLog(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs the jobs of a pool, in the thread that calls it; never raises."""

    host: Host
    limits: Limits
    encoding: Encoding | None
    """Encodes results; None: no results are stored."""
    hostname: str
    known_value: Callable[[str], Meta | None]
    """Returns the result of a call that is delivered once more, if it has succeeded."""
    clock: Clock
    made_ready: Callable[[Sequence[Outgoing]], list[Outgoing]]
    """Returns messages as they are sent: `Host.made_ready` in a worker."""
    is_eager: bool = False
    """Whether calls run where they are made."""

    @property
    def continuations(self) -> Continuations:
        """Return the continuations of the runs."""
        return Continuations(self.host, self.encoding, self.hostname, self.clock)

    def __call__(self, job: Job) -> bytes:
        """Run a job in this thread."""
        return _at_once(self._run(job, _Run.here))

    async def run(self, job: Job, in_thread: InThread) -> bytes:
        """Run a job on this event loop if it is a coroutine's, else in a thread."""
        return await self._run(job, partial(_Run.on_loop, in_thread=in_thread))

    async def _run(self, job: Job, way: "_Way") -> bytes:
        try:
            report = await self._report(job, way)
            if report.sends:
                ready = self.made_ready(report.sends)
                report = msgspec.structs.replace(report, sends=ready)
            return pack_report(report)
        except BaseException as error:
            # This is no fault of the task, and another try may do harm.
            tell.exception("task.broken", "cannot run a message")
            reason = f"beatd could not run it: {type(error).__name__}"
            return pack_report(Report(fate=Fate.SET_ASIDE, reason=reason))

    async def _report(self, job: Job, way: "_Way") -> Report:
        try:
            call = read_body(read_envelope(job.message, self.limits), self.limits)
        except MessageError as error:
            return Report(fate=Fate.SET_ASIDE, reason=str(error))
        task = self.host.tasks[call.envelope.task]
        request = self.continuations.request_of(call)
        if self.is_eager:
            request.is_eager = request.delivery_info["is_eager"] = True
        if job.deliveries > 1:
            request.delivery_info["redelivered"] = True
        run = _Run(self, task, call, request)
        if job.deliveries > 1 and (known := self.known_value(call.envelope.id)):
            return run.report_again(known.result)
        began = self.clock.elapsed()
        with running(run.request):
            run.hooks.begun()
            end = await way(run, job.soft_time_limit)
            return run.report(end, (self.clock.elapsed() - began) / SECOND)


def executor_for(
    host: Host, hostname: str, limits: Limits, clock: Clock | None = None
) -> Executor:
    """Make the executor of an application's tasks, by its settings."""
    settings = host.settings

    def known_value(task_id: str) -> Meta | None:
        found = host.meta_of(task_id)
        return found if found.status == State.SUCCESS else None

    return Executor(
        host,
        limits,
        encoding_of(settings) if settings.result_url else None,
        hostname,
        known_value if settings.worker_deduplicate_successful_tasks else _unknown,
        clock or SystemClock(),
        host.made_ready,
    )


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits")


def _unknown(task_id: str) -> None:
    return None


class _End(msgspec.Struct, frozen=True):
    """How the task's own code ended: what it returned, or what it raised."""

    value: Any = None
    error: BaseException | None = None


class _Run(msgspec.Struct, frozen=True):
    """One run of one task, from its first line to its report."""

    executor: Executor
    task: Task[..., Any]
    call: Call
    request: Request

    @property
    def hooks(self) -> Hooks:
        return Hooks(self.task, self.request)

    async def here(self, soft_time_limit: float | None) -> _End:
        """Run the task's code in this thread; the coroutine never waits."""
        return _end_of(partial(self._complete, soft_time_limit))

    async def on_loop(self, soft_time_limit: float | None, in_thread: InThread) -> _End:
        """Await the task's code if it is a coroutine; run it in a thread if not."""
        try:
            if self.task.is_coroutine:
                end = _end_of(partial(self._call, None))
            else:
                call = partial(self._call, soft_time_limit)
                end = await in_thread(partial(_end_of, call))
            if not inspect.iscoroutine(end.value):
                return end
            return _End(await soft_limited(end.value, soft_time_limit))
        except BaseException as error:  # as in `_end_of`; also a cancellation
            return _End(error=error)
        finally:
            stdout.flush()

    def _call(self, soft_time_limit: float | None) -> Any:
        request = self.request
        with soft_limit(soft_time_limit):
            self.task.before_start(self.call.envelope.id, request.args, request.kwargs)
            if type(self.task).__call__ is Task.__call__:
                return self.task.run(*request.args, **request.kwargs)
            # The user's own task class has a `__call__` around its tasks' code.
            request.on_its_way = True
            return self.task(*request.args, **request.kwargs)

    def _complete(self, soft_time_limit: float | None) -> Any:
        value = self._call(soft_time_limit)
        if inspect.iscoroutine(value):
            return run_coroutine(value, soft_time_limit)
        return value

    def report(self, end: _End, seconds: float) -> Report:
        """Return the report of the run; what the task raised is handled here."""
        try:
            state, value, report = self._ended(end, seconds)
        except BaseException as error:
            # What the task has asked for cannot be done: a retry whose arguments have
            # no form in a message, say. The run has failed, and is not tried again.
            self.request.again = None
            state, value = State.FAILURE, error
            report = self._failed(error, seconds)
        self.hooks.over(state, value)
        return msgspec.structs.replace(report, seconds=seconds)

    def _ended(self, end: _End, seconds: float) -> tuple[str, Any, Report]:
        try:
            value = self._value_of(end)
            report = self._succeeded(value, seconds)
            self.hooks.succeeded(value, seconds)
            return report.state, value, report
        except Ignore as error:
            return "IGNORED", error, self._ignored(error)
        except Reject as error:
            return "REJECTED", error, self._rejected(error, seconds)
        except Retry as error:
            return State.RETRY, error, self._retried(error, seconds)
        except BaseException as error:  # the task's own code
            return State.FAILURE, error, self._failed(error, seconds)

    def report_again(self, value: Any) -> Report:
        """Report an earlier success again: what follows from it may be unsent."""
        report = self._succeeded(value, None)
        return msgspec.structs.replace(report, reason="it has succeeded before")

    def _value_of(self, end: _End) -> Any:
        try:
            if end.error is not None:
                raise end.error
        except BaseException as error:  # the task's own, and goes on up
            self.task.retry_after(error)
            raise
        return end.value

    def _succeeded(self, value: Any, seconds: float | None) -> Report:
        if isinstance(value, AsyncResult | GroupResult):
            value = value.as_tuple()  # as Celery writes results that tasks return
        follow_up = self.executor.continuations.of_success(self.call, value)
        children = [child.as_tuple() for child in self.request.children]
        children += follow_up.children
        return Report(
            state=State.SUCCESS,
            stored=self._stored(State.SUCCESS, value, seconds, children=children),
            sends=[*follow_up.sends, *self._again()],
            bookkeeping=follow_up.bookkeeping,
            result=result_text(value),
        )

    def _failed(self, error: BaseException, seconds: float) -> Report:
        text = traceback_of(error)
        follow_up = self._after_failure(error, text)
        self.hooks.failed(error, text)
        return Report(
            state=State.FAILURE,
            stored=self._stored(State.FAILURE, error, seconds, text),
            sends=follow_up.sends,
            bookkeeping=follow_up.bookkeeping,
            reason=one_line(repr_of(error)),
            exception=one_line(repr_of(error)),
            traceback=text,
            expected=isinstance(error, classes_in(self.task.throws)),
        )

    def _after_failure(self, error: BaseException, text: str | None = None) -> FollowUp:
        keep = self._keeps(State.FAILURE)
        continuations = self.executor.continuations
        return continuations.of_failure(
            self.call, State.FAILURE, error, text, keep=keep
        )

    def _retried(self, retry: Retry, seconds: float) -> Report:
        children = [[[self.request.id, None], None]]
        text = traceback_of(retry)
        report = Report(
            state=State.RETRY,
            stored=self._stored(State.RETRY, retry.exc, seconds, text, children),
            sends=self._again(),
            reason=str(retry),
            exception=one_line(repr_of(retry)),
            traceback=text,
            ends_run=self.request.again is None,
        )
        self.hooks.retried(retry, text)
        return report

    def _rejected(self, error: Reject, seconds: float) -> Report:
        if error.requeue:
            return Report(fate=Fate.REQUEUED, reason=str(error.reason), ends_run=False)
        follow_up = self._after_failure(error)
        text = traceback_of(error)
        self.hooks.rejected(error, text)
        return Report(
            fate=Fate.SET_ASIDE,
            state=State.FAILURE,
            stored=self._stored(State.FAILURE, error, seconds),
            sends=follow_up.sends,
            bookkeeping=follow_up.bookkeeping,
            reason=f"rejected: {error.reason}",
            exception=one_line(repr_of(error)),
            traceback=text,
        )

    def _ignored(self, error: Ignore) -> Report:
        reason = one_line(repr_of(error))
        if self.request.replacement is None:
            return Report(reason=reason)
        continuations = self.executor.continuations
        follow_up = continuations.of_replacement(self.call, self.request.replacement)
        return Report(
            reason=reason,
            sends=follow_up.sends,
            bookkeeping=follow_up.bookkeeping,
            ends_run=False,
        )

    def _keeps(self, state: State) -> bool:
        settings = self.executor.host.settings
        return keeps(state, self.request.ignore_result, self.task, settings)

    def _stored(
        self,
        state: State,
        result: object,
        seconds: float | None,
        text: str | None = None,
        children: Sequence[Any] | None = None,
    ) -> Stored | None:
        """Return what is to be stored as the run's result, if anything is."""
        executor = self.executor
        kept = executor.is_eager or self._keeps(state)
        if executor.encoding is None or not kept:
            return None
        if children is None:
            children = [child.as_tuple() for child in self.request.children]
        meta = meta_of(
            self.call.envelope,
            state,
            result,
            executor.host.settings,
            now=executor.clock.now(),
            traceback=text,
            children=children,
            hostname=self.request.hostname,
            arguments=(self.request.args, self.request.kwargs),
            runtime=seconds,
        )
        return executor.encoding.store(meta)

    def _again(self) -> list[Outgoing]:
        """Return the message of the next try, if the task has asked for one."""
        again = self.request.again
        if again is None:
            return []
        now = self.executor.clock.now()
        due = _due(again, now)
        options = {"ignore_result": self.request.ignore_result, **again.options}
        sending = retry_of(self.call, due, again.args, again.kwargs, options)
        return [self.executor.host.outgoing(sending, now, due)]


_Way: TypeAlias = Callable[[_Run, float | None], Awaitable[_End]]
"""Runs the task's own code, within its soft time limit."""


def _end_of(code: Callable[[], Any]) -> _End:
    """Run a task's own code; return its end, even if it raises."""
    try:
        return _End(code())
    except BaseException as error:  # the border of foreign code: the task's body
        return _End(error=error)
    finally:
        stdout.flush()


def _due(again: Again, now: Instant) -> Instant | None:
    """Return the instant of the next try; None: at once. A naive datetime is UTC."""
    if isinstance(again.when, datetime):
        aware = again.when if again.when.tzinfo else again.when.replace(tzinfo=UTC)
        due = instant_of(aware)
    else:
        due = now + span_of(again.when)
    return due if due > now else None
