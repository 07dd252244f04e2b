"""What a scheduler tells Prometheus, in the format of OpenMetrics: extra `metrics`.

Imported when somebody asks: `prometheus-client` need not be there. Entries have labels
of their own only where something is wrong with them, and a hundred at most.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from beatd.instant import SECOND
from beatd.scheduler.pulse import Lags, Pulse, bucket_of
from beatd.service.http import Answer
from beatd.service.status import Status

KIND = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_BOUNDS = [1 << power for power in range(23)]
"""Milliseconds up to which lags are counted together: 1 ms to more than an hour."""

_ROLES = ("leader", "standby", "neither")


def metrics_of(status: Status, pulse: Pulse) -> Answer:
    """Return all metrics of a scheduler."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status, pulse))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # theirs
    return Answer("200 OK", text, KIND)


class _Collector(Collector):
    """Yields what one snapshot, and the numbers beside it, say."""

    def __init__(self, status: Status, pulse: Pulse) -> None:
        self._status = status
        self._pulse = pulse

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "beatd", "The scheduler.", {"version": self._status.version}
        )
        yield from self._of_scheduler()
        yield from self._of_emissions()
        yield from self._of_entries()
        yield from self._of_broker()

    def _of_scheduler(self) -> Iterator[Metric]:
        status = self._status
        yield _gauge("beatd_healthy", "1 if it is healthy.", int(status.healthy))
        yield _labelled(
            "beatd_role",
            "1 for what it is: leader, standby or neither.",
            ("role",),
            ((role, int(role == status.role)) for role in _ROLES),
        )
        if status.loop:
            words = "Seconds since the loop turned last."
            yield _gauge("beatd_loop_age_seconds", words, status.loop.age)
        yield _counter("beatd_terms", "Terms that began here.", self._pulse.terms)
        late = 0.0
        if status.overdue:
            late = max(status.generated_ts - status.overdue.at_ts, 0)
        words = "Seconds for which the oldest slot is due that is not emitted."
        yield _gauge("beatd_overdue_seconds", words, late)

    def _of_emissions(self) -> Iterator[Metric]:
        pulse = self._pulse
        yield _counter("beatd_emitted", "Messages put on queues.", pulse.emitted)
        yield _lateness(pulse.lags)
        words = "Slots that the ledger had already when they were sent."
        yield _counter("beatd_known", words, pulse.known)
        words = "Times that the broker, or a task's own code, refused an emission."
        yield _counter("beatd_refused", words, pulse.refused)
        dropped = CounterMetricFamily(
            "beatd_dropped",
            "Slots dropped on purpose; an empty entry stands for all further ones.",
            labels=("entry", "reason"),
        )
        for (entry, reason), number in [*pulse.dropped.items()]:
            dropped.add_metric((entry, reason), number)
        yield dropped
        words = "Slots of which it is uncertain whether they ran."
        yield _gauge("beatd_uncertain_slots", words, self._status.uncertain)

    def _of_entries(self) -> Iterator[Metric]:
        entries = self._status.entries
        trouble = {
            "bad": entries.bad,
            "refused": entries.refused,
            "held": entries.held,
        }
        numbers = {state: len(some) for state, some in trouble.items()}
        numbers |= {"paused": entries.paused, "over": entries.over}
        words = "Entries; those of the states bad, refused and held up to a hundred."
        every = [("all", entries.total), *numbers.items()]
        yield _labelled("beatd_entries", words, ("state",), every)
        yield _labelled(
            "beatd_entry_trouble",
            "1 for each entry that is bad, refused or held.",
            ("entry", "state"),
            ((one.entry, state, 1) for state, some in trouble.items() for one in some),
        )

    def _of_broker(self) -> Iterator[Metric]:
        status, broker = self._status, self._status.broker
        yield _gauge("beatd_broker_up", "1 if it answers.", int(broker.answers))
        if broker.round_trip is not None:
            words = "Seconds that one request took."
            yield _gauge("beatd_broker_round_trip_seconds", words, broker.round_trip)
        if broker.dead_letters is not None:
            words = "Messages that workers have set aside."
            yield _gauge("beatd_dead_letters", words, broker.dead_letters)
        yield _labelled(
            "beatd_queue_length",
            "Messages that wait in a queue.",
            ("queue",),
            ((one.name, one.length) for one in status.queues if one.length is not None),
        )
        yield _labelled(
            "beatd_queue_oldest_seconds",
            "Since the message was made that is taken next, where its id tells.",
            ("queue",),
            ((one.name, one.oldest) for one in status.queues if one.oldest is not None),
        )
        yield _labelled(
            "beatd_queue_workers",
            "Workers that take from a queue; Celery's where beatd has to ask for them.",
            ("queue",),
            ((one.name, len(one.workers)) for one in status.queues),
        )
        words = "Workers of beatd that have a lease."
        yield _gauge("beatd_workers", words, len(status.workers))
        words = "Messages that workers of beatd have in hand."
        held = sum(one.holds for one in status.workers)
        yield _gauge("beatd_messages_held", words, held)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _counter(name: str, words: str, value: int) -> Metric:
    return CounterMetricFamily(name, words, value=value)


def _labelled(
    name: str, words: str, labels: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> Metric:
    """Return a gauge with labels: each row has their values, and its own at the end."""
    family = GaugeMetricFamily(name, words, labels=labels)
    for *values, number in rows:
        family.add_metric([str(value) for value in values], number)
    return family


def _lateness(lags: Lags) -> Metric:
    counts = [*lags.total]
    buckets = [
        (str(bound / SECOND), sum(counts[: bucket_of(bound - 1) + 1]))
        for bound in _BOUNDS
    ]
    return HistogramMetricFamily(
        "beatd_lateness_seconds",
        "How late messages were put on queues.",
        buckets=[*buckets, ("+Inf", sum(counts))],
        sum_value=lags.sum / SECOND,
    )
