"""From the bytes of a queue to the parts of a message, with types checked, not values.

Everything here either returns a value or raises MessageError with a short reason that
shows nothing of the arguments.
"""

import json
import re
from typing import Any, TypeAlias

import msgspec

from beatd.errors import MessageError
from beatd.message import codec
from beatd.text import encodable, is_encodable, quoted

UNSHOWN = "characters that cannot be shown"


class DeliveryInfo(msgspec.Struct):
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: bool | None = None


class Properties(msgspec.Struct):
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_info: DeliveryInfo | None = None
    priority: int | None = None
    body_encoding: str | None = None


_Seconds: TypeAlias = int | float | None


class Headers(msgspec.Struct):
    task: str | None = None
    id: str | None = None
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    taskset: str | None = None
    group_index: int | None = None
    retries: int | None = None
    timelimit: tuple[_Seconds, _Seconds] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    compression: str | None = None
    beatd_entry: str | None = None
    beatd_slot: str | None = None
    beatd_requeues: int | None = None


class Wire(msgspec.Struct):
    body: str
    properties: Properties
    headers: Headers | None = None
    content_type: str | None = msgspec.field(name="content-type", default=None)


_OURS = {"beatd_entry", "beatd_slot"}

# `redelivered` is written when a message is given back, by kombu and by `requeued`.
PROTOCOL_HEADERS = ({*Headers.__struct_fields__, "lang", "redelivered"}) - _OURS

_wire_decoder = msgspec.json.Decoder(Wire)


class _AsSent(msgspec.Struct):
    properties: dict[str, Any]
    headers: dict[str, Any] | None = None


_as_sent_decoder = msgspec.json.Decoder(_AsSent)


def read_wire(raw: bytes) -> Wire:
    """Read the JSON of a message."""
    try:
        wire = _wire_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        # Python's `json` takes more (NaN, lone surrogates), and says what is wrong.
        wire = convert(_read_json(raw), Wire, "message")
    if not raw.isascii():
        _text_of(raw)  # msgspec has not decoded the names of fields that it skips
    # A message that holds no more brackets than levels allowed is not too deep.
    if raw.count(b"{") + raw.count(b"[") > codec.MAX_DEPTH:
        codec.check_depth(_read_json(raw))
    return wire


def headers_of(raw: bytes) -> dict[str, Any]:
    """Return all headers of a message that `read_wire` has read."""
    return as_sent(raw)[0]


def as_sent(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all headers and properties of a message that `read_wire` has read."""
    try:
        sent = _as_sent_decoder.decode(raw)
        return sent.headers or {}, sent.properties
    except (msgspec.DecodeError, ValueError, RecursionError):
        # As in `read_wire`: Python's `json` takes more.
        wire = _read_json(raw)
        return wire.get("headers") or {}, wire["properties"]


class Parts(msgspec.Struct):
    """All that a message has, as it was sent."""

    body: str
    properties: dict[str, Any]
    headers: dict[str, Any] | None = None
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)


_parts_decoder = msgspec.json.Decoder(Parts)


def read_parts(raw: bytes) -> Parts:
    """Read the JSON of a message, for somebody who sends it on in another form."""
    try:
        return _parts_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        # As in `read_wire`: Python's `json` takes more.
        parts: Parts = convert(_read_json(raw), Parts, "message")
        return parts


def _read_json(raw: bytes) -> Any:
    text = _text_of(raw)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise MessageError("not a message: nested too deeply") from error
    except json.JSONDecodeError as error:
        where = f"{error.msg.removesuffix(' at')} at {error.pos}"
        raise MessageError(f"not a message: not JSON ({where})") from error
    except ValueError as error:  # a number with too many digits
        raise MessageError("not a message: not JSON") from error


def _text_of(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MessageError("not a message: not UTF-8") from error


def convert(value: Any, kind: Any, place: str) -> Any:
    """Convert a value to a struct of this kind; `place` is for the error."""
    try:
        found = msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MessageError(_explained(str(error), place)) from error
    except UnicodeEncodeError as error:
        raise MessageError(f"{place}: names with {UNSHOWN}") from error
    _check_text(found, place)
    return found


def _check_text(struct: msgspec.Struct, place: str) -> None:
    """Refuse lone surrogates: no broker and no backend takes a name with one.

    What is only shown has them escaped, as Python's `repr` does.
    """
    for field in struct.__struct_fields__:
        value = getattr(struct, field)
        if isinstance(value, msgspec.Struct):
            _check_text(value, f"{place}.{field}")
        elif isinstance(value, str) and not is_encodable(value):
            if field not in _SHOWN:
                raise MessageError(f"{place}.{field}: {UNSHOWN}: {quoted(value)}")
            setattr(struct, field, encodable(value))


_SHOWN = {"argsrepr", "kwargsrepr"}
"""What is only shown, of arguments: these may be any text, as names of files."""


def _explained(text: str, place: str) -> str:
    """Return msgspec's reason in beatd's words: where, what was expected, what came."""
    found = re.fullmatch(r"(.*?)(?: - at `\$(.*)`)?", text, re.DOTALL)
    assert found is not None  # the expression takes any text
    reason = found[1].replace("`", "")
    reason = reason.replace(" | ", " or ")
    return f"{place}{found[2] or ''}: {reason[:1].lower()}{reason[1:]}"
