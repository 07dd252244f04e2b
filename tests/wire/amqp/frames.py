"""AMQP 0-9-1 as it goes over the line, in words: `Method name`, arguments, content.

Shares no code with any client: what a vector says comes from the bytes alone.
"""

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

METHODS = {
    # class and method, then arguments: their kinds and names
    (20, 10): ("Channel.Open", "s:"),
    (40, 10): (
        "Exchange.Declare",
        "h: s:exchange s:type b:passive b:durable b:auto_delete b:internal b:nowait"
        " F:arguments",
    ),
    (40, 30): (
        "Exchange.Bind",
        "h: s:destination s:source s:routing_key b:nowait F:arguments",
    ),
    (50, 10): (
        "Queue.Declare",
        "h: s:queue b:passive b:durable b:exclusive b:auto_delete b:nowait F:arguments",
    ),
    (50, 20): (
        "Queue.Bind",
        "h: s:queue s:exchange s:routing_key b:nowait F:arguments",
    ),
    (60, 10): ("Basic.Qos", "I:prefetch_size h:prefetch_count b:global"),
    (60, 20): (
        "Basic.Consume",
        "h: s:queue s:consumer_tag b:no_local b:no_ack b:exclusive b:nowait"
        " F:arguments",
    ),
    (60, 40): (
        "Basic.Publish",
        "h: s:exchange s:routing_key b:mandatory b:immediate",
    ),
    (60, 60): (
        "Basic.Deliver",
        "s:consumer_tag L:delivery_tag b:redelivered s:exchange s:routing_key",
    ),
    (60, 80): ("Basic.Ack", "L:delivery_tag b:multiple"),
    (85, 10): ("Confirm.Select", "b:nowait"),
}
"""What is written down; all other methods are passed over."""

PROPERTIES = (
    *(("content_type", "s"), ("content_encoding", "s"), ("headers", "F")),
    *(("delivery_mode", "o"), ("priority", "o"), ("correlation_id", "s")),
    *(("reply_to", "s"), ("expiration", "s"), ("message_id", "s"), ("timestamp", "T")),
    *(("type", "s"), ("user_id", "s"), ("app_id", "s"), ("cluster_id", "s")),
)
"""In the order in which their flags and values come."""

_NUMBERS = {
    "t": "?", "b": "b", "B": "B", "o": "B", "s": "h", "u": "H", "h": "H", "I": "i",
    "i": "I", "l": "q", "f": "f", "d": "d",
}  # fmt: skip


@dataclass
class Sent:
    """One method, and the content that follows some of them."""

    method: str
    arguments: dict[str, Any]
    properties: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""

    def as_line(self) -> dict[str, Any]:
        """Return what a vector says of it."""
        line: dict[str, Any] = {"method": self.method, **self.arguments}
        if self.method in ("Basic.Publish", "Basic.Deliver"):
            line["properties"] = self.properties
            line["body"] = base64.b64encode(self.body).decode()
        return line


class Reader:
    """Takes the bytes of one direction, and returns what they say."""

    def __init__(self) -> None:
        self._bytes = b""
        self._open: dict[int, Sent] = {}
        """By channel, what still waits for its content."""
        self._left: dict[int, int] = {}

    def feed(self, piece: bytes) -> Iterator[Sent]:
        """Yield what is complete with this piece."""
        self._bytes += piece
        if self._bytes.startswith(b"AMQP"):
            self._bytes = self._bytes[8:]
        while len(self._bytes) >= 7:
            kind, channel, size = struct.unpack_from(">BHI", self._bytes)
            if len(self._bytes) < size + 8:
                return
            payload, self._bytes = self._bytes[7 : 7 + size], self._bytes[size + 8 :]
            yield from self._frame(kind, channel, payload)

    def _frame(self, kind: int, channel: int, payload: bytes) -> Iterator[Sent]:
        if kind == 1:
            number = struct.unpack_from(">HH", payload)
            name, arguments = METHODS.get(number, ("", ""))
            if not name:
                return
            sent = Sent(name, _Values(payload[4:]).arguments(arguments))
            if name not in ("Basic.Publish", "Basic.Deliver"):
                yield sent
                return
            self._open[channel] = sent
        elif kind == 2 and channel in self._open:
            (self._left[channel],) = struct.unpack_from(">Q", payload, 4)
            self._open[channel].properties = _Values(payload[12:]).properties()
            if not self._left[channel]:
                yield self._open.pop(channel)
        elif kind == 3 and channel in self._open:
            self._open[channel].body += payload
            self._left[channel] -= len(payload)
            if not self._left[channel]:
                yield self._open.pop(channel)


class _Values:
    """Reads values of the kinds that AMQP has, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def arguments(self, described: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        bit = 0
        for one in described.split():
            kind, _, name = one.partition(":")
            if kind == "b":
                value: Any = bool(self._data[self._at] >> bit & 1)
                bit += 1
            else:
                if bit:
                    self._at, bit = self._at + 1, 0
                value = self._one(kind)
            if name:
                found[name] = value
        return found

    def properties(self) -> dict[str, Any]:
        flags = self._number("H")
        return {
            name: self._one(kind)
            for place, (name, kind) in enumerate(PROPERTIES)
            if flags >> (15 - place) & 1
        }

    def _one(self, kind: str) -> Any:
        """Return an argument or a property; short text there has the letter `s`."""
        if kind == "L":
            return self._number("Q")
        return self._text("B") if kind == "s" else self._value(kind)

    def _value(self, kind: str) -> Any:
        match kind:
            case "S" | "x":
                return self._text("I")
            case "V":
                return None
            case "F":
                return self._table()
            case "A":
                return self._list()
            case "T":
                moment = datetime.fromtimestamp(self._number("Q"), UTC)
                return {"$time": moment.isoformat()}
            case "D":
                places = self._number("B")
                return {"$decimal": str(Decimal(self._number("i")).scaleb(-places))}
            case "L":  # RabbitMQ's have a sign, unlike arguments of methods
                return self._number("q")
        return self._number(_NUMBERS[kind])

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f">{form}", self._data, self._at)
        self._at += struct.calcsize(f">{form}")
        return value

    def _text(self, size: str) -> Any:
        length = self._number(size)
        data = self._data[self._at : self._at + length]
        self._at += length
        try:
            return data.decode()
        except UnicodeDecodeError:
            return {"$bytes": base64.b64encode(data).decode()}

    def _table(self) -> dict[str, Any]:
        end = self._number("I") + self._at
        found = {}
        while self._at < end:
            name = self._text("B")
            found[name] = self._value(chr(self._number("B")))
        return found

    def _list(self) -> list[Any]:
        end = self._number("I") + self._at
        found = []
        while self._at < end:
            found.append(self._value(chr(self._number("B"))))
        return found
