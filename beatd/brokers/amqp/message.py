"""Celery's envelope in JSON, as AMQP has it: properties, headers and body, and back.

Inside of beatd a message is what lies in Redis. AMQP has the same parts unpacked, and
no base64: the headers are a table, the rest of the envelope are properties, and where
the message goes is said by the frame.
"""

import base64
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from beatd.errors import MessageError
from beatd.message import codec
from beatd.message.wire import Parts, read_parts
from beatd.text import encodable, is_encodable, quoted

SHORT = 255
"""The most bytes of a property, of a header's name, of a queue's name."""

_TEXTS = (
    *("correlation_id", "reply_to", "expiration", "message_id", "type", "user_id"),
    *("app_id", "cluster_id"),
)
_NUMBERS = ("delivery_mode", "priority")

_LARGEST = 2**63


class Content(NamedTuple):
    """What a message consists of, beside where it goes."""

    properties: dict[str, Any]
    """By AMQP's names; only those that are set. Without the headers."""
    headers: dict[str, Any]
    body: bytes


def content_of(message: bytes) -> Content:
    """Return an envelope as AMQP has it.

    Properties that AMQP does not know are left out, as Celery does. Raises MessageError
    for an envelope that cannot be sent so.
    """
    wire = read_parts(message)
    properties: dict[str, Any] = {}
    for name, value in (
        ("content_type", wire.content_type),
        ("content_encoding", wire.content_encoding),
    ):
        if value is not None:
            properties[name] = _short(name, value)
    for name in _TEXTS:
        if (value := wire.properties.get(name)) is not None:
            properties[name] = _short(name, str(value))
    for name in _NUMBERS:
        if (value := wire.properties.get(name)) is not None:
            properties[name] = _octet(name, value)
    if (moment := wire.properties.get("timestamp")) is not None:
        if not isinstance(moment, int) or not 0 <= moment < _LARGEST:
            raise MessageError(f"timestamp: expected seconds, got {quoted(moment)}")
        properties["timestamp"] = moment
    return Content(properties, _table(wire.headers or {}), _body(wire))


def message_of(
    content: Content, exchange: str, routing_key: str, tag: str, *, redelivered: bool
) -> bytes:
    """Return what came from AMQP as an envelope, with where it came from.

    `tag` is the delivery tag. Values that JSON lacks (times, bytes, decimals) become
    text.
    """
    properties = {**content.properties}
    envelope = {
        "body": base64.b64encode(content.body).decode("ascii"),
        "content-encoding": properties.pop("content_encoding", None),
        "content-type": properties.pop("content_type", None),
        "headers": _plain(content.headers),
        "properties": {
            **_plain(properties),
            "delivery_info": {
                "exchange": exchange,
                "routing_key": routing_key,
                **({"redelivered": True} if redelivered else {}),
            },
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }
    return codec.json_text(envelope).encode()


def _body(wire: Parts) -> bytes:
    if wire.properties.get("body_encoding") != "base64":
        return wire.body.encode()
    try:
        return base64.b64decode(wire.body)
    except ValueError as error:
        raise MessageError("body: not base64") from error


def _short(name: str, value: str) -> str:
    if not is_encodable(value) or len(value.encode()) > SHORT:
        raise MessageError(f"{name}: expected at most {SHORT} bytes for RabbitMQ")
    return value


def _octet(name: str, value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= 255:
        problem = f"expected a number from 0 to 255 for RabbitMQ, got {quoted(value)}"
        raise MessageError(f"{name}: {problem}")
    return value


def _table(value: Mapping[str, Any]) -> dict[str, Any]:
    return {_short("a header's name", key): _field(one) for key, one in value.items()}


def _field(value: Any) -> Any:
    """Return a value of JSON as one that a table of AMQP can hold."""
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, list):
        return [_field(one) for one in value]
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise MessageError(f"headers: {quoted(value)} has more than 64 bits")
    return encodable(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """Return a value from AMQP as one of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    return str(value) if isinstance(value, Decimal) else value
