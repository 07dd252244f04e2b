"""Metrics in the format of OpenMetrics, which Prometheus reads: extra `metrics`.

Imported when somebody asks: `prometheus-client` need not be there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from beatd.instant import SECOND, Span
from beatd.service.http import Answer

KIND = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Metrics: TypeAlias = Callable[[], Iterator[Metric]]
"""Yields metrics as they are at this moment."""


def answer_of(sources: Iterable[Metrics]) -> Answer:
    """Return the metrics of all sources."""
    registry = CollectorRegistry(auto_describe=False)
    for source in sources:
        registry.register(_Collector(source))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # theirs
    return Answer("200 OK", text, KIND)


class _Collector(Collector):
    def __init__(self, source: Metrics) -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        return self._source()


def gauge(name: str, words: str, value: float) -> Metric:
    """Return a number that goes up and down."""
    return GaugeMetricFamily(name, words, value=value)


def counter(name: str, words: str, value: int) -> Metric:
    """Return a number that only grows; its name gets `_total` at the end."""
    return CounterMetricFamily(name, words, value=value)


def gauges(
    name: str, words: str, labels: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> Metric:
    """Return a gauge with labels: each row has their values, and its own at the end."""
    family = GaugeMetricFamily(name, words, labels=labels)
    _fill(family, rows)
    return family


def counters(
    name: str, words: str, labels: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> Metric:
    """Return a counter with labels, as `gauges`."""
    family = CounterMetricFamily(name, words, labels=labels)
    _fill(family, rows)
    return family


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[tuple[Any, ...]]
) -> None:
    for *values, number in rows:
        family.add_metric([str(value) for value in values], number)


def histogram(
    name: str,
    words: str,
    counts: Sequence[tuple[Span, int]],
    total: int,
    seconds: float,
) -> Metric:
    """Return a histogram: how many did not exceed each length, and how many there are.

    `seconds` are all of them together.
    """
    buckets = [(str(bound / SECOND), number) for bound, number in counts]
    return HistogramMetricFamily(
        name, words, buckets=[*buckets, ("+Inf", total)], sum_value=seconds
    )
