"""RabbitMQ as a broker for schedulers and clients: at least once."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from amqp import exceptions as faults

from beatd.brokers.amqp.ledger import StreamLedger
from beatd.brokers.amqp.line import Line, address_of
from beatd.brokers.amqp.publisher import AMQPPublisher, Queues, send
from beatd.brokers.items import (
    Emission,
    Emitted,
    Outgoing,
    Overview,
    Promise,
    QueueState,
    Term,
)
from beatd.brokers.split import Split
from beatd.clock import Clock, SystemClock
from beatd.errors import ItemRefused
from beatd.instant import SECOND, Span
from beatd.routing import Queue
from beatd.timetable.ledger import Edition

SHORTEST_BEAT: Span = SECOND
"""The shortest time after which a server may give a silent connection up."""

LOOKING_BEAT: Span = 30 * SECOND
"""The same for connections that hold nothing."""


class AMQPBroker(StreamLedger):
    """Lead, ledger and history in a stream; messages on the lead's connection."""

    promise = Promise.AT_LEAST_ONCE

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        options: Mapping[str, Any] | None = None,
        tls: bool | Mapping[str, Any] = False,
        lead_life: Span = 5 * SECOND,
        clock: Clock | None = None,
    ) -> None:
        """`lead_life` is how long a leader that is silent may lead on.

        Raises ConfigError; connects when it is first asked for something.
        """
        self.address = address_of(url, options or {}, tls)
        beat = max(lead_life * 2 // 5, SHORTEST_BEAT)
        lead = Line(self.address, beat)
        looking = Line(self.address, LOOKING_BEAT)
        watch = Line(self.address, LOOKING_BEAT)
        super().__init__(lead, looking, watch, namespace, clock or SystemClock())
        self._queues = Queues()
        self._sending = Line(self.address, LOOKING_BEAT)
        self._split = Split(AMQPPublisher(lead, self._queues), self)

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        return self._split.emit(term, batch, ttl, edition, page)

    # Sender

    def declare(self, queues: Collection[Queue]) -> None:
        with self._sending.connected() as connection:
            self._queues.declare(self._sending, connection, queues)

    def send(self, batch: Sequence[Outgoing]) -> None:
        if any(one.due is not None for one in batch):
            raise ItemRefused("beatd has no delayed messages on RabbitMQ yet")
        with self._sending.connected() as connection:
            self._sending.refuse_if_blocked()
            send(self._sending, connection, self._queues, batch)

    def purge(self, queues: Collection[str]) -> int:
        number = 0
        with self._sending.connected() as connection:
            for name in queues:
                with (
                    suppress(faults.NotFound),
                    self._sending.channel(connection) as channel,
                ):
                    number += channel.queue_purge(name)
        return number

    # Observed

    def overview(self, queues: Collection[str]) -> Overview:
        with self._look.connected() as connection:
            states = [self._state_of(connection, name) for name in queues]
        return Overview(states, (), 0)

    def _state_of(self, connection: Any, name: str) -> QueueState:
        """Return how many messages lie ready; a queue that is not there has none."""
        try:
            with self._look.channel(connection) as channel:
                found = channel.queue_declare(name, passive=True)
                return QueueState(name, found.message_count)
        except faults.NotFound:
            return QueueState(name, 0)
        except faults.ChannelError:  # forbidden, or another's own
            return QueueState(name, None)

    def waiting(self, queue: str, limit: int) -> list[bytes]:
        """Return nothing: to look at a message there is to take it."""
        return []

    def ping(self) -> str:
        with self._look.connected():
            return self._look.server

    def risks(self) -> list[str]:
        risks = []
        if self.address.heartbeat == 0:
            risks.append(
                "heartbeat=0 in the address is not used: without heartbeats a server"
                " would keep the lead of a host that is gone"
            )
        if self._look.blocked or self._line.blocked or self._sending.blocked:
            risks.append("it takes no messages just now: it is low on memory or disk")
        return risks

    def close(self) -> None:
        for line in (self._line, self._look, self._watch_line, self._sending):
            line.close()
