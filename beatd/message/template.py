"""Calls into bytes: encoded once, completed for each slot."""

import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import IntEnum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

from beatd import codec
from beatd.codec import shown
from beatd.errors import MessageError
from beatd.instant import Instant, Span, datetime_of, span_of
from beatd.message.options import (
    DELIVERY_MODES,
    EMBEDDED,
    OWN,
    check_options,
    kind_of,
    listed,
    moment_of,
)
from beatd.message.represent import bounded_repr
from beatd.routing import Route


@dataclass(frozen=True, slots=True, eq=False)
class MessageFormat:
    """What all messages of one process have in common, from its settings."""

    serializer: str = "json"
    compression: str | None = None
    body_encoding: str = "base64"
    """The transport option: base64, or utf-8 for a body that is text."""
    protocol: int = 2
    utc: bool = True
    """The setting `enable_utc`; protocol 1 carries it."""
    zone: tzinfo = UTC
    """The zone in which times computed here are written."""
    origin: str = ""
    """`gen<pid>@<host>`."""
    reply_to: str = ""
    delivery_mode: int = 2
    repr_size: int = 1024
    repr_levels: int = 3


class Template:
    """A message that is encoded but for what differs from slot to slot.

    What many entries have in common lies in a shape that they share.
    """

    __slots__ = ("_args_text", "_body", "_kwargs_text", "_shape", "entry")

    def __init__(
        self,
        shape: "_Shape",
        body: str,
        args_text: str,
        kwargs_text: str,
        entry: str | None,
    ) -> None:
        self._shape = shape
        self._body = body
        self._args_text = args_text
        self._kwargs_text = kwargs_text
        self.entry = entry

    @property
    def task(self) -> str:
        """The name of the task."""
        return self._shape.task

    @property
    def route(self) -> Route:
        """Where the message goes."""
        return self._shape.route

    @property
    def task_id(self) -> str | None:
        """The id that the options set for every message; None if each has its own."""
        return self._shape.task_id

    def complete(
        self,
        *,
        id: str,
        tag: str,
        now: Instant,
        slot: Instant | None = None,
        expires: Instant | None = None,
    ) -> bytes:
        """Give the message for one slot, sent `now` under this task id.

        `tag` is the delivery tag, different for each message. `expires` goes before
        what the options say.
        """
        shape = self._shape
        task_id = shape.task_id or id
        times = shape.fixed_times
        if times is None or expires is not None:
            times = shape.times(now, expires)
        values = (
            self._body_text(task_id, times, slot),
            quoted(task_id),
            _or_null(times.eta),
            _or_null(times.expires),
            self._args_text,
            self._kwargs_repr(slot),
            "" if self.entry is None else shape.marks(self.entry, slot),
            times.expiration,
            quoted(tag),
        )
        return (shape.text % shape.pick(values)).encode("ascii")

    def _body_text(self, task_id: str, times: "_Times", slot: Instant | None) -> str:
        """Give what stands between the quotes after `"body":`."""
        shape = self._shape
        if shape.tail is None:
            return self._body
        return shape.wrap(f"[{self._body}, {shape.tail}".encode("ascii"))

    def _kwargs_repr(self, slot: Instant | None) -> str:
        return self._kwargs_text


class _Rebuilt(Template):
    """A message whose body differs from slot to slot: encoded anew for each."""

    __slots__ = ("_args", "_kwargs", "_slot_argument")

    def __init__(
        self,
        shape: "_Shape",
        args: Sequence[Any],
        kwargs: dict[str, Any],
        slot_argument: str | None,
        args_text: str,
        kwargs_text: str,
        entry: str | None,
    ) -> None:
        super().__init__(shape, "", args_text, kwargs_text, entry)
        self._args = args
        self._kwargs = kwargs
        self._slot_argument = slot_argument

    def _body_text(self, task_id: str, times: "_Times", slot: Instant | None) -> str:
        shape = self._shape
        kwargs = self._with_slot(slot)
        if shape.protocol_1 is None:
            return shape.encode((self._args, kwargs, shape.embed))
        volatile = {
            "id": task_id,
            "args": self._args,
            "kwargs": kwargs,
            "eta": times.eta,
            "expires": times.expires,
        }
        return shape.encode({**shape.protocol_1, **volatile})

    def _kwargs_repr(self, slot: Instant | None) -> str:
        if self._slot_argument is None or slot is None:
            return self._kwargs_text
        return quoted(self._shape.represent(self._with_slot(slot)))

    def _with_slot(self, slot: Instant | None) -> dict[str, Any]:
        if self._slot_argument is None or slot is None:
            return self._kwargs
        return {**self._kwargs, self._slot_argument: _iso(slot, self._shape.slot_zone)}


def template(
    format: MessageFormat,
    route: Route,
    task: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    registered: bool = False,
    entry: str | None = None,
    zone: tzinfo = UTC,
    slot_argument: str | None = None,
) -> Template:
    """Encode a call; `options` are `apply_async`'s, unknown ones become properties.

    `registered` says that the task is known here, whose own options the caller has put
    under `options`. Messages of an `entry` carry its name and, in the entry's `zone`,
    the slot: as header `beatd_slot` and as keyword argument `slot_argument`.

    Raises MessageError that names the option or the argument that cannot be sent.
    """
    args = args or ()
    if not isinstance(args, list | tuple):
        raise MessageError(f"args: expected a list or tuple, got {kind_of(args)}")
    kwargs = _checked_kwargs(kwargs or {})
    shape = _shape_for(
        options or {}, task, format, route, registered, entry is not None, zone
    )
    args_text = shape.args_text or _shared(quoted(shape.represent(args)))
    kwargs_text = shape.kwargs_text or _shared(quoted(shape.represent(kwargs)))
    try:
        if shape.protocol_1 is not None or slot_argument is not None:
            rebuilt = _Rebuilt(
                shape, args, kwargs, slot_argument, args_text, kwargs_text, entry
            )
            rebuilt.complete(id="", tag="", now=0, slot=0)  # it can be encoded
            return rebuilt
        if shape.tail is None:
            body = shape.encode((args, kwargs, shape.embed))
        else:
            body = _shared(codec.json_text((args, kwargs))[1:-1])
    except Exception as error:  # also `__json__` and the like, which are the user's
        _blame(error, args, kwargs, shape)
    return Template(shape, body, args_text, kwargs_text, entry)


def _checked_kwargs(kwargs: Any) -> dict[str, Any]:
    if not isinstance(kwargs, Mapping):
        raise MessageError(f"kwargs: expected a dict, got {kind_of(kwargs)}")
    for name in kwargs:
        if not isinstance(name, str):
            raise MessageError(f"kwargs: expected text as names, got {kind_of(name)}")
    return kwargs if isinstance(kwargs, dict) else dict(kwargs)


def _blame(error: Exception, args: Any, kwargs: Any, shape: "_Shape") -> NoReturn:
    """Raise MessageError that says which argument cannot be encoded."""
    for name, value in (("args", args), ("kwargs", kwargs)):
        place, reason = _culprit(name, value, shape.serializer, levels=20)
        if reason is not None:
            raise MessageError(f"{place}: {reason}") from error
    raise MessageError(f"cannot be encoded: {error}") from error


def _culprit(
    place: str, value: Any, serializer: str, levels: int
) -> tuple[str, MessageError | None]:
    """Find the innermost part that cannot be encoded on its own."""
    try:
        codec.dumps(value, serializer)
    except MessageError as error:
        reason = error
    else:
        return place, None
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts if levels else ():
        inner = _culprit(f"{place}[{shown(key)}]", part, serializer, levels - 1)
        if inner[1] is not None:
            return inner
    return place, reason


@lru_cache(maxsize=4096)
def _shared(text: str) -> str:
    """Give the same object for the same text: most entries have few of their own."""
    return text


# -- what entries with the same options share


class _Hole(IntEnum):
    """What differs from message to message; the order of `complete`'s values."""

    BODY = 0
    ID = 1
    ETA = 2
    EXPIRES = 3
    ARGSREPR = 4
    KWARGSREPR = 5
    MARKS = 6
    EXPIRATION = 7
    TAG = 8


class _Times(NamedTuple):
    eta: str | None
    expires: str | None
    expiration: str
    """The property, comma in front, or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """A message but for its holes, and how to fill them."""

    task: str
    route: Route
    text: str
    """The envelope, a %s for each hole."""
    pick: Callable[[tuple[str, ...]], tuple[str, ...]]
    """Puts values in the order of the holes."""
    task_id: str | None
    eta: str | None
    countdown: Span | None
    expires: str | None
    expires_in: Span | None
    expires_at: Instant | None
    zone: tzinfo
    slot_zone: tzinfo
    marks_lead: str
    serializer: str
    compression: str | None
    base64: bool
    args_text: str | None
    kwargs_text: str | None
    """What the options say of the arguments, for logs."""
    repr_size: int
    repr_levels: int
    embed: dict[str, Any]
    tail: str | None
    """The end of a body that is plain JSON; None if the body is encoded otherwise."""
    protocol_1: dict[str, Any] | None
    """The body's fixed fields."""
    fixed_times: _Times | None
    """What `times` gives when it does not depend on the moment of sending."""

    def times(self, now: Instant, expires: Instant | None) -> _Times:
        """Compute eta and expiry of a message that is sent `now`."""
        eta = self.eta
        if self.countdown is not None:
            eta = _iso(now + self.countdown, self.zone)
        if expires is not None:
            return _Times(eta, _iso(expires, self.zone), _expiration(expires - now))
        if self.expires_in is not None:
            text = _iso(now + self.expires_in, self.zone)
            return _Times(eta, text, _expiration(self.expires_in))
        if self.expires_at is not None:
            return _Times(eta, self.expires, _expiration(self.expires_at - now))
        return _Times(eta, None, "")

    def marks(self, entry: str, slot: Instant | None) -> str:
        """Give the headers that a slot's message has beside those of a call."""
        of_slot = ""
        if slot is not None:
            of_slot = f'"beatd_slot": "{_iso(slot, self.slot_zone)}", '
        return (
            f'{self.marks_lead}"beatd_entry": {quoted(entry)}, '
            f'{of_slot}"celery_beat_task": true'
        )

    def encode(self, body: Any) -> str:
        """Give a body in the envelope's form."""
        data = codec.dumps(body, self.serializer).data
        if self.compression is not None:
            data, _ = codec.compress(data, self.compression)
        return self.wrap(data)

    def wrap(self, data: bytes) -> str:
        """Give a body's bytes as they stand between quotes."""
        if self.base64:
            return binascii.b2a_base64(data, newline=False).decode("ascii")
        try:
            return quoted(data.decode())[1:-1]
        except UnicodeDecodeError as error:
            raise MessageError("body_encoding utf-8: the body is not text") from error

    def represent(self, value: Any) -> str:
        """Give the bounded text that logs and monitors show of arguments."""
        if not value:
            return str(value)
        return bounded_repr(value, self.repr_size, self.repr_levels)


def _expiration(left: Span) -> str:
    return f', "expiration": "{max(left, 0)}"'


@lru_cache(maxsize=4096)
def _iso(instant: Instant, zone: tzinfo) -> str:
    """Give an instant as ISO 8601; many entries share their slots."""
    return datetime_of(instant, zone).isoformat()


def _or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)


def _shape_for(options: Mapping[str, Any], *common: Any) -> _Shape:
    try:
        # Equal values are not always one option: True and 1, one moment in two zones.
        key = tuple((name, value, repr(value)) for name, value in options.items())
        return _shared_shape(key, *common)
    except TypeError:  # some option is a list or a dict
        return _shape(options, *common)


@lru_cache(maxsize=1024)
def _shared_shape(key: tuple[tuple[str, Any, str], ...], *common: Any) -> _Shape:
    return _shape({name: value for name, value, _ in key}, *common)


def _shape(
    options: Mapping[str, Any],
    task: str,
    format: MessageFormat,
    route: Route,
    registered: bool,
    marked: bool,
    zone: tzinfo,
) -> _Shape:
    check_options(options)
    given = {name: value for name, value in options.items() if value is not None}
    get = given.get
    serializer = get("serializer") or format.serializer
    compression = get("compression") or format.compression
    compression_type = codec.compress(b"", compression)[1] if compression else None
    stamped = get("stamped_headers")
    for name in stamped or ():
        if name not in options:
            raise MessageError(f"options['stamped_headers']: no option {name!r}")
    stamps = {name: options[name] for name in stamped or ()}
    eta, expires, countdown = get("eta"), get("expires"), get("countdown")
    links, errors = listed(get("link")), listed(get("link_error"))
    protocol_1 = None
    headers: dict[str, Any] = {}
    if format.protocol == 1:
        protocol_1 = {
            "task": task,
            "id": None,
            "args": None,
            "kwargs": None,
            "group": get("group_id"),
            "group_index": get("group_index"),
            "retries": get("retries", 0),
            "eta": None,
            "expires": None,
            "utc": format.utc,
            "callbacks": links,
            "errbacks": errors,
            "timelimit": (get("time_limit"), get("soft_time_limit")),
            "taskset": get("group_id"),
            "chord": get("chord"),
        }
    else:
        headers = {
            "lang": "py",
            "task": task,
            "id": _Hole.ID,
            "shadow": get("shadow"),
            "eta": _Hole.ETA,
            "expires": _Hole.EXPIRES,
            "group": get("group_id"),
            "group_index": get("group_index"),
            "retries": get("retries", 0),
            "timelimit": [get("time_limit"), get("soft_time_limit")],
            "root_id": get("root_id") or _Hole.ID,
            "parent_id": get("parent_id"),
            "argsrepr": _Hole.ARGSREPR,
            "kwargsrepr": _Hole.KWARGSREPR,
            "origin": get("origin") or format.origin,
            "ignore_result": get("ignore_result", False if registered else None),
            "replaced_task_nesting": get("replaced_task_nesting", 0),
            "stamped_headers": stamped,
            "stamps": stamps,
        }
    custom = dict(get("headers", {}))
    for name in _MARKS if marked else ():
        custom.pop(name, None)
    custom.pop("compression", None)
    headers.update(custom)
    mode = get("delivery_mode", format.delivery_mode)
    properties = {
        "correlation_id": _Hole.ID,
        "reply_to": get("reply_to") or format.reply_to,
        **{k: v for k, v in options.items() if k not in OWN and k not in stamps},
        "delivery_mode": DELIVERY_MODES.get(mode, mode),
    }
    delivery = {
        "delivery_info": {
            "exchange": route.exchange,
            "routing_key": route.routing_key,
        },
        "priority": route.priority,
        "body_encoding": format.body_encoding,
        "delivery_tag": _Hole.TAG,
    }
    kind = codec.dumps(None, serializer)
    text = _Text()
    text.put('{"body": "').hole(_Hole.BODY)
    text.put(f'", "content-encoding": "{kind.content_encoding}"')
    text.put(f', "content-type": "{kind.content_type}", "headers": {{')
    text.fields("options['headers']", headers).hole(_Hole.MARKS)
    if compression_type is not None:
        lead = ", " if headers or marked else ""
        text.put(f'{lead}"compression": "{compression_type}"')
    text.put('}, "properties": {').fields("options", properties)
    text.hole(_Hole.EXPIRATION).put(", ").fields("options", delivery).put("}}")
    embed = {
        "callbacks": links,
        "errbacks": errors,
        "chain": get("chain"),
        "chord": get("chord"),
    }
    for name in EMBEDDED:
        if name in given:
            _encoded(f"options[{name!r}]", given[name])
    plain = serializer == "json" and compression is None and protocol_1 is None
    seconds = expires if isinstance(expires, int | float) else None
    eta = eta.isoformat() if isinstance(eta, datetime) else eta
    args_repr, kwargs_repr = get("argsrepr"), get("kwargsrepr")
    return _Shape(
        task=task,
        route=route,
        text="".join(text.parts),
        pick=itemgetter(*text.holes),
        task_id=get("task_id"),
        eta=eta,
        countdown=None if not countdown else span_of(countdown),
        expires=expires.isoformat() if isinstance(expires, datetime) else expires,
        expires_in=None if seconds is None else span_of(seconds),
        expires_at=moment_of(expires) if seconds is None else None,
        zone=format.zone,
        slot_zone=zone,
        marks_lead=", " if headers else "",
        serializer=serializer,
        compression=compression,
        base64=format.body_encoding == "base64",
        args_text=None if args_repr is None else quoted(args_repr),
        kwargs_text=None if kwargs_repr is None else quoted(kwargs_repr),
        repr_size=format.repr_size,
        repr_levels=format.repr_levels,
        embed=embed,
        tail=codec.json_text(embed) + "]" if plain else None,
        protocol_1=protocol_1,
        fixed_times=None if countdown or expires else _Times(eta, None, ""),
    )


class _Text:
    """A JSON text in the making, with holes."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.holes: list[_Hole] = []

    def put(self, text: str) -> "_Text":
        self.parts.append(text.replace("%", "%%"))
        return self

    def hole(self, hole: _Hole) -> "_Text":
        self.parts.append("%s")
        self.holes.append(hole)
        return self

    def fields(self, place: str, fields: Mapping[str, Any]) -> "_Text":
        """Put an object's inside; what cannot be encoded is blamed on `place`."""
        lead = ""
        for key, value in fields.items():
            self.put(f"{lead}{quoted(key)}: ")
            if isinstance(value, _Hole):
                self.hole(value)
            else:
                self.put(_encoded(f"{place}[{key!r}]", value))
            lead = ", "
        return self


def _encoded(place: str, value: Any) -> str:
    try:
        return codec.json_text(value)
    except Exception as error:  # also `__json__` and the like, which are the user's
        raise MessageError(f"{place}: {error}") from error


_MARKS = ("beatd_entry", "beatd_slot", "celery_beat_task")
