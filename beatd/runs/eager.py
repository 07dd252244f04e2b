"""A call run where it is made: `task_always_eager`, and `Task.apply`."""

from collections import deque
from dataclasses import replace

from beatd import results
from beatd.errors import BeatdError
from beatd.message import Limits, Sending, read_envelope
from beatd.message.codec import content_types
from beatd.pools.base import Job
from beatd.results.base import PROPAGATE_STATES, Meta, State
from beatd.runs.builtin import add_builtin_tasks
from beatd.runs.execute import executor_for
from beatd.runs.host import Host
from beatd.runs.report import read_report


def run_eagerly(host: Host, sending: Sending) -> Meta:
    """Run a call and all that follows from it, without a broker; return how it ended.

    A retry comes at once, whatever its countdown. With `task_eager_propagates`, raises
    what the task raised.
    """
    add_builtin_tasks(host.tasks)
    settings = host.settings
    encoding = results.encoding_of(settings)
    serializer = sending.options.get("serializer") or settings.task_serializer
    limits = Limits(content_types([serializer, settings.task_serializer]))
    execute = replace(
        executor_for(host, "eager", limits),
        encoding=encoding,
        made_ready=list,
        is_eager=True,
    )
    first = host.outgoing(sending, execute.clock.now())
    task_id = read_envelope(first.message, limits).id
    meta = Meta(task_id, State.PENDING)
    left = deque([first])
    while left:
        job = Job("", left.popleft().message, 1, None, None)
        report = read_report(execute(job))
        left += report.sends
        if report.is_unsaid and read_envelope(job.message, limits).id == task_id:
            meta = Meta(task_id, State.FAILURE, BeatdError(report.reason))
        if report.stored and report.stored.task_id == task_id:
            meta = encoding.decode(task_id, report.stored.data)
    if settings.task_store_eager_result:
        host.store_meta(meta)
    if settings.task_eager_propagates and meta.status in PROPAGATE_STATES:
        assert isinstance(meta.result, BaseException)
        raise meta.result
    return meta
