"""Bytes into calls: what lies in a queue is foreign, whatever it looks like.

Everything here either gives a value or raises MessageError with a short reason that
shows nothing of the arguments.
"""

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import msgspec

from beatd.errors import MessageError
from beatd.instant import Instant, instant_of
from beatd.message import codec
from beatd.message.options import is_signature
from beatd.text import shown

MAX_NAME = 1000
"""Characters in a task's name or id; real ones have a tenth of that."""

_REST = 1024 * 1024
"""Bytes of a message beside its body; real ones have a thousandth of that."""

MAX_SECONDS = 10**9
MAX_COUNT = 2**31

Signature: TypeAlias = Mapping[str, Any]
"""A call that is to be made later: `task, args, kwargs, options, immutable`."""


class Limits(NamedTuple):
    """What a message may make us do."""

    accept: frozenset[str] = frozenset({codec.JSON})
    """Content types that are decoded."""
    size: int = codec.MAX_SIZE
    """Bytes of a body, in the message and after decompression."""

    @property
    def message(self) -> int:
        """Bytes of a whole message: base64 makes four of three, the rest is small."""
        return self.size // 3 * 4 + _REST


DEFAULT_LIMITS = Limits()


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A message but for its arguments."""

    task: str
    id: str
    raw: bytes
    """The whole message."""
    shadow: str | None = None
    eta: Instant | None = None
    expires: Instant | None = None
    retries: int = 0
    time_limit: int | float | None = None
    soft_time_limit: int | float | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    ignore_result: bool | None = None
    """None: as the task has it."""
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    argsrepr: str = ""
    kwargsrepr: str = ""
    origin: str = ""
    reply_to: str = ""
    correlation_id: str = ""
    exchange: str = ""
    routing_key: str = ""
    priority: int = 0
    redelivered: bool = False
    beatd_entry: str | None = None
    """The entry whose slot this run is for."""
    beatd_slot: str | None = None
    """The slot, in the entry's zone."""
    eta_text: str | None = None
    expires_text: str | None = None
    content_type: str
    compression: str | None = None
    body: str
    base64: bool
    decoded: Any = None
    """The body of a message that says in it what it is: protocol 1."""

    @property
    def name(self) -> str:
        """The name for people: the shadow's, if there is one."""
        return self.shadow or self.task

    @property
    def custom_headers(self) -> dict[str, Any]:
        """The headers that are not the protocol's."""
        headers = _headers_of(self.raw)
        return {k: v for k, v in headers.items() if k not in _PROTOCOL_HEADERS}


class Call(NamedTuple):
    """A message in full."""

    envelope: Envelope
    args: list[Any]
    kwargs: dict[str, Any]
    callbacks: list[Signature]
    errbacks: list[Signature]
    chain: list[Signature] | None
    """What is to follow, the next one last."""
    chord: Signature | None


def read_envelope(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Envelope:
    """Read what is needed to decide about a message.

    The body is decoded only for protocol 1, which keeps everything in it.
    """
    if len(raw) > limits.message:
        raise MessageError(f"{len(raw)} bytes: larger than {limits.message}")
    wire = _read_wire(raw)
    known = wire.headers or _Headers()
    decoded: Any = None
    if known.task is None or known.retries is None:
        decoded = _read_data(wire, known.compression, limits)
        if isinstance(decoded, dict):
            known = _of_body(decoded, _headers_of(raw))
        elif known.task is None:
            raise MessageError("no task: neither in the headers nor in the body")
        else:
            decoded = None
    properties = wire.properties
    delivery = properties.delivery_info or _DeliveryInfo()
    hard, soft = known.timelimit or (None, None)
    return Envelope(
        task=_name("task", known.task),
        id=_name("id", known.id),
        raw=raw,
        shadow=known.shadow,
        eta=_instant("eta", known.eta),
        expires=_instant("expires", known.expires),
        retries=_count("retries", known.retries) or 0,
        time_limit=_seconds(hard),
        soft_time_limit=_seconds(soft),
        root_id=_optional_name("root_id", known.root_id),
        parent_id=_optional_name("parent_id", known.parent_id),
        group=_optional_name("group", known.group or known.taskset),
        group_index=_count("group_index", known.group_index),
        ignore_result=known.ignore_result,
        replaced_task_nesting=known.replaced_task_nesting or 0,
        stamped_headers=known.stamped_headers,
        stamps=known.stamps,
        argsrepr=known.argsrepr or "",
        kwargsrepr=known.kwargsrepr or "",
        origin=known.origin or "",
        reply_to=properties.reply_to or "",
        correlation_id=properties.correlation_id or "",
        exchange=delivery.exchange or "",
        routing_key=delivery.routing_key or "",
        priority=properties.priority or 0,
        redelivered=bool(delivery.redelivered),
        beatd_entry=known.beatd_entry,
        beatd_slot=known.beatd_slot,
        eta_text=known.eta,
        expires_text=known.expires,
        content_type=wire.content_type or "",
        compression=known.compression,
        body=wire.body,
        base64=properties.body_encoding == "base64",
        decoded=decoded,
    )


def read_body(envelope: Envelope, limits: Limits = DEFAULT_LIMITS) -> Call:
    """Decode the arguments and what is to follow the call."""
    body = envelope.decoded
    if body is None:
        body = _read_data(envelope, envelope.compression, limits)
    if isinstance(body, dict):  # protocol 1
        args, kwargs, embed = body.get("args"), body.get("kwargs"), body
    elif isinstance(body, list | tuple) and len(body) == 3:
        args, kwargs, embed = body
    else:
        raise MessageError("body: expected [args, kwargs, embed]")
    embed = {} if embed is None else embed
    args = [] if args is None else args
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(args, list | tuple):
        raise MessageError(f"args: expected a list, got {_kind(args)}")
    if not isinstance(kwargs, dict) or not all(isinstance(k, str) for k in kwargs):
        raise MessageError("kwargs: expected an object with text as names")
    if not isinstance(embed, dict):
        raise MessageError(f"embed: expected an object, got {_kind(embed)}")
    chord = embed.get("chord")
    if chord is not None and not is_signature(chord):
        raise MessageError("embed.chord: expected a signature")
    return Call(
        envelope,
        list(args),
        kwargs,
        _signatures(embed, "callbacks") or [],
        _signatures(embed, "errbacks") or [],
        _signatures(embed, "chain"),
        chord,
    )


# -- the wire's own form


class _DeliveryInfo(msgspec.Struct):
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: bool | None = None


class _Properties(msgspec.Struct):
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_info: _DeliveryInfo | None = None
    priority: int | None = None
    body_encoding: str | None = None


_Seconds: TypeAlias = int | float | None


class _Headers(msgspec.Struct):
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


class _Wire(msgspec.Struct):
    body: str
    properties: _Properties
    headers: _Headers | None = None
    content_type: str | None = msgspec.field(name="content-type", default=None)


_OURS = {"beatd_entry", "beatd_slot"}

# `redelivered` is written by kombu when it gives a message back.
_PROTOCOL_HEADERS = ({*_Headers.__struct_fields__, "lang", "redelivered"}) - _OURS

_wire_decoder = msgspec.json.Decoder(_Wire)


def _read_wire(raw: bytes) -> _Wire:
    try:
        wire = _wire_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        # Python's `json` takes more (NaN, lone surrogates), and says what is wrong.
        wire = _convert(_read_json(raw), _Wire, "message")
    if not raw.isascii():
        _text_of(raw)  # nobody has looked yet at the names of what is passed over
    # A message that holds no more brackets than levels allowed is not too deep.
    if raw.count(b"{") + raw.count(b"[") > codec.MAX_DEPTH:
        codec.check_depth(_read_json(raw))
    return wire


def _headers_of(raw: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = _read_json(raw).get("headers") or {}
    return headers


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


def _convert(value: Any, kind: Any, place: str) -> Any:
    try:
        found = msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MessageError(_explained(str(error), place)) from error
    except UnicodeEncodeError as error:
        raise MessageError(f"{place}: names with {_UNSHOWN}") from error
    _check_text(found, place)
    return found


def _check_text(struct: msgspec.Struct, place: str) -> None:
    """Refuse lone surrogates: no broker and no backend takes a name with one."""
    for field in struct.__struct_fields__:
        value = getattr(struct, field)
        if isinstance(value, msgspec.Struct):
            _check_text(value, f"{place}.{field}")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                reason = f"{place}.{field}: {_UNSHOWN}: {shown(value)}"
                raise MessageError(reason) from error


def _explained(text: str, place: str) -> str:
    """Turn msgspec's words into ours: where, what was expected, what came."""
    found = re.fullmatch(r"(.*?)(?: - at `\$(.*)`)?", text, re.DOTALL)
    assert found is not None  # the expression takes any text
    reason = found[1].replace("`", "")
    reason = reason.replace(" | ", " or ")
    return f"{place}{found[2] or ''}: {reason[:1].lower()}{reason[1:]}"


def _of_body(body: dict[Any, Any], headers: dict[str, Any]) -> _Headers:
    """Give what a body of protocol 1 says; the headers of a hybrid go before it."""
    own = {k: v for k, v in headers.items() if v is not None}
    said = {k: v for k, v in body.items() if isinstance(k, str)}
    merged: _Headers = _convert({**said, **own}, _Headers, "body")
    return merged


def _read_data(
    message: _Wire | Envelope, compression: str | None, limits: Limits
) -> Any:
    is_base64 = (
        message.base64
        if isinstance(message, Envelope)
        else message.properties.body_encoding == "base64"
    )
    try:
        data = base64.b64decode(message.body) if is_base64 else message.body.encode()
    except ValueError as error:
        kind = "base64" if is_base64 else "text"
        raise MessageError(f"body: not {kind}") from error
    if len(data) > limits.size:
        raise MessageError(f"body: {len(data)} bytes: larger than {limits.size}")
    if compression is not None:
        data = codec.decompress(data, compression, limits.size)
    return codec.loads(data, message.content_type or "", limits.accept)


# -- single fields


def is_name(value: Any) -> TypeGuard[str]:
    """Say whether it can be the name of a task, or an id."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


_UNSHOWN = "characters that cannot be shown"


def _name(field: str, value: str | None) -> str:
    if not value:
        raise MessageError(f"no {field}")
    if len(value) > MAX_NAME:
        raise MessageError(f"{field}: longer than {MAX_NAME} characters")
    if not value.isprintable():
        raise MessageError(f"{field}: {_UNSHOWN}: {shown(value)}")
    return value


def _optional_name(field: str, value: str | None) -> str | None:
    return _name(field, value) if value else None


def _instant(field: str, text: str | None) -> Instant | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # A naive time is UTC, whatever zone its reader is in: as Celery's workers do.
        return instant_of(
            moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        )
    except ValueError as error:
        reason = f"{field}: not ISO 8601: {shown(text, 40)}"
        raise MessageError(reason) from error
    except OverflowError as error:
        reason = f"{field}: outside of the years 1 to 9999: {shown(text, 40)}"
        raise MessageError(reason) from error


def _count(field: str, value: int | None) -> int | None:
    if value is not None and not 0 <= value < MAX_COUNT:
        raise MessageError(f"{field}: expected a small count, got {shown(value, 20)}")
    return value


def _seconds(value: int | float | None) -> int | float | None:
    """Check a time limit; zero is none."""
    if value is not None and not 0 <= value <= MAX_SECONDS:  # also refuses NaN
        raise MessageError("timelimit: expected seconds, zero or more")
    return value or None


def _signatures(embed: dict[Any, Any], field: str) -> list[Signature] | None:
    value = embed.get(field)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(map(is_signature, value)):
        raise MessageError(f"embed.{field}: expected a list of signatures")
    return list(value)


def _kind(value: Any) -> str:
    return type(value).__name__
