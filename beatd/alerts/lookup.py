"""Asks the broker and the results what became of runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from beatd.alerts.state import OpenRun, Seen
from beatd.background import Outage
from beatd.brokers.base import Emitter, Observed
from beatd.config.alert_rules import AlertRule
from beatd.errors import ConfigError, ResultUnavailable
from beatd.instant import Instant
from beatd.parts import in_parts
from beatd.results.base import Keeper, Meta
from beatd.results.readable import load_readable, why_failed

AT_ONCE = 1000
"""Results that are asked for in one request."""

MOST_LOOKED_AT = 1000
"""Messages of a queue among which one is looked for."""


class RunBook(Emitter, Observed, Protocol):
    """What of a broker tells where runs are."""


class Asked(NamedTuple):
    """A run that is asked about."""

    id: str
    run: OpenRun
    rule: AlertRule
    queue: str | None
    """Where its message was sent to, if that is known."""


@dataclass
class RunLookup:
    """Finds out how runs ended, and where those are that have not."""

    broker: RunBook
    connect: Callable[[], Keeper] | None
    """Connects to the results; None: there are none, and nobody tells how runs end."""
    knows_ends: bool = field(init=False)
    """Whether there are results that beatd can read."""
    _results: Keeper | None = field(default=None, init=False)
    _away: Outage = field(
        default_factory=lambda: Outage(
            "cannot ask how runs have ended", "alerts.results"
        )
    )

    def __post_init__(self) -> None:
        self.knows_ends = self.connect is not None

    def see(self, asked: Sequence[Asked], now: Instant) -> Seen | None:
        """Return what is seen of these runs; None if the results do not answer.

        Raises BrokerUnavailable.
        """
        metas = self._results_of([one.id for one in asked])
        if metas is None:
            return None
        states = {id: str(meta.status) for id, meta in metas.items()}
        reasons = {id: why for id, meta in metas.items() if (why := why_failed(meta))}
        held = None
        if any(one.rule.max_run is not None for one in asked):
            held = self.broker.held_runs([one.id for one in asked])
        waiting: set[str] = set()
        queues: dict[str, set[str]] = {}
        for id, run, rule, queue in asked:
            if queue and id not in states and run.may_wait(rule.max_wait, now):
                queues.setdefault(queue, set()).add(id)
        for queue, runs in queues.items():
            messages = self.broker.waiting(queue, MOST_LOOKED_AT)
            waiting |= runs.intersection(map(_id_of, messages))
        return Seen(states, held, waiting, reasons)

    def _results_of(self, ids: Sequence[str]) -> dict[str, Meta] | None:
        """Return what the results have, by task id; None if they do not answer."""
        if self.connect is None:
            return {}
        metas: dict[str, Meta] = {}
        try:
            results = self._results = self._results or self.connect()
            for part in in_parts(ids, AT_ONCE):
                found, _ = load_readable(results, part)
                metas |= found
        except ConfigError as error:  # a backend that only Celery has
            self._away.meet(error)
            self.knows_ends = False
            return {}
        except ResultUnavailable as error:
            self._away.meet(error)
            return None
        self._away.end()
        return metas


class _Properties(msgspec.Struct):
    correlation_id: str = ""


class _Message(msgspec.Struct):
    properties: _Properties


_message = msgspec.json.Decoder(_Message)


def _id_of(message: bytes) -> str:
    """Return the task id of a message; empty for what is none of Celery's form."""
    try:
        return _message.decode(message).properties.correlation_id
    except (ValueError, RecursionError):
        return ""
