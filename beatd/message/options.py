"""The options of `apply_async`: their values, and which of them become properties."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from beatd.bounds import LARGEST, LONGEST, count_of, seconds_of
from beatd.errors import MessageError
from beatd.instant import Instant, instant_of
from beatd.text import is_encodable, quoted


def check_options(options: Mapping[str, Any]) -> None:
    """Raise MessageError for the first option that is wrong."""
    for _, problem in option_problems(options):
        raise MessageError(problem)


def option_problems(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each option that is wrong, with the problem."""
    for name, value in options.items():
        if not isinstance(name, str):
            yield name, f"options: expected text as names, got {kind_of(name)}"
            continue
        if value is None or name not in _EXPECTED:
            continue
        fits, expected = _EXPECTED[name]
        if not fits(value):
            yield name, f"options[{name!r}]: expected {expected}, got {quoted(value)}"


def _is_seconds(value: Any, least: float = -LONGEST) -> bool:
    """Return whether a value is a number of seconds; JSON has no timedelta."""
    try:
        seconds_of(value, least)
    except ValueError:
        return False
    return not isinstance(value, timedelta)


def _is_limit(value: Any) -> bool:
    return _is_seconds(value, 0)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_encodable(value)


def _is_integer(value: Any) -> bool:
    """Return whether a value is a whole number of 32 bits, as envelopes have them."""
    try:
        count_of(value, -LARGEST)
    except ValueError:
        return False
    return True


def _is_moment(value: Any) -> bool:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            moment.astimezone(UTC)
    except (ValueError, OverflowError):  # at the edge of the years, in another zone
        return False
    return isinstance(moment, datetime)


def is_signature(value: Any) -> bool:
    """Return whether a value is a signature: a call to make later."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("task"), str)
        and isinstance(value.get("args") or [], list | tuple)
        and isinstance(value.get("kwargs") or {}, Mapping)
        and isinstance(value.get("options") or {}, Mapping)
    )


def _are_signatures(value: Any) -> bool:
    return all(map(is_signature, listed(value) or ()))


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _has_names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


_TEXT = (_is_text, "text")
_INTEGER = (_is_integer, "an integer")
_FLAG = (lambda value: isinstance(value, bool), "True or False")
_LIMIT = (_is_limit, "seconds, zero or more")
_SIGNATURES = (_are_signatures, "a signature or a list of them")

_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "countdown": (_is_seconds, "a number of seconds"),
    "eta": (_is_moment, "a datetime or ISO 8601 text"),
    "expires": (
        lambda v: _is_seconds(v) or _is_moment(v),
        "seconds, a datetime or ISO 8601 text",
    ),
    "task_id": _TEXT,
    "root_id": _TEXT,
    "parent_id": _TEXT,
    "group_id": _TEXT,
    "group_index": _INTEGER,
    "retries": _INTEGER,
    "replaced_task_nesting": _INTEGER,
    "priority": _INTEGER,
    "time_limit": _LIMIT,
    "soft_time_limit": _LIMIT,
    "ignore_result": _FLAG,
    "shadow": _TEXT,
    "origin": _TEXT,
    "argsrepr": _TEXT,
    "kwargsrepr": _TEXT,
    "serializer": _TEXT,
    "compression": _TEXT,
    "reply_to": _TEXT,
    "headers": (_has_names, "a dict with text as names"),
    "link": _SIGNATURES,
    "link_error": _SIGNATURES,
    "chain": (
        lambda v: isinstance(v, list | tuple) and _are_signatures(v),
        "a list of signatures",
    ),
    "chord": (is_signature, "a signature"),
    "stamped_headers": (_are_names, "a list of names"),
    "delivery_mode": (
        lambda v: v in (1, 2, "transient", "persistent"),
        "1, 2, 'transient' or 'persistent'",
    ),
    "retry": _FLAG,
    "retry_policy": (_has_names, "a dict with text as names"),
}

EMBEDDED = ("link", "link_error", "chain", "chord")

# As in Celery, these three are properties as well if the caller gives them.
_PROPERTIES_TOO = {"argsrepr", "kwargsrepr", "origin"}

OWN = (_EXPECTED.keys() - _PROPERTIES_TOO) | {
    # routing
    "queue",
    "exchange",
    "exchange_type",
    "routing_key",
    # about the sending
    "add_to_parent",
    "confirm_timeout",
    "connection",
    "declare",
    "immediate",
    "mandatory",
    "producer",
    "publisher",
    "result_cls",
    "route_name",
    "router",
    "task_type",
    "timeout",
    # set by the transport
    "body_encoding",
    "correlation_id",
    "delivery_info",
    "delivery_tag",
    "expiration",
}

DELIVERY_MODES = {"transient": 1, "persistent": 2}


def listed(value: Any) -> list[Any] | None:
    """Return one value as a list of it; a list as it is, and None as None."""
    if value is None:
        return None
    return list(value) if isinstance(value, list | tuple) else [value]


_PARTS: dict[str, Any] = {
    "args": [],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}


def whole(signature: Mapping[str, Any]) -> dict[str, Any]:
    """Return a signature with all its fields: Celery's workers fail without one."""
    missing = {k: v for k, v in _PARTS.items() if signature.get(k) is None}
    return {**signature, **missing}


def moment_of(value: datetime | str | None) -> Instant | None:
    """Return a datetime or ISO text as an instant; a naive datetime is UTC."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return instant_of(value)


def kind_of(value: Any) -> str:
    return type(value).__name__
