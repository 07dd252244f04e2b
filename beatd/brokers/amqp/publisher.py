"""Messages to users' queues: confirmed in batches, and returned where no queue is."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import amqp
from amqp import exceptions as faults

from beatd.brokers.amqp import declaring
from beatd.brokers.amqp.line import Line, text_of
from beatd.brokers.amqp.message import SHORT, content_of
from beatd.brokers.amqp.stream import Confirmed
from beatd.brokers.items import Emission, Emitted, Outcome, Outgoing, Refused
from beatd.errors import ConfigError, ItemRefused, MessageError
from beatd.event_log import EventLog
from beatd.instant import Instant
from beatd.routing import Queue, Route

tell = EventLog(__name__)

Slot: TypeAlias = tuple[str, Instant]

MOST_KEPT = 10_000
"""Slots of which it is remembered that they are confirmed and not yet recorded."""


class Queues:
    """The queues that are declared by this process, as Celery declares them."""

    def __init__(self) -> None:
        self.known: dict[str, Queue] = {}
        self._told: set[str] = set()
        self._has_declared = False

    def declare(self, line: Line, connection: Any, queues: Collection[Queue]) -> None:
        """Make these queues known to the server.

        One that exists with other arguments is an error of the config at the start;
        later it is said, and used as it is: messages reach it all the same.
        """
        for queue in queues:
            try:
                with line.channel(connection) as channel:
                    declaring.declare(channel, queue)
            except faults.AccessRefused as error:
                if not self._has_declared:
                    raise
                # Whoever may not declare it may be permitted to send to it.
                self._say(queue, f"queue {queue.name!r}: {text_of(error)}")
            except faults.PreconditionFailed as error:
                words = (
                    f"queue {queue.name!r} or its exchange exists at"
                    f" {line.address.place} with other arguments than the config"
                    f" gives it: {text_of(error)}; have both alike, or delete it"
                )
                if not self._has_declared:
                    raise ConfigError("task_queues", [words]) from error
                self._say(queue, words)
            self.known[queue.name] = queue
        self._has_declared = True

    def _say(self, queue: Queue, words: str) -> None:
        if queue.name not in self._told:
            self._told.add(queue.name)
            tell.error("queue.differs", "%s", words, queue=queue.name)

    def make_again(self, line: Line, connection: Any, name: str) -> None:
        """Declare a queue that somebody has deleted."""
        queue = self.known.get(name) or Queue(name, name, "direct", name)
        tell.warning("queue.gone", "queue %s is gone: it is made again", name)
        self.declare(line, connection, [queue])


class AMQPPublisher:
    """Publishes emissions on the connection that holds the lead, and on no other."""

    def __init__(self, line: Line, queues: Queues) -> None:
        self._line = line
        self._queues = queues
        self._writer: Confirmed | None = None
        self._sent: dict[Slot, Emission] = {}
        """What was written to this connection, and has no answer yet."""
        self._done: dict[Slot, Emitted] = {}
        """What has its answer, and is not in the ledger yet: it is not sent again."""
        self._alone: set[str] = set()
        """Entries whose messages go one by one: one of them has closed a channel."""

    def publish(self, batch: Sequence[Emission]) -> list[Emitted]:
        with self._line.same(self._line.number) as connection:
            self._line.refuse_if_blocked()
            left = [one for one in batch if _slot(one) not in self._done]
            together = [one for one in left if one.entry not in self._alone]
            try:
                self._publish(connection, together)
            except faults.ChannelError:
                # One of them has no exchange, say; the server does not tell which.
                self._alone.update(one.entry for one in together)
            for one in left:
                if _slot(one) not in self._done:
                    self._publish_alone(connection, one)
            return [self._done[_slot(one)] for one in batch]

    def _publish_alone(self, connection: Any, one: Emission) -> None:
        try:
            self._publish(connection, [one])
            self._alone.discard(one.entry)
        except faults.ChannelError as error:
            self._done[_slot(one)] = Refused(text_of(error))

    def _publish(self, connection: Any, batch: Sequence[Emission]) -> None:
        writer = self._writer
        if writer is None or writer.number != self._line.number or not writer.is_open:
            # What was under way on another one may have arrived, or not.
            writer = self._writer = Confirmed(self._line, connection)
            self._sent.clear()
        for one in batch:
            if _slot(one) not in self._sent:
                self._write(writer, _slot(one), one)
        writer.await_all()
        self._settle(writer, connection)

    def forget(self, batch: Sequence[Emission]) -> None:
        for one in batch:
            self._done.pop(_slot(one), None)
        while len(self._done) > MOST_KEPT:
            del self._done[next(iter(self._done))]

    def _write(self, writer: Confirmed, slot: Slot, one: Emission) -> None:
        assert one.route is not None  # what is dropped is not published
        try:
            message = message_for(one.message, one.route)
        except MessageError as error:
            self._done[slot] = Refused(str(error))
            return
        writer.write(slot, message, *place_of(one.route), mandatory=True)
        self._sent[slot] = one

    def _settle(self, writer: Confirmed, connection: Any) -> None:
        """Take in the answers; send once more what found that its queue is gone."""
        for again in (True, False):
            returned = Counter(writer.returned)
            full = {*writer.refused}
            writer.returned.clear()
            writer.refused.clear()
            lost: dict[Slot, Emission] = {}
            for slot, one in [*self._sent.items()]:
                assert one.route is not None  # as above
                # Nothing is read again where nothing came back.
                key = (*place_of(one.route), _id_of(one.message) if returned else None)
                if slot in full:
                    self._done[slot] = Refused(_full(one.route))
                elif not returned[key]:
                    self._done[slot] = Outcome.QUEUED
                elif one.route.queue and again:
                    returned[key] -= 1
                    lost[slot] = one
                    continue
                elif one.route.queue:
                    name = one.route.queue
                    self._done[slot] = Refused(f"there is no queue {name!r}")
                else:
                    returned[key] -= 1
                    self._done[slot] = Outcome.DROPPED
                del self._sent[slot]
            if not lost:
                return
            for name in dict.fromkeys(
                one.route.queue for one in lost.values() if one.route
            ):
                self._queues.make_again(self._line, connection, name)
            for slot, one in lost.items():
                self._write(writer, slot, one)
            writer.await_all()


def _slot(emission: Emission) -> Slot:
    return emission.entry, emission.mark.slot


def send(
    line: Line, connection: Any, queues: Queues, batch: Sequence[Outgoing]
) -> None:
    """Send messages that are in no ledger, and return when they are safe.

    Raises ItemRefused for one that the server refuses; others may have been sent.
    """
    writer = Confirmed(line, connection)
    try:
        lost = _sent(writer, batch)
        for name in dict.fromkeys(one.route.queue for one in lost):
            queues.make_again(line, connection, name)
        if lost and (gone := _sent(writer, lost)):
            raise ItemRefused(f"there is no queue {gone[0].route.queue!r}")
    except faults.ChannelError as error:  # no such exchange, forbidden, too large
        raise ItemRefused(text_of(error)) from error
    finally:
        writer.close()


def _sent(writer: Confirmed, batch: Sequence[Outgoing]) -> list[Outgoing]:
    """Send these; return those of them that found no queue, and name one."""
    for one in batch:
        try:
            message = message_for(one.message, one.route)
        except MessageError as error:
            raise ItemRefused(str(error)) from error
        writer.write(one.route, message, *place_of(one.route), mandatory=True)
    writer.await_all()
    if writer.refused:
        (route, *_) = writer.refused
        assert isinstance(route, Route)  # as it was written
        raise ItemRefused(_full(route))
    returned = Counter(writer.returned)
    writer.returned.clear()
    return [
        one
        for one in batch
        if one.route.queue and returned[(*place_of(one.route), _id_of(one.message))] > 0
    ]


def message_for(message: bytes, route: Route) -> Any:
    """Return an envelope as a message of py-amqp's. Raises MessageError."""
    for what in place_of(route):
        if len(what.encode()) > SHORT:
            raise MessageError(f"{what[:20]!r}...: a name longer than {SHORT} bytes")
    properties, headers, body = content_of(message)
    return amqp.Message(body, application_headers=headers, **properties)


def place_of(route: Route) -> tuple[str, str]:
    """Return exchange and routing key, as Celery publishes."""
    if route.queue:
        return "", route.queue
    return route.exchange, route.routing_key


def _id_of(message: bytes) -> str | None:
    found = content_of(message).properties.get("correlation_id")
    return None if found is None else str(found)


def _full(route: Route) -> str:
    name = route.queue or route.exchange
    return (
        f"queue {name!r} is full and refuses more (x-max-length, or a policy): have"
        " workers take from it, or let it hold more"
    )
