"""The parts that messages of the same task and options share, encoded once."""

import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from enum import Enum, IntEnum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as json_string
from operator import itemgetter
from typing import Any

from beatd.errors import MessageError
from beatd.instant import Instant
from beatd.message import codec
from beatd.message.options import (
    DELIVERY_MODES,
    EMBEDDED,
    OWN,
    check_options,
    listed,
    whole,
)
from beatd.message.represent import bounded_repr
from beatd.message.timing import Times, Timing, iso, timing_of
from beatd.routing import Route


@dataclass(frozen=True, slots=True, eq=False)
class MessageFormat:
    """The form of all messages of one process, by its settings."""

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


class Hole(IntEnum):
    """A part that differs in each message; the order of the values for `Form.text`."""

    BODY = 0
    ID = 1
    ARGSREPR = 2
    KWARGSREPR = 3
    ENTRY = 4
    TAG = 5


class Shared(Enum):
    """A part that all messages share that are sent at one moment for one slot."""

    ETA = 0
    EXPIRES = 1
    EXPIRATION = 2
    SLOT = 3


@dataclass(frozen=True, slots=True, eq=False)
class BodyForm:
    """How a body is encoded, and its content besides the arguments."""

    serializer: str
    compression: str | None
    base64: bool
    embed: dict[str, Any]
    protocol_1: dict[str, Any] | None
    """The fixed fields of a body of protocol 1, which has no embed."""
    tail: str | None
    """The text after the arguments in a body of plain JSON; None for other bodies."""

    def encode(self, body: Any) -> str:
        """Return a body as it stands between quotes in the envelope."""
        data = codec.dumps(body, self.serializer).data
        if self.compression is not None:
            data, _ = codec.compress(data, self.compression)
        return self.wrap(data)

    def wrap(self, data: bytes) -> str:
        """Return a body's bytes as they stand between quotes."""
        if self.base64:
            return binascii.b2a_base64(data, newline=False).decode("ascii")
        try:
            return json_string(data.decode())[1:-1]
        except UnicodeDecodeError as error:
            raise MessageError("body_encoding utf-8: the body is not text") from error


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A message without the parts that go into its holes; many messages share it."""

    task: str
    route: Route
    task_id: str | None
    timing: Timing
    fixed_times: Times | None
    body: BodyForm
    slot_zone: tzinfo
    argsrepr: str | None
    kwargsrepr: str | None
    """The options that describe the arguments, for logs."""
    repr_size: int
    repr_levels: int
    parts: tuple[str | Shared, ...]
    """The envelope, a %s for each hole."""
    pick: Callable[[tuple[str, ...]], tuple[str, ...]]
    """Puts values, one for each Hole, in the order of the holes."""
    of_process: tuple[str, ...]
    """What the envelope calls the process: the parts that others do not share."""

    def represent(self, value: Any) -> str:
        """Return the bounded text of arguments for logs and monitors."""
        if not value:
            return str(value)
        return bounded_repr(value, self.repr_size, self.repr_levels)


@lru_cache(maxsize=256)
def form_of(shape: Shape, times: Times, slot: Instant | None) -> str:
    """Return a shape's text, a %s for each hole, with what one slot's messages share.

    It is cached, for what is emitted together has few shapes.
    """
    values = (
        "null" if times.eta is None else json_string(times.eta),
        "null" if times.expires is None else json_string(times.expires),
        times.expiration,
        "" if slot is None else f'"beatd_slot": "{iso(slot, shape.slot_zone)}", ',
    )
    return "".join(
        part if isinstance(part, str) else values[part.value].replace("%", "%%")
        for part in shape.parts
    )


MARKS: Sequence[str | Shared] = (
    '"beatd_entry": %s, ',
    Shared.SLOT,
    '"celery_beat_task": true',
)
"""The additional headers of a slot's message, with a %s for the entry."""


def joined(parts: Iterable[str | Shared]) -> tuple[str | Shared, ...]:
    """Return the parts of an envelope, with texts that follow one another as one."""
    texts: list[str | Shared] = []
    for part in parts:
        if isinstance(part, str) and texts and isinstance(last := texts[-1], str):
            texts[-1] = last + part
        else:
            texts.append(part)
    return tuple(texts)


_MARKS = ("beatd_entry", "beatd_slot", "celery_beat_task")


def shape_for(options: Mapping[str, Any], *common: Any) -> Shape:
    """Return the shape of a message; `common` are the other arguments of `_shape`."""
    try:
        return _shared_shape(shape_key(options), *common)
    except TypeError:  # some option is a list or a dict
        return _shape(options, *common)


def shape_key(options: Mapping[str, Any]) -> tuple[tuple[str, Any, str], ...]:
    """Return what is equal for options of which messages have the same shape.

    It has no hash if some option is a list or a dict.
    """
    # Equal values may be different options: True and 1, a moment in two zones.
    return tuple([(name, value, repr(value)) for name, value in options.items()])


@lru_cache(maxsize=1024)
def _shared_shape(key: tuple[tuple[str, Any, str], ...], *common: Any) -> Shape:
    return _shape({name: value for name, value, _ in key}, *common)


def _shape(
    options: Mapping[str, Any],
    task: str,
    format: MessageFormat,
    route: Route,
    registered: bool,
    marked: bool,
    zone: tzinfo,
) -> Shape:
    check_options(options)
    given = {name: value for name, value in options.items() if value is not None}
    get = given.get
    stamps = _stamps(given)
    body = _body_form(given, task, format)
    headers: dict[str, Any] = {}
    if body.protocol_1 is None:
        unset = False if registered else None
        headers = _headers(given, task, format, get("ignore_result", unset), stamps)
    taken = {"compression", *(_MARKS if marked else ())}
    custom = get("headers", {})
    headers.update({k: v for k, v in custom.items() if k not in taken})
    unknown = {k: v for k, v in options.items() if k not in OWN and k not in stamps}
    text = _envelope(given, format, route, body, headers, unknown, marked)
    timing = timing_of(given, format.zone)
    return Shape(
        task=task,
        route=route,
        task_id=get("task_id"),
        timing=timing,
        fixed_times=timing.fixed(),
        body=body,
        slot_zone=zone,
        argsrepr=get("argsrepr"),
        kwargsrepr=get("kwargsrepr"),
        repr_size=format.repr_size,
        repr_levels=format.repr_levels,
        parts=joined(text.parts),
        pick=itemgetter(*text.holes),
        of_process=(json_string(format.origin),),
    )


def _signatures(given: Any) -> list[dict[str, Any]] | None:
    signatures = listed(given)
    return None if signatures is None else [whole(one) for one in signatures]


def _stamps(given: Mapping[str, Any]) -> dict[str, Any]:
    names = given.get("stamped_headers", ())
    for name in names:
        if name not in given:
            raise MessageError(f"options['stamped_headers']: no option {name!r}")
    return {name: given[name] for name in names}


def _body_form(given: Mapping[str, Any], task: str, format: MessageFormat) -> BodyForm:
    get = given.get
    for name in EMBEDDED:
        _encoded(f"options[{name!r}]", get(name))
    serializer = get("serializer") or format.serializer
    compression = get("compression") or format.compression
    callbacks, errbacks = _signatures(get("link")), _signatures(get("link_error"))
    chord = whole(given["chord"]) if get("chord") else None
    embed = {
        "callbacks": callbacks,
        "errbacks": errbacks,
        "chain": _signatures(get("chain")),
        "chord": chord,
    }
    protocol_1 = None
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
            "callbacks": callbacks,
            "errbacks": errbacks,
            "timelimit": (get("time_limit"), get("soft_time_limit")),
            "taskset": get("group_id"),
            "chord": chord,
        }
    plain = serializer == "json" and compression is None and protocol_1 is None
    return BodyForm(
        serializer=serializer,
        compression=compression,
        base64=format.body_encoding == "base64",
        embed=embed,
        protocol_1=protocol_1,
        tail=f", {codec.json_text(embed)}]" if plain else None,
    )


def _headers(
    given: Mapping[str, Any],
    task: str,
    format: MessageFormat,
    ignore_result: bool | None,
    stamps: dict[str, Any],
) -> dict[str, Any]:
    get = given.get
    return {
        "lang": "py",
        "task": task,
        "id": Hole.ID,
        "shadow": get("shadow"),
        "eta": Shared.ETA,
        "expires": Shared.EXPIRES,
        "group": get("group_id"),
        "group_index": get("group_index"),
        "retries": get("retries", 0),
        "timelimit": [get("time_limit"), get("soft_time_limit")],
        "root_id": get("root_id") or Hole.ID,
        "parent_id": get("parent_id"),
        "argsrepr": Hole.ARGSREPR,
        "kwargsrepr": Hole.KWARGSREPR,
        "origin": get("origin") or format.origin,
        "ignore_result": ignore_result,
        "replaced_task_nesting": get("replaced_task_nesting", 0),
        "stamped_headers": get("stamped_headers"),
        "stamps": stamps,
    }


def _envelope(
    given: Mapping[str, Any],
    format: MessageFormat,
    route: Route,
    body: BodyForm,
    headers: Mapping[str, Any],
    unknown: Mapping[str, Any],
    marked: bool,
) -> "_Text":
    kind = codec.dumps(None, body.serializer)
    mode = given.get("delivery_mode", format.delivery_mode)
    properties = {
        "correlation_id": Hole.ID,
        "reply_to": given.get("reply_to") or format.reply_to,
        **unknown,
        "delivery_mode": DELIVERY_MODES.get(mode, mode),
    }
    delivery_info = {"exchange": route.exchange, "routing_key": route.routing_key}
    delivery = {
        "delivery_info": delivery_info,
        "priority": route.priority,
        "body_encoding": format.body_encoding,
        "delivery_tag": Hole.TAG,
    }
    text = _Text()
    text.put('{"body": "').hole(Hole.BODY)
    text.put(f'", "content-encoding": "{kind.content_encoding}"')
    text.put(f', "content-type": "{kind.content_type}", "headers": {{')
    text.fields("options['headers']", headers)
    if marked:
        text.put(", " if headers else "").parts += MARKS
        text.holes.append(Hole.ENTRY)
    if body.compression is not None:
        _, name = codec.compress(b"", body.compression)
        lead = ", " if headers or marked else ""
        text.put(f'{lead}"compression": "{name}"')
    text.put('}, "properties": {').fields("options", properties)
    text.share(Shared.EXPIRATION)
    return text.put(", ").fields("options", delivery).put("}}")


class _Text:
    """A JSON text in the making, with holes."""

    def __init__(self) -> None:
        self.parts: list[str | Shared] = []
        self.holes: list[Hole] = []

    def put(self, text: str) -> "_Text":
        self.parts.append(text.replace("%", "%%"))
        return self

    def hole(self, hole: Hole) -> "_Text":
        self.parts.append("%s")
        self.holes.append(hole)
        return self

    def share(self, part: Shared) -> "_Text":
        self.parts.append(part)
        return self

    def fields(self, place: str, fields: Mapping[str, Any]) -> "_Text":
        """Put the fields of an object; an error of encoding names `place`."""
        lead = ""
        for key, value in fields.items():
            self.put(f"{lead}{json_string(key)}: ")
            if isinstance(value, Hole):
                self.hole(value)
            elif isinstance(value, Shared):
                self.share(value)
            else:
                self.put(_encoded(f"{place}[{key!r}]", value))
            lead = ", "
        return self


def _encoded(place: str, value: Any) -> str:
    try:
        return codec.json_text(value)
    except Exception as error:  # also `__json__` and the like, which are the user's
        raise MessageError(f"{place}: {error}") from error
