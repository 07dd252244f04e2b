"""All metrics of beatd's, with their meaning, as the code has them."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.core import Metric

from beatd.instant import HOUR
from beatd.service.metrics import SchedulerMetrics
from beatd.service.worker_metrics import metrics_of_worker
from tests.fakes import FakeClock, FlakyBroker
from tests.test_status import Bench as SchedulerBench
from tests.worker.bench import Bench

_SAMPLES = {
    "counter": ("_total",),
    "info": ("_info",),
    "histogram": ("_bucket", "_count", "_sum"),
}


class Row(NamedTuple):
    """A metric, as a line of the page."""

    name: str
    kind: str
    labels: str
    meaning: str

    @property
    def samples(self) -> list[str]:
        """The names by which Prometheus knows it."""
        return [f"{self.name}{end}" for end in _SAMPLES.get(self.kind, ("",))]

    @property
    def line(self) -> str:
        """Its line in the table of the page."""
        labels = f"{{{self.labels}}}" if self.labels else ""
        end = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return f"| `{self.name}{end}{labels}` | {self.kind} | {self.meaning} |"


def scheduler_rows() -> list[Row]:
    """Return what a scheduler tells."""
    clock = FakeClock()
    bench = SchedulerBench(clock, FlakyBroker(clock))
    bench.broker.join("w", HOUR, ["celery"])
    bench.clocks.look()
    bench.turn()
    metrics = SchedulerMetrics(bench.status(), bench.published.pulse)
    return [*_rows(metrics.metrics())]


def worker_rows() -> list[Row]:
    """Return what a worker tells."""
    return [*_rows(metrics_of_worker(Bench().worker))]


def _rows(metrics: Iterator[Metric]) -> Iterator[Row]:
    for one in metrics:
        labels = getattr(one, "_labelnames", ())
        if one.type == "info":
            labels = one.samples[0].labels
        yield Row(one.name, one.type, ", ".join(labels), one.documentation)
