"""A Celery app as it is: its tasks, run by Celery's own tracer.

What belongs to one run is Celery's doing, in the process that runs the task: signals,
states and results, retries, callbacks, chains, groups and chords. What lies around it
is ours: delivery, pools, limits, and what becomes of the message. A message is settled
after Celery has kept the result and sent what follows; a worker that dies in between
has it run again.

Celery is the user's: it is there when an app of it is, and imported by then.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, wraps
from importlib import import_module
from multiprocessing import util
from typing import Any

import msgspec

from beatd import greenlets, signals
from beatd.clock import Clock, SystemClock
from beatd.errors import ConfigError, MessageError, ResultUnavailable
from beatd.instant import SECOND
from beatd.message import Call, Envelope, Limits, read_body, read_envelope
from beatd.pools import places
from beatd.pools.base import InThread, Job
from beatd.pools.limits import soft_limit
from beatd.results.base import Meta, State, Stored
from beatd.results.chords import Joined
from beatd.results.exceptions import form_of, repr_of
from beatd.runs import stdout
from beatd.runs.chords import Conducted, Failed, call_of
from beatd.runs.report import Aftermath, Fate, Report, one_line, pack_report
from beatd.settings import Settings
from beatd.tasks import Registry, Task, import_modules
from beatd.worker.renewal import OPTIONS

logger = logging.getLogger(__name__)

# Before the first run -----------------------------------------------------------


def prepare(
    app: Any, settings: Settings, hostname: str, include: Sequence[str]
) -> None:
    """Make the app ready to be run by a worker of these settings, and of this name.

    Its own modules are imported already: source.py. Raises ConfigError.
    """
    from celery.app.trace import setup_worker_optimizations

    _connect(app, settings)
    import_modules(include)
    # Threads without an app of their own get this one, and a task class whose
    # `__call__` calls that of its base class runs as one task, not as two.
    setup_worker_optimizations(app, hostname)
    # The loop says how each run ended; once is enough.
    logging.getLogger("celery.app.trace").addFilter(_is_said_by_nobody_else)
    _pass_on(_Controller(app, hostname, settings.worker_pool))


def _connect(app: Any, settings: Settings) -> None:
    """Have the app send to where we take from: the command line may have named it."""
    if not all("redis" in url.partition(":")[0] for url in settings.write_urls):
        problem = (
            "a Celery app sends retries, callbacks and chains by itself, and Redis is"
            " the broker that it shares with beatd; write redis://host:port/db"
        )
        raise ConfigError("broker_url", [problem])
    app.conf.broker_url = ";".join(settings.broker_urls)
    if settings.result_backend is not None:
        app.conf.result_backend = settings.result_backend


def _is_said_by_nobody_else(record: logging.LogRecord) -> bool:
    """Leave out what Celery's tracer says of a run, but for its own faults."""
    return record.levelno >= logging.CRITICAL or not hasattr(record, "data")


@dataclass(frozen=True, slots=True)
class _Controller:
    """What stands for Celery's worker in its signals, as far as Django's fixup asks."""

    app: Any
    hostname: str
    pool_cls: str


def _pass_on(worker: _Controller) -> None:
    """Send as Celery's the signals that the worker's loop sends as ours."""
    from celery import signals as theirs
    from celery.app.task import Context

    for name in ("worker_init", "worker_ready", "worker_shutdown"):
        send = partial(getattr(theirs, name).send, sender=worker)
        getattr(signals, name).connect(lambda send=send, **_: send())
    for name in ("worker_shutting_down", "worker_process_shutdown"):
        _connect_same(name, worker.hostname)
    for name in ("task_unknown", "task_rejected"):
        _connect_same(name, worker)

    def received(request: Envelope, **_: Any) -> None:
        if not theirs.task_received.receivers:
            return
        context = Context(
            id=request.id,
            task=request.task,
            name=request.name,
            hostname=worker.hostname,
            argsrepr=request.argsrepr,
            kwargsrepr=request.kwargsrepr,
        )
        theirs.task_received.send(sender=worker, request=context)

    signals.task_received.connect(received)

    def revoked(sender: Any, request: Envelope, **said: Any) -> None:
        context = Context(id=request.id, task=request.task, hostname=worker.hostname)
        more = {key: said[key] for key in ("terminated", "signum", "expired")}
        # One that came later is known to the processes that run it only.
        task = worker.app.tasks.get(sender.name)
        theirs.task_revoked.send(sender=task, request=context, **more)

    signals.task_revoked.connect(revoked)


def pass_on_beat() -> None:
    """Send as Celery's the signals that the scheduler sends as ours."""
    for name in ("beat_init", "beat_embedded_init"):
        _connect_same(name)


def _connect_same(name: str, instead: object = None) -> None:
    """Have Celery's receivers of a signal hear what ours do, perhaps of another."""
    from celery import signals as theirs

    def send(signal: object, sender: object, **said: Any) -> None:
        getattr(theirs, name).send(sender=instead or sender, **said)

    getattr(signals, name).connect(send)


def registry_of(app: Any) -> Registry:
    """Give the app's tasks as the loop knows tasks: their names and options."""
    registry = Registry()
    for name, task in app.tasks.items():
        own = {option: _own(task, option) for option in OPTIONS}
        # Celery itself keeps STARTED, before any other state of the run.
        registry.register(Task(name=name, **own, track_started=False))
    return registry


def _own(task: Any, option: str) -> Any:
    """Give an option that somebody gave to the task; None: the settings decide.

    A task that is bound to its app gets what it lacks from the app's settings and,
    where these say nothing, from Celery's defaults, which are not always ours.
    """
    from celery.app.annotations import resolve_all

    value = getattr(task, option, None)  # older ones lack the newest
    setting = dict(task.from_config).get(option)
    if setting is None or value != task.app.conf[setting]:
        return value
    if any(option in one for one in resolve_all(task.app.annotations, task)):
        return value
    # It may have been written all the same: what binding adds to the task's class
    # stands behind the mark that it sets first.
    kind = next(kind for kind in type(task).__mro__ if option in vars(kind))
    names = list(vars(kind))
    added = names[names.index("__bound__") :] if "__bound__" in names else []
    return None if option in added else value


# Runs ---------------------------------------------------------------------------


_soft_time_limit: ContextVar[float | None] = ContextVar("soft", default=None)
"""Of the task whose code is about to begin."""


@dataclass(frozen=True, slots=True)
class CeleryRunner:
    """Runs the jobs of a pool through Celery's tracer; never raises."""

    app: Any
    limits: Limits
    hostname: str
    clock: Clock = field(default_factory=SystemClock)
    born: int = field(default_factory=os.getpid)
    """The process in which it was made."""

    def initialise(self) -> None:
        """Do what Celery does in a process before its first task."""
        from billiard.process import current_process
        from celery import signals as theirs
        from celery._state import _set_task_join_will_block
        from celery.app.trace import build_tracer
        from celery.exceptions import SoftTimeLimitExceeded

        if place := places.here():
            # By which tasks choose one of several devices, and Celery names files.
            current_process().index = place - 1
        if os.getpid() != self.born:
            # For kombu, to which connections that were made before the fork belong to
            # another process; the pool's forks are not multiprocessing's.
            util._run_after_forkers()  # type: ignore[attr-defined] # nothing public
        # A task that waits for others holds up a place that these may need: Celery
        # refuses that, except in greenlets.
        _set_task_join_will_block(not greenlets.patched())
        self.app.loader.init_worker_process()
        for name, task in self.app.tasks.items():
            task.run = _limited(task.run, SoftTimeLimitExceeded)
            # A tracer knows the process that it was made in.
            task.__trace__ = build_tracer(
                name, task, self.app.loader, self.hostname, app=self.app
            )
        theirs.worker_process_init.send(sender=self.hostname)

    def __call__(self, job: Job) -> bytes:
        """Run a job in this thread."""
        try:
            return pack_report(self._report(job))
        except BaseException as error:
            # Not the task's doing, and not known to be harmless to try again.
            logger.exception("cannot run a message", extra={"event": "task.broken"})
            reason = f"Celery could not run it: {one_line(repr_of(error))}"
            return pack_report(Report(fate=Fate.BURIED, reason=reason))

    async def run(self, job: Job, in_thread: InThread) -> bytes:
        """Run a job in a thread: Celery has no coroutines."""
        return await in_thread(partial(self, job))

    def _report(self, job: Job) -> Report:
        try:
            call = read_body(read_envelope(job.message, self.limits), self.limits)
        except MessageError as error:
            return Report(fate=Fate.BURIED, reason=str(error))
        _soft_time_limit.set(job.soft_time_limit)
        began = self.clock.elapsed()
        report = self._trace(
            call, request_of(call, self.hostname, again=job.deliveries > 1)
        )
        seconds = (self.clock.elapsed() - began) / SECOND
        return msgspec.structs.replace(report, seconds=seconds)

    def _trace(self, call: Call, request: Mapping[str, Any]) -> Report:
        from celery.app.trace import trace_task
        from celery.exceptions import Reject

        task = self.app.tasks[call.envelope.task]
        try:
            value, info, _, shown = trace_task(
                task, call.envelope.id, call.args, call.kwargs, request
            )
        except Reject as error:
            return _rejected(error)
        except BaseException as error:  # for which Celery would have the process end
            return _ended(task, call, request, error)
        if info is None:
            return Report(state=State.SUCCESS, result=shown or "")
        return _report_of(task, info, value)


def request_of(call: Call, hostname: str, *, again: bool) -> dict[str, Any]:
    """Give what Celery's worker would make of the message."""
    said = call.envelope
    # What the task itself decides is no part of it.
    known = {} if said.ignore_result is None else {"ignore_result": said.ignore_result}
    return {
        **said.custom_headers,
        "lang": "py",
        "task": said.task,
        "id": said.id,
        "shadow": said.shadow,
        "eta": said.eta_text,
        "expires": said.expires_text,
        "group": said.group,
        "group_index": said.group_index,
        "retries": said.retries,
        "timelimit": [said.time_limit, said.soft_time_limit],
        "root_id": said.root_id,
        "parent_id": said.parent_id,
        "argsrepr": said.argsrepr,
        "kwargsrepr": said.kwargsrepr,
        "origin": said.origin,
        "replaced_task_nesting": said.replaced_task_nesting,
        "stamped_headers": said.stamped_headers,
        "stamps": said.stamps,
        **known,
        "reply_to": said.reply_to,
        "correlation_id": said.correlation_id,
        "delivery_info": {
            "exchange": said.exchange,
            "routing_key": said.routing_key,
            "priority": said.priority,
            "redelivered": said.redelivered or again,
        },
        "hostname": hostname,
        "is_eager": False,
        "callbacks": call.callbacks,
        "errbacks": call.errbacks,
        "chain": call.chain,
        "chord": call.chord,
    }


def _limited(run: Callable[..., Any], error: type[BaseException]) -> Callable[..., Any]:
    """Put a task's own code, and nothing of Celery's around it, under its limit."""

    @wraps(run)
    def limited(*args: Any, **kwargs: Any) -> Any:
        seconds = _soft_time_limit.get()
        # Tasks that this one calls as functions are parts of it.
        _soft_time_limit.set(None)
        try:
            with soft_limit(seconds, error):
                return run(*args, **kwargs)
        finally:
            stdout.flush()

    return limited


def _ended(
    task: Any, call: Call, request: Mapping[str, Any], error: BaseException
) -> Report:
    """Have the run fail: it is the run that ends of SystemExit, and not the worker."""
    from celery.app.task import Context
    from celery.app.trace import TraceInfo
    from celery.exceptions import WorkerLostError

    lost = WorkerLostError(f"the task raised {one_line(repr_of(error))}")
    context = Context(
        request, args=call.args, kwargs=call.kwargs, called_directly=False
    )
    try:
        raise lost from error
    except WorkerLostError:
        info = TraceInfo(State.FAILURE, lost)
        return _report_of(task, info, info.handle_error_state(task, context))


def _report_of(task: Any, info: Any, raised: Any) -> Report:
    """Say how a run ended that did not succeed; Celery has kept it and told of it."""
    error = info.retval
    shown = one_line(repr_of(error))
    if info.state == "REJECTED":
        return _rejected(error)
    if info.state == "IGNORED":
        return Report(reason=shown)
    if info.state == State.RETRY:
        return Report(
            state=State.RETRY,
            reason=one_line(str(error)),
            exception=shown,
            traceback=raised.traceback,
            ends_run=False,
        )
    return Report(
        # Whether Celery's own fault goes away by itself nobody knows.
        fate=Fate.BURIED if raised.internal else Fate.SETTLED,
        state=State.FAILURE,
        reason=f"Celery could not run it: {shown}" if raised.internal else shown,
        exception=shown,
        traceback=raised.traceback,
        expected=isinstance(error, task.throws or ()),
    )


def _rejected(error: Any) -> Report:
    reason = one_line(str(error.reason))
    if error.requeue:
        return Report(fate=Fate.REQUEUED, reason=reason, ends_run=False)
    return Report(fate=Fate.BURIED, reason=f"rejected: {reason}")


# Results ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CeleryResults:
    """Keeps what the loop finds out by itself where Celery keeps the rest."""

    app: Any

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        """Keep these, in order."""
        for meta in metas:
            assert isinstance(meta, Meta)  # the runner leaves nothing to be kept
            try:
                self._store(meta)
            except Exception as error:  # each of Celery's backends has its own
                raise ResultUnavailable(one_line(repr_of(error))) from error

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Give what is known; ids of which nothing is known are left out."""
        try:
            found = {one: self.app.backend.get_task_meta(one) for one in task_ids}
        except Exception as error:  # as in `store`
            raise ResultUnavailable(one_line(repr_of(error))) from error
        return {
            task_id: Meta(task_id, meta["status"], meta.get("result"))
            for task_id, meta in found.items()
            if meta["status"] != State.PENDING
        }

    def _store(self, meta: Meta) -> None:
        from celery.app.task import Context

        extended = meta.extended
        request = Context(
            id=meta.task_id,
            group=meta.group_id,
            parent_id=meta.parent_id,
            task=extended.get("name"),
            retries=extended.get("retries"),
            hostname=extended.get("worker"),
            delivery_info={"routing_key": extended.get("queue")},
        )
        result = meta.result
        if isinstance(result, BaseException):
            result = _as_celery_s(result)
        self.app.backend.store_result(
            meta.task_id, result, meta.status, meta.traceback, request=request
        )


@dataclass(frozen=True, slots=True)
class CeleryConductor:
    """Has Celery follow the runs that failed outside of its tracer, or never began."""

    app: Any
    limits: Limits

    def conduct(self, message: bytes, end: Aftermath | Failed) -> Conducted:
        """Have errbacks called, and chords counted, by the result backend's own code.

        It tries again by itself for a while; what it then raises is logged, for there
        are errors that never go away.
        """
        call = call_of(message, self.limits) if isinstance(end, Failed) else None
        if isinstance(end, Failed) and call:
            try:
                self._follow(call, end)
            except Exception:  # of each backend its own, and of the user's errbacks
                words = "Celery could not tell those who wait for %s"
                task_id = one_line(call.envelope.id)
                logger.exception(words, task_id, extra={"event": "task.unfollowed"})
        return Conducted([], [])

    def forget(self, joined: Sequence[Joined]) -> None:
        """Do nothing: Celery counts its chords, and forgets them."""

    def _follow(self, call: Call, end: Failed) -> None:
        from celery.app.task import Context

        backend, task_id = self.app.backend, call.envelope.id
        said = request_of(call, "", again=False)
        request = Context(said, args=call.args, kwargs=call.kwargs)
        if end.state == State.REVOKED:
            why = str(end.error)
            backend.mark_as_revoked(task_id, why, request=request, store_result=False)
        else:
            error = _as_celery_s(end.error)
            # What is behind it in a chain fails with it.
            backend.mark_as_failure(
                task_id, error, request=request, store_result=end.keep
            )
            if task := self.app.tasks.get(call.envelope.task):
                _tell_failed(task, call, error)


def _tell_failed(task: Any, call: Call, error: BaseException) -> None:
    """Tell what Celery's worker tells of a run that it ended, or whose process died."""
    from billiard.einfo import ExceptionInfo
    from celery import signals as theirs
    from celery.exceptions import TimeLimitExceeded

    args, kwargs, task_id = call.args, call.kwargs, call.envelope.id
    try:
        raise error
    except BaseException:
        info = ExceptionInfo()
    if isinstance(error, TimeLimitExceeded):
        task.on_failure(error, task_id, args, kwargs, info)
        task.after_return(State.FAILURE, error, task_id, args, kwargs, info)
    theirs.task_failure.send(
        sender=task,
        task_id=task_id,
        exception=error,
        args=args,
        kwargs=kwargs,
        traceback=info.traceback,
        einfo=info,
    )


def _as_celery_s(error: BaseException) -> Any:
    """Give an exception of the loop's by the class that Celery has for it."""
    form = form_of(error, lambda _: True)
    kind = getattr(import_module(form["exc_module"]), form["exc_type"])
    return kind(*form["exc_message"])
