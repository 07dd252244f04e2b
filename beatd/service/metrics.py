"""What a scheduler tells Prometheus.

Entries have labels of their own only where something is wrong with them, and few even
then: a million entries have as many series as a hundred.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client.core import InfoMetricFamily, Metric

from beatd.config.settings import AlertKind
from beatd.instant import SECOND
from beatd.scheduler.pulse import Lags, Pulse, bucket_of
from beatd.service.http import Answer
from beatd.service.openmetrics import (
    Metrics,
    answer_of,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
)
from beatd.service.status import Status, differing

MOST_NAMED = 10
"""Entries in trouble that have a label of their own; `beatd status` has the others."""

_BOUNDS = [1 << power for power in range(23)]
"""Milliseconds up to which lags are counted together: 1 ms to more than an hour."""

_ROLES = ("leader", "standby", "neither")


def metrics_of(status: Status, pulse: Pulse, more: Iterable[Metrics] = ()) -> Answer:
    """Return all metrics of a scheduler; `more` are those of a worker beside it."""
    return answer_of([SchedulerMetrics(status, pulse).metrics, *more])


class SchedulerMetrics:
    """Yields what one snapshot, and the numbers beside it, say."""

    def __init__(self, status: Status, pulse: Pulse) -> None:
        self._status = status
        self._pulse = pulse

    def metrics(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "beatd", "The scheduler.", {"version": self._status.version}
        )
        yield from self._of_scheduler()
        yield from self._of_emissions()
        yield from self._of_entries()
        yield from self._of_broker()

    def _of_scheduler(self) -> Iterator[Metric]:
        status = self._status
        yield gauge("beatd_healthy", "1 if it is healthy.", int(status.healthy))
        yield gauges(
            "beatd_role",
            "1 for what it is: leader, standby or neither.",
            ("role",),
            ((role, int(role == status.role)) for role in _ROLES),
        )
        if status.loop:
            words = "Seconds since the loop turned last."
            yield gauge("beatd_loop_age_seconds", words, status.loop.age)
        words = "Schedulers that stand by, of the last 20 seconds."
        yield gauge("beatd_standbys", words, len(status.standbys))
        words = "Of these, those with other entries than this one, which leads."
        yield gauge("beatd_standbys_differing", words, len(differing(status)))
        yield counter("beatd_terms", "Terms that began here.", self._pulse.terms)
        late = 0.0
        if status.overdue:
            late = max(status.generated_ts - status.overdue.at_ts, 0)
        words = "Seconds for which the oldest slot is due that is not emitted."
        yield gauge("beatd_overdue_seconds", words, late)
        if (off := status.clock_off) is not None:
            words = "By how much this host's clock is ahead of the broker's."
            yield gauge("beatd_clock_offset_seconds", words, off)

    def _of_emissions(self) -> Iterator[Metric]:
        pulse = self._pulse
        yield counter("beatd_emitted", "Messages put on queues.", pulse.emitted)
        yield _lateness(pulse.lags)
        words = "Slots that the ledger had already when they were sent."
        yield counter("beatd_known", words, pulse.known)
        words = "Times that the broker, or a task's own code, refused an emission."
        yield counter("beatd_refused", words, pulse.refused)
        yield counters(
            "beatd_dropped",
            "Slots dropped on purpose; an empty entry stands for all that are not"
            " among the first ten, and for those that somebody has paused.",
            ("entry", "reason"),
            ((*about, number) for about, number in [*pulse.dropped.items()]),
        )
        alerts = dict.fromkeys(AlertKind, 0) | pulse.alerts
        words = "Alerts: what people were to be told of entries."
        yield counters("beatd_alerts", words, ("kind",), alerts.items())
        words = "Alerts that somebody is still to be told of."
        yield gauge("beatd_alerts_waiting", words, pulse.alerts_waiting)
        words = "Alerts that nobody was told of, as too many waited."
        yield counter("beatd_alerts_dropped", words, pulse.alerts_dropped)
        words = "Alerts that nobody could be told of."
        yield counter("beatd_alerts_failed", words, pulse.alerts_failed)
        words = "Slots of which it is uncertain whether they ran."
        yield gauge("beatd_uncertain_slots", words, self._status.uncertain)

    def _of_entries(self) -> Iterator[Metric]:
        entries = self._status.entries
        trouble = {
            "refused": entries.refused,
            "bad": entries.bad,
            "held": entries.held,
        }
        numbers = {state: len(some) for state, some in trouble.items()}
        numbers |= {"paused": entries.paused, "over": entries.over}
        words = "Entries; those of the states bad, refused and held up to a hundred."
        every = [("all", entries.total), *numbers.items()]
        yield gauges("beatd_entries", words, ("state",), every)
        rows = (
            (one.entry, state, 1) for state, some in trouble.items() for one in some
        )
        yield gauges(
            "beatd_entry_trouble",
            "1 for an entry that is refused, bad or held: the first ten.",
            ("entry", "state"),
            islice(rows, MOST_NAMED),
        )

    def _of_broker(self) -> Iterator[Metric]:
        status, broker = self._status, self._status.broker
        yield gauge("beatd_broker_up", "1 if the broker answers.", int(broker.answers))
        if broker.round_trip is not None:
            words = "Seconds that one request to the broker took."
            yield gauge("beatd_broker_round_trip_seconds", words, broker.round_trip)
        if broker.dead_letters is not None:
            words = "Messages that workers have set aside."
            yield gauge("beatd_dead_letters", words, broker.dead_letters)
        queues = status.queues
        yield gauges(
            "beatd_queue_length",
            "Messages that wait in a queue.",
            ("queue",),
            ((one.name, one.length) for one in queues if one.length is not None),
        )
        yield gauges(
            "beatd_queue_oldest_seconds",
            "Since the message was made that is taken next, where its id tells.",
            ("queue",),
            ((one.name, one.oldest) for one in queues if one.oldest is not None),
        )
        yield gauges(
            "beatd_queue_workers",
            "Workers that take from a queue; Celery's where beatd has to ask for them.",
            ("queue",),
            ((one.name, len(one.workers)) for one in queues),
        )
        words = "Workers of beatd that have a lease."
        yield gauge(
            "beatd_workers", words, sum(not one.lease_over for one in status.workers)
        )
        words = "Messages that workers of beatd have in hand."
        held = sum(one.holds for one in status.workers)
        yield gauge("beatd_messages_held", words, held)


def _lateness(lags: Lags) -> Metric:
    counts = [*lags.total]
    return histogram(
        "beatd_lateness_seconds",
        "How late messages were put on queues.",
        [(bound, sum(counts[: bucket_of(bound - 1) + 1])) for bound in _BOUNDS],
        sum(counts),
        lags.sum / SECOND,
    )
