"""What a scheduler answers over HTTP, by path."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from beatd.instant import SECOND, Span, datetime_of
from beatd.schedules.zones import zone_of
from beatd.service.http import ILL, WELL, WITHOUT_EXTRA, Answer
from beatd.service.snapshot import Reporter
from beatd.service.status import OLDEST_TICK, SCHEMA, Status, as_data

if TYPE_CHECKING:
    from beatd.service.openmetrics import Metrics

PATIENCE: Span = 2 * SECOND
"""How long a question waits for a fresh look at the broker, and then goes without."""

PROBE_PATIENCE: Span = 700
"""The same for `/readyz`: what asks there often waits for a second only."""


class Site:
    """Answers questions about one scheduler."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.worker_metrics: Metrics | None = None
        """Those of a worker in the same process."""
        self._answers: dict[str, Callable[[Span], Answer | None]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status": self._status,
            "/metrics": self._metrics,
        }

    def respond(self, path: str, waited: Span) -> Answer | None:
        """Return the answer for a path; None: it is in the making, ask again."""
        answer = self._answers.get(path)
        if answer is None:
            text = f"there are {', '.join(self._answers)}\n"
            return Answer("404 Not Found", text.encode(), "text/plain")
        return answer(waited)

    def _livez(self, waited: Span) -> Answer:
        """Whether the loop turns: whoever runs it is to restart it if not."""
        published, age = self._reporter.published, self._reporter.loop_age()
        about = {
            "pid": published.pid,
            "host": published.host,
            "role": published.tick.role,
            "loop_age": age / SECOND,
        }
        return Answer(WELL if age <= OLDEST_TICK else ILL, _encoded(about))

    def _readyz(self, waited: Span) -> Answer | None:
        """Whether it is healthy; a standby that could take over is."""
        status = self._snapshot(waited, PROBE_PATIENCE)
        if status is None:
            return None
        about = {
            "state": status.state,
            "healthy": status.healthy,
            "role": status.role,
            "problems": msgspec.to_builtins(status.problems),
        }
        return Answer(WELL if status.healthy else ILL, _encoded(about))

    def _status(self, waited: Span) -> Answer | None:
        status = self._snapshot(waited)
        return None if status is None else Answer(WELL, document_of(status))

    def _metrics(self, waited: Span) -> Answer | None:
        try:
            # Imported here: an extra brings what it needs.
            from beatd.service.metrics import metrics_of
        except ImportError:
            return WITHOUT_EXTRA
        status = self._snapshot(waited)
        if status is None:
            return None
        more = [self.worker_metrics] if self.worker_metrics else []
        return metrics_of(status, self._reporter.published.pulse, more)

    def _snapshot(self, waited: Span, patience: Span = PATIENCE) -> Status | None:
        status, is_fresh = self._reporter.status()
        return status if is_fresh or waited >= patience else None


def document_of(status: Status) -> bytes:
    """Return a snapshot as a JSON document; beside seconds stands text, in its zone."""
    zone = zone_of(status.config.zone)

    def dated(part: Any) -> Any:
        if isinstance(part, list):
            return [dated(one) for one in part]
        if not isinstance(part, dict):
            return part
        whole: dict[str, Any] = {}
        for name, value in part.items():
            if name.endswith("_ts"):
                at = None if value is None else round(value * SECOND)
                text = at if at is None else datetime_of(at, zone).isoformat()
                whole[name.removesuffix("_ts")] = text
            whole[name] = dated(value)
        return whole

    return msgspec.json.encode({"schema": SCHEMA, **dated(as_data(status))})


def _encoded(about: dict[str, Any]) -> bytes:
    return msgspec.json.encode(about) + b"\n"
