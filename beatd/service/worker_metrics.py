"""What a worker tells Prometheus: of what became of tasks, and how long they took."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import InfoMetricFamily, Metric

from beatd.service.openmetrics import counter, counters, gauge, histogram
from beatd.version import __version__
from beatd.worker.loop import Worker
from beatd.worker.tally import BOUNDS, Tally


def metrics_of_worker(worker: Worker) -> Iterator[Metric]:
    """Yield what is known of a worker at this moment; any thread may ask."""
    yield InfoMetricFamily("beatd_worker", "The worker.", {"version": __version__})
    tally, lease = worker.reporter.tally, worker.intake.lease
    words = "Tasks by what they ended in; one that is tried again, each time."
    yield counters("beatd_worker_tasks", words, ("state",), tally.ends.items())
    yield _run_times(tally)
    load = worker.monitored_load()
    yield counter("beatd_worker_begun", "Runs that have begun.", load.processed)
    yield gauge("beatd_worker_running", "Runs that go on.", load.active)
    words = "Tasks that the worker has in hand, those that run among them."
    yield gauge("beatd_worker_held", words, worker.held)
    words = "How many run at the same time, at the most."
    yield gauge("beatd_worker_pool_size", words, worker.sizing.size)
    words = "Times that the worker was cut off for longer than its lease."
    yield counter("beatd_worker_leases_lost", words, lease.number)
    words = "Messages of workers that died, given back by this one."
    yield counter("beatd_worker_recovered", words, lease.recovered)


def _run_times(tally: Tally) -> Metric:
    counts = [*accumulate([*tally.run_times])]
    return histogram(
        "beatd_worker_run_seconds",
        "How long runs of tasks took.",
        [*zip(BOUNDS, counts, strict=False)],
        counts[-1],
        tally.seconds,
    )
