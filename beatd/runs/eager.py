"""A call run where it is made: `task_always_eager`, and `Task.apply`."""

import socket
from collections import deque
from dataclasses import replace

import msgspec

from beatd import results
from beatd.errors import BeatdError
from beatd.message import Limits, Sending, read_envelope
from beatd.message.codec import content_types
from beatd.pools.base import Job
from beatd.results.base import PROPAGATE_STATES, Meta, State
from beatd.results.encoding import Encoding
from beatd.runs.builtin import add_builtin_tasks
from beatd.runs.execute import executor_for
from beatd.runs.host import Host
from beatd.runs.report import Fate, Report, ignores_result, keeps, read_report


def run_eagerly(host: Host, sending: Sending, throw: bool | None = None) -> Meta:
    """Run a call and all that follows from it, without a broker; return how it ended.

    A retry comes at once, whatever its countdown. Raises what the task raised with
    `throw`; if that is None, with `task_eager_propagates`.
    """
    add_builtin_tasks(host.tasks)
    settings = host.settings
    encoding = results.encoding_of(settings)
    serializer = sending.options.get("serializer") or settings.task_serializer
    limits = Limits(content_types([serializer, settings.task_serializer]))
    execute = replace(
        executor_for(host, socket.gethostname(), limits),
        encoding=encoding,
        made_ready=list,
        is_eager=True,
    )
    first = host.outgoing(sending, execute.clock.now())
    envelope = read_envelope(first.message, limits)
    task, task_id = host.tasks.get(envelope.task), envelope.id
    meta = Meta(task_id, State.PENDING)
    left = deque([first])
    while left:
        job = Job("", left.popleft().message, 1, None, None)
        report = read_report(execute(job))
        left += report.sends
        if read_envelope(job.message, limits).id == task_id:
            meta = _end_of(report, meta, encoding)
    ignored = ignores_result(envelope, task, settings)
    if settings.task_store_eager_result and keeps(meta.status, ignored, task, settings):
        host.store_meta(meta)
    throw = settings.task_eager_propagates if throw is None else throw
    if throw and meta.status in PROPAGATE_STATES:
        assert isinstance(meta.result, BaseException)
        raise meta.result
    call = {"name": sending.task, "args": sending.args, "kwargs": sending.kwargs}
    return msgspec.structs.replace(meta, extended={**call, **meta.extended})


def _end_of(report: Report, before: Meta, encoding: Encoding) -> Meta:
    """Return how a run ended by its report, as far as that says so."""
    if report.is_unsaid:
        error = BeatdError(report.reason)
        return msgspec.structs.replace(before, status=State.FAILURE, result=error)
    if report.fate is not Fate.SETTLED:
        return msgspec.structs.replace(before, status="REJECTED")
    if report.stored is not None:
        return encoding.decode(before.task_id, report.stored.data)
    if report.ends_run:
        return msgspec.structs.replace(before, status="IGNORED")
    return before
