"""One delivery in, one report out: decode the call, run the task, say how it ended."""

import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from beatd.brokers.base import Outgoing
from beatd.clock import Clock, SystemClock
from beatd.errors import Ignore, MessageError, Reject, Retry
from beatd.instant import SECOND, Instant, datetime_of, instant_of, span_of
from beatd.message import (
    Call,
    Limits,
    Sending,
    follow_up,
    next_step,
    read_body,
    read_envelope,
    retry_of,
)
from beatd.pools.base import InThread, Job
from beatd.pools.limits import soft_limit, soft_limited
from beatd.results import encoding_of
from beatd.results.base import Meta, State, Stored
from beatd.results.exceptions import repr_of
from beatd.settings import Settings
from beatd.tasks import Again, Registry, Request, Task, running
from beatd.worker.coroutines import run_coroutine
from beatd.worker.report import (
    Fate,
    Report,
    ignores_result,
    keeps,
    meta_of,
    one_line,
    pack_report,
    result_text,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_TRACEBACK = 100_000
"""Characters; an exception may carry a text of any length."""

PACKAGE = str(Path(__file__).parent.parent)


class Host(Protocol):
    """The application, as those who run its tasks need it: app.py."""

    @property
    def settings(self) -> Settings:
        """Give the settings."""
        ...

    @property
    def tasks(self) -> Registry:
        """Give the tasks."""
        ...

    def outgoing(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Give the message of a call."""
        ...

    def meta_of(self, task_id: str) -> Meta:
        """Give what is known of a run."""
        ...

    def store_meta(self, meta: Meta) -> None:
        """Keep this as a run's result."""
        ...


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs the jobs of a pool, wherever the pool wants them run; never raises."""

    tasks: Registry
    settings: Settings
    limits: Limits
    encode: Callable[[Meta], Stored] | None
    """Encodes what is to be kept; MessageError if it cannot. None: nothing is kept."""
    address: Callable[[Sending, Instant, Instant | None], Outgoing]
    """Makes the message of a call, sent at the one instant, due at the other."""
    hostname: str
    known_to_have_succeeded: Callable[[str], bool]
    """Asked of a task that is delivered once more."""
    clock: Clock

    def __call__(self, job: Job) -> bytes:
        """Run a job in this thread."""
        return _at_once(self._run(job, _Run.here))

    async def run(self, job: Job, in_thread: InThread) -> bytes:
        """Run a job on this event loop if it is a coroutine's, else in a thread."""
        return await self._run(job, partial(_Run.on_loop, in_thread=in_thread))

    async def _run(self, job: Job, way: "_Way") -> bytes:
        try:
            return pack_report(await self._report(job, way))
        except BaseException as error:
            # Not the task's doing, and not known to be harmless to try again.
            logger.exception("cannot run a message", extra={"event": "task.broken"})
            reason = f"beatd could not run it: {type(error).__name__}"
            return pack_report(Report(fate=Fate.BURIED, reason=reason))

    async def _report(self, job: Job, way: "_Way") -> Report:
        try:
            call = read_body(read_envelope(job.message, self.limits), self.limits)
        except MessageError as error:
            return Report(fate=Fate.BURIED, reason=str(error))
        if job.deliveries > 1 and self.known_to_have_succeeded(call.envelope.id):
            return Report(reason="it has succeeded before")
        task = self.tasks[call.envelope.task]
        run = _Run(self, task, call, self._request(task, call))
        began = self.clock.elapsed()
        with running(run.request):
            report = run.report(await way(run, job.soft_time_limit))
        seconds = (self.clock.elapsed() - began) / SECOND
        return msgspec.structs.replace(report, seconds=seconds)

    def _request(self, task: Task[..., Any], call: Call) -> Request:
        said = call.envelope
        return Request(
            task=task.name,
            id=said.id,
            args=call.args,
            kwargs=call.kwargs,
            retries=said.retries,
            eta=None if said.eta is None else datetime_of(said.eta).isoformat(),
            expires=said.expires_text,
            timelimit=(said.time_limit, said.soft_time_limit),
            hostname=self.hostname,
            delivery_info={
                "exchange": said.exchange,
                "routing_key": said.routing_key,
                "priority": said.priority,
                "redelivered": said.redelivered,
            },
            headers=said.custom_headers,
            root_id=said.root_id or said.id,
            parent_id=said.parent_id,
            group=said.group,
            group_index=said.group_index,
            correlation_id=said.correlation_id,
            reply_to=said.reply_to,
            origin=said.origin,
            shadow=said.shadow,
            ignore_result=ignores_result(said, task, self.settings),
            called_directly=False,
            callbacks=call.callbacks,
            errbacks=call.errbacks,
            chain=call.chain,
            chord=call.chord,
        )


def executor_for(
    host: Host, hostname: str, limits: Limits, clock: Clock | None = None
) -> Executor:
    """Make what runs an application's tasks, by its settings."""
    settings = host.settings

    def succeeded(task_id: str) -> bool:
        return host.meta_of(task_id).status == State.SUCCESS

    return Executor(
        host.tasks,
        settings,
        limits,
        encoding_of(settings).store if settings.result_url else None,
        host.outgoing,
        hostname,
        succeeded if settings.worker_deduplicate_successful_tasks else _never,
        clock or SystemClock(),
    )


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits")


def _never(task_id: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _End:
    """How the task's own code came to its end: what it gave, or what it raised."""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one task, from its first line to its report."""

    executor: Executor
    task: Task[..., Any]
    call: Call
    request: Request

    async def here(self, soft_time_limit: float | None) -> _End:
        """Run the task's code in this thread, and never let go of it."""
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
        except BaseException as error:  # the border, as in `_end_of`; a cancellation
            return _End(error=error)

    def _call(self, soft_time_limit: float | None) -> Any:
        with soft_limit(soft_time_limit):
            return self.task.run(*self.request.args, **self.request.kwargs)

    def _complete(self, soft_time_limit: float | None) -> Any:
        value = self._call(soft_time_limit)
        if inspect.iscoroutine(value):
            return run_coroutine(value, soft_time_limit)
        return value

    def report(self, end: _End) -> Report:
        """Say how it ended; whatever the task raised, it ends here."""
        try:
            return self._succeeded(self._value_of(end))
        except Ignore as error:
            return Report(state="", reason=one_line(repr_of(error)))
        except Reject as error:
            return self._rejected(error)
        except Retry as error:
            return self._retried(error)
        except BaseException as error:
            return self._failed(error)

    def _value_of(self, end: _End) -> Any:
        try:
            if end.error is not None:
                raise end.error
        except BaseException as error:
            self.task.retry_after(error)
            raise
        return end.value

    def _succeeded(self, value: Any) -> Report:
        sends = [
            follow_up(callback, self.call.envelope, (value,))
            for callback in self.call.callbacks
        ]
        if step := next_step(self.call, value):
            sends.append(step)
        return Report(
            state=State.SUCCESS,
            stored=self._stored(State.SUCCESS, value),
            sends=[*self._messages(sends), *self._again()],
            result=result_text(value),
        )

    def _failed(self, error: BaseException) -> Report:
        text = traceback_of(error)
        sends = [
            follow_up(errback, self.call.envelope, (self.request.id,))
            for errback in self.call.errbacks
        ]
        return Report(
            state=State.FAILURE,
            stored=self._stored(State.FAILURE, error, text),
            sends=self._messages(sends),
            reason=one_line(repr_of(error)),
            exception=one_line(repr_of(error)),
            traceback=text,
            expected=isinstance(error, tuple(self.task.throws)),
        )

    def _retried(self, retry: Retry) -> Report:
        children = [[[self.request.id, None], None]]
        text = traceback_of(retry)
        return Report(
            state=State.RETRY,
            stored=self._stored(State.RETRY, retry.exc, text, children),
            sends=self._again(),
            reason=str(retry),
            exception=one_line(repr_of(retry)),
            traceback=text,
            ends_run=self.request.again is None,
        )

    def _rejected(self, error: Reject) -> Report:
        if error.requeue:
            return Report(fate=Fate.REQUEUED, reason=str(error.reason), ends_run=False)
        return Report(
            fate=Fate.BURIED,
            state=State.FAILURE,
            stored=self._stored(State.FAILURE, error),
            reason=f"rejected: {error.reason}",
            exception=one_line(repr_of(error)),
            traceback=traceback_of(error),
        )

    def _stored(
        self,
        state: State,
        result: object,
        text: str | None = None,
        children: Sequence[Any] | None = None,
    ) -> Stored | None:
        """Give what is to be kept as the run's result, if anything is."""
        executor = self.executor
        ignored = self.request.ignore_result
        if executor.encode is None or not keeps(
            state, ignored, self.task, executor.settings
        ):
            return None
        if children is None:
            children = [[[child.id, None], None] for child in self.request.children]
        meta = meta_of(
            self.call.envelope,
            state,
            result,
            executor.settings,
            now=executor.clock.now(),
            traceback=text,
            children=children,
            hostname=self.request.hostname,
            arguments=(self.request.args, self.request.kwargs),
        )
        return executor.encode(meta)

    def _again(self) -> list[Outgoing]:
        """Give the message of the next try, if the task asked for one."""
        again = self.request.again
        if again is None:
            return []
        now = self.executor.clock.now()
        due = _due(again, now)
        options = {"ignore_result": self.request.ignore_result, **again.options}
        sending = retry_of(self.call, due, again.args, again.kwargs, options)
        return [self.executor.address(sending, now, due)]

    def _messages(self, sendings: Sequence[Sending]) -> list[Outgoing]:
        now = self.executor.clock.now()
        return [self.executor.address(sending, now, None) for sending in sendings]


_Way: TypeAlias = Callable[[_Run, float | None], Awaitable[_End]]
"""How to have the task's own code run, within its soft time limit."""


def _end_of(code: Callable[[], Any]) -> _End:
    """Run a task's own code."""
    try:
        return _End(code())
    except BaseException as error:  # the border of foreign code: the task's body
        return _End(error=error)


def _due(again: Again, now: Instant) -> Instant | None:
    """Give the instant of the next try; None for at once. Naive datetimes are UTC."""
    if isinstance(again.when, datetime):
        aware = again.when if again.when.tzinfo else again.when.replace(tzinfo=UTC)
        due = instant_of(aware)
    else:
        due = now + span_of(again.when)
    return due if due > now else None


def traceback_of(error: BaseException) -> str:
    """Give the traceback as text, without the frames of ours that it begins with."""
    frames: TracebackType | None = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(PACKAGE):
        frames = frames.tb_next
    try:
        lines = traceback.format_exception(type(error), error, frames)
    except BaseException:  # foreign code again: `__str__`, `__notes__`
        return f"{type(error).__name__}, whose traceback cannot be shown\n"
    return "".join(lines)[-LONGEST_TRACEBACK:]
