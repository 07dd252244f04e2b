"""What a worker answers over HTTP, by path."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from beatd.instant import SECOND, Span
from beatd.pools.solo import Solo
from beatd.service.http import ILL, WELL, WITHOUT_EXTRA, Answer
from beatd.service.status import OLDEST_TICK, HealthProblem
from beatd.text import counted
from beatd.worker.loop import Worker

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass
class WorkerSite:
    """Answers questions about one worker."""

    worker: Worker
    _turned: Span = field(init=False)
    """When the loop turned last, by the monotonic clock."""

    def __post_init__(self) -> None:
        self.turned()

    def turned(self) -> None:
        """Note that the loop has turned."""
        self._turned = self.worker.clock.elapsed()

    def respond(self, path: str, waited: Span) -> Answer:
        """Return the answer for a path."""
        answers: dict[str, Callable[[], Answer]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }
        if answer := answers.get(path):
            return answer()
        text = f"there are {', '.join(answers)}\n"
        return Answer("404 Not Found", text.encode(), "text/plain")

    def _livez(self) -> Answer:
        """Whether the loop turns: whoever runs it is to restart it if not.

        In the solo pool the loop stands still while a task runs, however long.
        """
        age = self.worker.clock.elapsed() - self._turned
        waits = isinstance(self.worker.pool, Solo) and bool(
            self.worker.monitored_load().active
        )
        return self._answer(age <= OLDEST_TICK or waits, loop_age=age / SECOND)

    def _readyz(self) -> Answer:
        """Whether it takes tasks: it has a lease, and was not told to stop."""
        worker = self.worker
        problems = [*self._problems()]
        return self._answer(
            not any(one.unhealthy for one in problems),
            stopping=worker.is_stopping,
            held=worker.held,
            queues=[queue.name for queue in worker.intake.queues],
            problems=problems,
        )

    def _problems(self) -> Iterator[HealthProblem]:
        """Yield why it takes no tasks, or soon takes none."""
        lease, held = self.worker.intake.lease, counted(self.worker.held, "task")
        if self.worker.is_stopping:
            text = f"it was told to stop, and has {held} in hand"
            yield HealthProblem(kind="stopping", text=text, unhealthy=True)
        if reason := lease.away.reason:
            # For as long as the lease lasts this may pass unnoticed.
            yield HealthProblem(
                kind="broker",
                text=f"the broker does not answer: {reason}",
                command="beatd check --broker",
                unhealthy=not lease.is_held,
            )
        elif not lease.is_held:
            text = "it has no lease yet, and takes no tasks: it has just begun"
            if lease.has_run_out():
                text = "its lease was not renewed in time, and it takes no tasks"
            yield HealthProblem(kind="lease", text=text, unhealthy=True)

    def _answer(self, is_well: bool, **about: object) -> Answer:
        who = {"worker": self.worker.name, "host": _HOST, "pid": os.getpid()}
        body = msgspec.json.encode({**who, **about}) + b"\n"
        return Answer(WELL if is_well else ILL, body)

    def metrics(self) -> Iterator["Metric"]:
        """Yield the metrics of the worker. Raises ImportError without their extra."""
        from beatd.service.worker_metrics import metrics_of_worker

        return metrics_of_worker(self.worker)

    def _metrics(self) -> Answer:
        try:
            # Imported here: an extra brings what it needs.
            from beatd.service.openmetrics import answer_of
        except ImportError:
            return WITHOUT_EXTRA
        return answer_of([self.metrics])


_HOST = socket.gethostname()
