"""Messages of a queue into calls; all of them are foreign, and not trusted.

Everything here either returns a value or raises MessageError with a short reason that
shows nothing of the arguments.
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import msgspec

from beatd.bounds import count_of, seconds_of
from beatd.errors import MessageError
from beatd.instant import Instant, instant_of
from beatd.message import codec
from beatd.message.options import is_signature
from beatd.message.wire import (
    PROTOCOL_HEADERS,
    UNSHOWN,
    DeliveryInfo,
    Headers,
    Wire,
    as_sent,
    convert,
    headers_of,
    read_wire,
)
from beatd.text import quoted

MAX_NAME = 1000
"""Characters in a task's name or id; real ones are a tenth as long."""

_REST = 1024 * 1024
"""Bytes of a message beside its body; real messages have a thousandth of that."""


Signature: TypeAlias = Mapping[str, Any]
"""A call to make later: `task`, `args`, `kwargs`, `options`, `immutable`."""


class Limits(NamedTuple):
    """Limits for decoding a message."""

    accept: frozenset[str] = frozenset({codec.JSON})
    """Content types that are decoded."""
    size: int = codec.MAX_SIZE
    """Bytes of a body, in the message and after decompression."""

    @property
    def message(self) -> int:
        """Bytes of a whole message: base64 makes four bytes of three."""
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
    """None: the task's own `ignore_result` holds."""
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
    requeues: int = 0
    """How many deliveries ended with `Reject(requeue=True)`."""
    eta_text: str | None = None
    expires_text: str | None = None
    content_type: str
    compression: str | None = None
    body: str
    base64: bool
    decoded: Any = None
    """The body of a message of protocol 1, which has the fields of headers in it."""

    @property
    def name(self) -> str:
        """The name for people: `shadow`, if the sender has given it."""
        return self.shadow or self.task

    @property
    def custom_headers(self) -> dict[str, Any]:
        """The sender's own headers: those that are not the protocol's."""
        return self.custom_headers_and_properties[0]

    @property
    def custom_headers_and_properties(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The sender's own headers, and all properties of the message."""
        headers, properties = as_sent(self.raw)
        own = {k: v for k, v in headers.items() if k not in PROTOCOL_HEADERS}
        return own, properties


class Call(NamedTuple):
    """A message in full."""

    envelope: Envelope
    args: list[Any]
    kwargs: dict[str, Any]
    callbacks: list[Signature] | None
    errbacks: list[Signature] | None
    chain: list[Signature] | None
    """The steps that follow the call, the next step last."""
    chord: Signature | None


def read_envelope(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Envelope:
    """Return the envelope of a message: all that is needed to decide about it.

    The body is decoded only in protocol 1, which has everything in the body.
    """
    if len(raw) > limits.message:
        raise MessageError(f"{len(raw)} bytes: larger than {limits.message}")
    wire = read_wire(raw)
    known = wire.headers or Headers()
    decoded: Any = None
    if known.task is None or known.retries is None:
        decoded = _read_data(wire, known.compression, limits)
        if isinstance(decoded, dict):
            known = _of_body(decoded, headers_of(raw))
        elif known.task is None:
            raise MessageError("no task: neither in the headers nor in the body")
        else:
            decoded = None
    properties = wire.properties
    delivery = properties.delivery_info or DeliveryInfo()
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
        requeues=_count("beatd_requeues", known.beatd_requeues) or 0,
        eta_text=known.eta,
        expires_text=known.expires,
        content_type=wire.content_type or "",
        compression=known.compression,
        body=wire.body,
        base64=properties.body_encoding == "base64",
        decoded=decoded,
    )


_NAMED = re.compile(rb'"(task|id)": ?"([^"\\]{1,%d})"' % MAX_NAME)
"""A header as it is written: in a body that is text each quote follows a backslash."""


def named_in(raw: bytes) -> tuple[str, str]:
    """Return the task and the id that an unreadable message names in its headers.

    Each is empty where it is not found. Nothing is decoded, whatever the size.
    """
    found: dict[bytes, str] = {}
    for name, value in _NAMED.findall(raw):
        text = value.decode(errors="replace")
        if name not in found and is_name(text):
            found[name] = text
    return found.get(b"task", ""), found.get(b"id", "")


def read_body(envelope: Envelope, limits: Limits = DEFAULT_LIMITS) -> Call:
    """Return the message in full: decode the arguments, and the calls that follow."""
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
        _signatures(embed, "callbacks"),
        _signatures(embed, "errbacks"),
        _signatures(embed, "chain"),
        chord,
    )


def _of_body(body: dict[Any, Any], headers: dict[str, Any]) -> Headers:
    """Return the headers in a body of protocol 1; a hybrid's own headers win."""
    own = {k: v for k, v in headers.items() if v is not None}
    named = {k: v for k, v in body.items() if isinstance(k, str)}
    merged: Headers = convert({**named, **own}, Headers, "body")
    return merged


def _read_data(
    message: Wire | Envelope, compression: str | None, limits: Limits
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
    """Return whether a value can be the name of a task, or an id."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _name(field: str, value: str | None) -> str:
    if not value:
        raise MessageError(f"no {field}")
    if len(value) > MAX_NAME:
        raise MessageError(f"{field}: longer than {MAX_NAME} characters")
    if not value.isprintable():
        raise MessageError(f"{field}: {UNSHOWN}: {quoted(value)}")
    return value


def _optional_name(field: str, value: str | None) -> str | None:
    return _name(field, value) if value else None


def _instant(field: str, text: str | None) -> Instant | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # A naive time is UTC, whatever the zone of the worker: as in Celery's workers.
        return instant_of(
            moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        )
    except ValueError as error:
        reason = f"{field}: not ISO 8601: {quoted(text, 40)}"
        raise MessageError(reason) from error
    except OverflowError as error:
        reason = f"{field}: outside of the years 1 to 9999: {quoted(text, 40)}"
        raise MessageError(reason) from error


def _count(field: str, value: int | None) -> int | None:
    if value is None:
        return None
    try:
        return count_of(value)
    except ValueError as error:
        raise MessageError(f"{field}: {error}") from None


def _seconds(value: int | float | None) -> int | float | None:
    """Return a time limit, checked; None for zero, which means no limit."""
    if value is None:
        return None
    try:
        return seconds_of(value) or None
    except ValueError as error:
        raise MessageError(f"timelimit: {error}") from None


def _signatures(embed: dict[Any, Any], field: str) -> list[Signature] | None:
    value = embed.get(field)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(map(is_signature, value)):
        raise MessageError(f"embed.{field}: expected a list of signatures")
    return list(value)


def _kind(value: Any) -> str:
    return type(value).__name__
