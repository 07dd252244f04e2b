"""A call run where it is made: `task_always_eager`, and `Task.apply`."""

from collections import deque
from typing import Protocol

from beatd import results
from beatd.brokers.base import Outgoing
from beatd.clock import SystemClock
from beatd.codec import content_types
from beatd.instant import Instant
from beatd.message import Limits, Sending, read_envelope
from beatd.pools.base import Job
from beatd.results.base import PROPAGATE_STATES, Meta, State
from beatd.settings import Settings
from beatd.tasks import Registry
from beatd.worker.execute import Executor
from beatd.worker.report import read_report


class Host(Protocol):
    """The application, as it is needed here: app.py."""

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

    def store_meta(self, meta: Meta) -> None:
        """Keep this as a run's result."""
        ...


def run_eagerly(host: Host, sending: Sending) -> Meta:
    """Run a call and all that follows from it, without a broker; give how it ended.

    A retry comes at once, whatever its countdown. With `task_eager_propagates` what
    the task raised is raised here.
    """
    settings = host.settings
    clock = SystemClock()
    encoding = results.encoding_of(settings)
    execute = Executor(
        host.tasks,
        settings,
        Limits(content_types({*settings.accept_content, settings.task_serializer})),
        encoding.store,
        host.outgoing,
        hostname="eager",
        clock=clock,
    )
    first = host.outgoing(sending, clock.now())
    task_id = read_envelope(first.message).id
    meta = Meta(task_id, State.PENDING)
    left = deque([first])
    while left:
        job = Job("eager", left.popleft().message, 1, None, None)
        report = read_report(execute(job))
        left += report.sends
        if report.stored and report.stored.task_id == task_id:
            meta = encoding.decode(task_id, report.stored.data)
    if settings.task_store_eager_result:
        host.store_meta(meta)
    if settings.task_eager_propagates and meta.status in PROPAGATE_STATES:
        assert isinstance(meta.result, BaseException)
        raise meta.result
    return meta
