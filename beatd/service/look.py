"""Looks at a broker for people: what server it is, what lies there, who takes it."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeAlias

import msgspec

from beatd.background import OnCrash, Service
from beatd.brokers.base import SendingBroker
from beatd.brokers.items import Overview
from beatd.clock import Clock, monotonic_microseconds
from beatd.errors import BrokerUnavailable
from beatd.event_log import EventLog
from beatd.ids import instant_of_id
from beatd.instant import SECOND, Instant, Span

tell = EventLog(__name__)

FRESH: Span = 5 * SECOND
"""A look that is no older than this answers a further question, too."""

ASK_AGAIN: Span = 15 * SECOND
"""How long the answers of workers without leases hold: that is a question to all."""

MOST_QUEUES = 1_000

AskWorkers: TypeAlias = Callable[[], Mapping[str, Sequence[str]]]
"""Asks all workers from which queues they take, and returns their answers by name."""

_NOTHING = Overview((), (), 0)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the broker has found."""

    at: Instant
    elapsed: Span = 0
    """When that was, by the monotonic clock."""
    server: str = ""
    round_trip: Span = 0
    """In microseconds, so short are these."""
    risks: Sequence[str] = ()
    seen: Overview = _NOTHING
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By worker that has no lease, as Celery's have none, the queues it takes from."""
    promise: str = ""
    """How often the broker has each slot (`items.Promise`)."""
    reason: str = ""
    """Why the broker does not answer; empty if it does."""


class Looker:
    """Looks when it is asked to, in a thread of its own: no reader waits for a broker.

    What server it is, and its risks, are asked once, and again after an outage.
    """

    def __init__(
        self,
        broker: SendingBroker,
        queues: Callable[[], Collection[str]],
        clock: Clock,
        ask_workers: AskWorkers = dict,
    ) -> None:
        """`ask_workers` is called where nobody with a lease takes from a queue."""
        self._ask_workers = ask_workers
        self._others: Mapping[str, Sequence[str]] = {}
        self._others_at: Span | None = None
        self._broker = broker
        self._queues = queues
        self._clock = clock
        self._server: tuple[str, Sequence[str]] | None = None
        self.last: Look | None = None
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._is_asked = threading.Event()
        self._service = Service(self._step, lambda: self._asked.put(False))

    def start(self, on_crash: OnCrash) -> None:
        """Begin to look when asked."""
        self._service.start("beatd-look", on_crash)

    def leave(self) -> None:
        """Look no more; a look under way is not waited for."""
        self._service.leave()

    def ask(self) -> tuple[Look | None, bool]:
        """Return the last look, and whether it is fresh; if not, have another begun."""
        last = self.last
        if last is not None and self._clock.elapsed() - last.elapsed <= FRESH:
            return last, True
        if not self._is_asked.is_set():
            self._is_asked.set()
            self._asked.put(True)
        return last, False

    def look(self) -> Look:
        """Look now, in this thread."""
        try:
            return self._look()
        except BrokerUnavailable as error:
            self._server = None
            now, elapsed = self._clock.now(), self._clock.elapsed()
            return Look(now, elapsed, reason=str(error))

    def _look(self) -> Look:
        if self._server is None:
            self._server = self._broker.ping(), self._broker.risks()
        server, risks = self._server
        before = monotonic_microseconds()
        self._broker.leader()
        took = monotonic_microseconds() - before
        names = [*self._queues()][:MOST_QUEUES]
        seen = self._broker.overview(names)
        others = self._others_for(seen)
        now, elapsed = self._clock.now(), self._clock.elapsed()
        promise = self._broker.promise.value
        return Look(now, elapsed, server, took, risks, seen, others, promise)

    def _others_for(self, seen: Overview) -> Mapping[str, Sequence[str]]:
        """Return who takes from queues without a lease, if it depends on these."""
        taken = {name for worker in seen.alive for name in worker.queues}
        if not any(one.length and one.name not in taken for one in seen.queues):
            return {}
        now, asked = self._clock.elapsed(), self._others_at
        if asked is None or now - asked >= ASK_AGAIN:
            self._others, self._others_at = {}, now
            # Remote control may be forbidden to this user.
            with suppress(BrokerUnavailable):
                self._others = self._ask_workers()
        return self._others

    def _step(self) -> Span | None:
        if not self._asked.get():
            return None
        try:
            self.last = self.look()
        except Exception as error:
            # A question about the scheduler must not end it.
            tell.error("look.failed", "cannot look at the broker: %r", error)
            now, elapsed = self._clock.now(), self._clock.elapsed()
            self.last = Look(now, elapsed, reason=f"a fault of beatd's own: {error!r}")
        self._is_asked.clear()
        return 0


class _Properties(msgspec.Struct):
    correlation_id: str = ""


class _Message(msgspec.Struct):
    properties: _Properties


_message = msgspec.json.Decoder(_Message)


def made_at(message: bytes) -> Instant | None:
    """Return when a message was made, or for which slot; None if nobody can tell."""
    try:
        return instant_of_id(_message.decode(message).properties.correlation_id)
    except (ValueError, RecursionError):  # none of Celery's form
        return None
