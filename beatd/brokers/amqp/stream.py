"""The stream that holds the ledger's records, and the channel that writes to it."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import amqp
from amqp import exceptions as faults

from beatd.brokers.amqp.line import Line
from beatd.brokers.amqp.records import Ledger, Record, decoded, encoded
from beatd.brokers.items import Term
from beatd.brokers.oddities import Oddities
from beatd.errors import BrokerUnavailable
from beatd.instant import SECOND, Span

LARGEST = 1_000_000_000
"""Bytes that a stream keeps at most: what lies before a snapshot may go."""

SEGMENT = 50_000_000
"""Bytes of one of its files: whole ones are removed."""

SNAPSHOT_AFTER = LARGEST // 4
"""Bytes after which the whole ledger is written again: the last snapshot lies within
what is kept, whatever its size, up to some million entries."""

PATIENCE: Span = 3 * SECOND
"""How long to wait for the next thing that a server is to send."""

_CREDIT = 500
"""Records that are under way to a reader at once."""


def declare(channel: Any, name: str) -> None:
    """Make the stream, if it is not there."""
    channel.queue_declare(
        name,
        durable=True,
        auto_delete=False,
        arguments={
            "x-queue-type": "stream",
            "x-max-length-bytes": LARGEST,
            "x-stream-max-segment-size-bytes": SEGMENT,
        },
    )


class Confirmed:
    """A channel on which each message is confirmed, refused or returned."""

    def __init__(self, line: Line, connection: Any) -> None:
        self.number = line.number
        self._line = line
        self._connection = connection
        self._channel = connection.channel()
        self._channel.confirm_select()
        for event, taken in (
            ("basic_ack", self._on_ack),
            ("basic_nack", self._on_nack),
            ("basic_return", self._on_return),
        ):
            self._channel.events[event].add(taken)
        self._last = 0
        self.is_open = True
        """False once the server has closed it; py-amqp opens it again by itself, and
        without confirmations."""
        self.open: dict[int, object] = {}
        """What waits for an answer, by tag; in the order in which it was sent."""
        self.refused: set[object] = set()
        self.returned: list[tuple[str, str, str | None]] = []
        """Exchange, key and correlation id of what has reached no queue."""

    def write(
        self, what: object, message: Any, exchange: str, key: str, *, mandatory: bool
    ) -> None:
        """Send a message; `what` is how the caller knows it."""
        with self._noting_its_end():
            # It takes in what has come first, and may raise before it has sent this.
            self._channel.basic_publish(message, exchange, key, mandatory=mandatory)
        self._last += 1
        self.open[self._last] = what

    def await_all(self) -> None:
        """Wait until all has its answer. Raises BrokerRefused if none can come now."""
        with self._noting_its_end():
            answered = self._line.await_until(
                self._connection, lambda: not self.open, PATIENCE
            )
        if not answered:
            self._line.drop()  # what is under way must not be counted later
            place = self._line.address.place
            raise BrokerUnavailable(f"{place}: no confirmation for what was sent")

    @contextmanager
    def _noting_its_end(self) -> Iterator[None]:
        try:
            yield
        except faults.ChannelError:
            self.is_open = False
            self.close()
            raise

    def close(self) -> None:
        self._line.close_channel(self._channel)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._answered(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self.refused.update(self._answered(tag, multiple))

    def _answered(self, tag: int, multiple: bool) -> list[object]:
        if not multiple:
            return [self.open.pop(tag)] if tag in self.open else []
        found = []
        for one in [*self.open]:
            if one > tag:
                break
            found.append(self.open.pop(one))
        return found

    def _on_return(self, error: Any, exchange: str, key: str, message: Any) -> None:
        self.returned.append((exchange, key, message.properties.get("correlation_id")))


class Reader:
    """Reads a stream again and again, and keeps what it gives."""

    def __init__(self, line: Line, name: str) -> None:
        self._line = line
        self._name = name
        self._number = 0
        """Of the connection by which was read; another one reads from the start."""
        self._next = 0
        self._own: Term | None = None
        self._oddities = Oddities()
        self.ledger = Ledger()
        self.bytes = 0
        """Bytes of records since the last snapshot."""

    def forget(self) -> None:
        """Read from the start the next time."""
        self._number = self._next = 0

    def read(self, on_part: Callable[[], object], own: Term | None = None) -> None:
        """Read all that lies there now. Raises BrokerUnavailable.

        Records of the term `own`, which goes on, are passed over: what this process has
        written is in the ledger, which is not read from the start then.
        """
        self._own = own
        with self._line.connected() as connection:
            self._line.refuse_if_blocked()
            if self._number != self._line.number and own is None:
                self._number = 0
                self._next, self.bytes, self.ledger = 0, 0, Ledger()
            marker = secrets.token_hex(8)
            with self._line.channel(connection) as channel:
                declare(channel, self._name)
            confirmed = Confirmed(self._line, connection)
            confirmed.write(
                marker,
                amqp.Message(encoded(Record(marker=marker)), delivery_mode=2),
                "",
                self._name,
                mandatory=True,
            )
            confirmed.await_all()
            try:
                self._read_to(connection, marker, on_part)
            except BaseException:  # part of it may be read: all is read anew
                if own is None:
                    self._number = 0
                raise
            finally:
                confirmed.close()
            if own is None:
                self._number = self._line.number

    def _read_to(
        self, connection: Any, marker: str, on_part: Callable[[], object]
    ) -> None:
        seen = False

        def take(message: Any) -> None:
            nonlocal seen
            offset = message.headers["x-stream-offset"]
            if offset >= self._next:
                self._next = offset + 1
                seen = self._take(message, offset) == marker or seen
            if offset % (_CREDIT // 2) == 0:
                channel.basic_ack(message.delivery_tag, multiple=True)
                on_part()

        with self._line.channel(connection) as channel:
            channel.basic_qos(0, _CREDIT, False)
            channel.basic_consume(
                self._name,
                callback=take,
                arguments={"x-stream-offset": self._next or "first"},
            )
            if not self._line.await_until(connection, lambda: seen, PATIENCE):
                place = self._line.address.place
                words = f"{place}: the ledger's stream {self._name} does not answer"
                raise BrokerUnavailable(words)

    def _take(self, message: Any, offset: int) -> str:
        """Take in one record; return the marker that it is, if it is one."""
        body = message.body
        data = body.encode() if isinstance(body, str) else bytes(body)
        try:
            record = decoded(data)
            if self._own and self._own.nonce == record.nonce:
                return ""
            self.ledger.apply(record)
        except ValueError as error:
            words = "the stream %s has a record that cannot be read, and is passed"
            words += " over: %s"
            self._oddities.tell("ledger.unreadable", words, self._name, str(error))
            return ""
        self.bytes = 0 if record.is_whole else self.bytes + len(data)
        return record.marker
