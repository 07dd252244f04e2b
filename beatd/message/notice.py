"""Messages that are no calls: events, commands of remote control, and their answers."""

import base64
import json
from typing import Any, NamedTuple

import msgspec

from beatd.errors import MessageError
from beatd.message import codec
from beatd.routing import Route

LARGEST = 4 * 1024 * 1024
"""Bytes of a notice that is read."""

_ACCEPT = frozenset({codec.JSON})


class Notice(NamedTuple):
    """A message that is no call: its headers and its body, decoded."""

    headers: dict[str, Any]
    body: Any


def write_notice(
    notice: Notice,
    route: Route,
    *,
    tag: str,
    delivery_mode: int = 1,
    serializer: str = "json",
) -> bytes:
    """Return the message. Raises MessageError for a body that cannot be encoded."""
    encoded = codec.dumps(notice.body, serializer)
    envelope = {
        "body": base64.b64encode(encoded.data).decode(),
        "content-encoding": encoded.content_encoding,
        "content-type": encoded.content_type,
        "headers": notice.headers,
        "properties": {
            "delivery_mode": delivery_mode,
            "delivery_info": {
                "exchange": route.exchange,
                "routing_key": route.routing_key,
            },
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }
    return json.dumps(envelope).encode()


def read_notice(raw: bytes) -> Notice:
    """Return a message that anybody may have sent; MessageError says what is wrong."""
    if len(raw) > LARGEST:
        raise MessageError(f"larger than {LARGEST} bytes")
    envelope = codec.loads(raw, codec.JSON, _ACCEPT)
    try:
        wire = msgspec.convert(envelope, _Wire)
    except msgspec.ValidationError as error:
        raise MessageError(str(error)) from error
    data = wire.body.encode(errors="surrogatepass")
    if wire.properties.body_encoding == "base64":
        try:
            data = base64.b64decode(data)
        except ValueError as error:
            raise MessageError("body: not base64") from error
    body = codec.loads(data, wire.content_type or codec.JSON, _ACCEPT)
    return Notice(wire.headers or {}, body)


class _Properties(msgspec.Struct):
    body_encoding: str | None = None


class _Wire(msgspec.Struct):
    body: str
    properties: _Properties
    headers: dict[str, Any] | None = None
    content_type: str | None = msgspec.field(name="content-type", default=None)
