"""The kinds of values that settings take, and how each is checked.

A kind has two names: one for the object that checks it (`SECONDS`, also for the fields
of an entry), and one for the annotation of a row (`Seconds`), which tells mypy the type
of the checked value.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from beatd.bounds import LARGEST, TooLarge, count_of, rate_of, seconds_of
from beatd.config.settings.problems import did_you_mean
from beatd.config.settings.secrets import (
    ENCODE,
    addresses_in,
    is_unreadable,
    mask_url,
    safe_value,
)
from beatd.errors import ScheduleError
from beatd.schedules.zones import zone_of
from beatd.text import escaped, is_encodable

T = TypeVar("T")


class Unfit(ValueError):
    """A value that a setting does not take."""

    def __init__(self, reason: str = "", hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """Why the value is not taken, beyond the words for what was expected."""
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Kind:
    """What values a setting takes: in words, and as a function that reads them."""

    words: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()
    """The values, where they can be counted, as the command line spells them."""

    def take(self, value: object) -> Any:
        """Return the value as beatd uses it; an Unfit always has its reason."""
        try:
            return self.read(value)
        except Unfit as error:
            if error.reason:
                raise
            raise Unfit(f"expected {self.words}, got {safe_value('', value)}") from None
        except Exception as error:  # foreign code: the value is the user's object
            raise Unfit(f"reading it raised {type(error).__name__}") from error


def _flag(value: object) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise Unfit


_NO_LIMIT = range(LARGEST + 1, 2**63)
"""Whole numbers that people write for "no limit", `sys.maxsize` among them."""


def _whole(least: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is int and value in _NO_LIMIT:
            return LARGEST
        return _within_bounds(count_of, value, least)

    return read


def _number(value: object) -> float:
    """Return a number; one that is infinite says that there is no limit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit
    if type(value) is int and value in _NO_LIMIT:
        return math.inf
    if not 0 <= value <= LARGEST and value != math.inf:  # also refuses NaN
        raise Unfit
    return value


def _rate(value: object) -> object:
    try:
        rate_of(value)
    except ValueError:
        raise Unfit from None
    return value


def _seconds(value: object) -> float:
    return _within_bounds(seconds_of, value, 0)


def _within_bounds(read: Callable[[object, int], T], value: object, least: int) -> T:
    """Return what `read` makes of a value; the words of the kind say what it takes."""
    try:
        return read(value, least)
    except TooLarge as error:
        raise Unfit(str(error)) from None
    except ValueError:
        raise Unfit from None


def _some_seconds(value: object) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise Unfit
    return seconds


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit
    if not is_encodable(value):
        raise Unfit("expected Unicode text, got one with a lone surrogate")
    return value


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list | tuple | set | frozenset):
        raise Unfit
    for item in value:
        _text(item)
    return tuple(sorted(value) if isinstance(value, set | frozenset) else value)


def _options(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Unfit
    return dict(value)


def _mapping(value: object) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Unfit
    return dict(value)


def _annotations(value: object) -> object:
    """Return annotations of tasks; `app.annotations` checks them with the tasks."""
    for one in value if isinstance(value, list | tuple) else [value]:
        is_table = isinstance(one, Mapping) and all(
            isinstance(row, Mapping) for row in one.values()
        )
        asked = (hasattr(one, "annotate"), hasattr(one, "annotate_any"))
        if not (is_table or isinstance(one, str) or any(asked)):
            raise Unfit
    return value


def _zone(value: object) -> str:
    """Return the name of a zone, given by name or as a zone object that has one."""
    name = str(value) if isinstance(value, tzinfo) else _text(value)
    try:
        return zone_of(name).key
    except ScheduleError as error:
        reason, _, hint = error.problem.partition("; ")
        raise Unfit(reason, hint) from None


def _urls(value: object) -> tuple[str, ...]:
    """Return addresses, from one, several with `;` between them, or a list."""
    listed = value.split(";") if isinstance(value, str) else _words(value)
    if any("@" in url and "://" not in url for url in listed[1:]):
        raise _unencoded()  # a `;` in a password: no part of it is shown
    urls = tuple(_url(url.strip()) for url in listed if url.strip())
    if not urls:
        raise Unfit
    sentinels = [url.startswith("sentinel://") for url in urls]
    if any(sentinels) and not all(sentinels):
        raise Unfit("beside sentinels there can only be sentinels")
    # Together they name one server.
    return (";".join(urls),) if all(sentinels) else urls


def _url(url: str) -> str:
    if url in SCHEMES:  # Celery takes the bare name of a transport
        return f"{url}://"
    scheme, separator, _ = url.partition("://")
    if not separator:
        shown = escaped(mask_url(url))
        raise Unfit(f"'{shown}' has no scheme", f"write redis://{shown}")
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme, SCHEMES) or "beatd knows " + ", ".join(_OURS)
        raise Unfit(f"no broker for the scheme {scheme!r}", hint)
    _readable(url)
    try:
        urlsplit(url).port  # noqa: B018  (reading it checks it)
    except ValueError:
        shown = escaped(mask_url(url))
        raise Unfit(f"the port in '{shown}' is not a number up to 65535") from None
    return url


def is_web_address(url: str) -> bool:
    """Return whether a request over HTTP can go to an address as it is written."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets, or a port that is no number
        return False
    return bool(known) and url.isascii() and url.isprintable() and " " not in url


def _readable(value: object) -> str:
    """Return an address of which it can be told where it has its password."""
    url = _text(value).strip()
    if any(map(is_unreadable, addresses_in(url))):
        raise _unencoded()
    if not url.isprintable():
        shown = escaped(mask_url(url))
        raise Unfit(f"'{shown}' has a control character, or another that is not shown")
    return url


def _unencoded() -> Unfit:
    return Unfit("its password has a character that has to be encoded", ENCODE)


_OURS = (
    *("redis", "rediss", "redis+socket", "unix", "sentinel"),
    *("amqp", "amqps", "pyamqp", "sqlite", "memory"),
)
SCHEMES = (
    *_OURS,
    *("librabbitmq", "sqs", "SQS", "mongodb", "zookeeper"),
    *("consul", "etcd", "filesystem", "pyro", "confluentkafka", "gcpubsub", "qpid"),
    *("azureservicebus", "azurestoragequeues", "SLMQ", "hazelcast"),
)
"""Broker addresses: ours first, then those of kombu's transports."""


def _scheduler(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit
    if value.replace(":", ".") in _OUR_SCHEDULERS:
        return value
    known = (way for word, way in _OTHER_SCHEDULERS.items() if word in value)
    way_out = next(known, "remove this setting")
    reason = f"beatd is itself the scheduler, not {value!r}"
    raise Unfit(reason, f"{way_out}; or leave it, and start with --scheduler beatd")


_OUR_SCHEDULERS = {
    "celery.beat.PersistentScheduler",
    "celery.beat.Scheduler",
    "beatd",
}
_OTHER_SCHEDULERS = {
    "redbeat": "remove it: with a redis:// broker beatd keeps its ledger in Redis and"
    " any number of schedulers may run; entries that were added to RedBeat at run time"
    " go into beat_schedule, see beatd import redbeat --help",
    "django_celery_beat": "entries in Django's database are not read: they go into"
    " beat_schedule, see beatd import django-celery-beat --help",
}


def _pool(value: object) -> str:
    pool = {"processes": "prefork"}.get(str(value), value)
    if pool not in _POOLS:
        hint = did_you_mean(str(value), _POOLS) or f"one of {', '.join(_POOLS)}"
        raise Unfit(f"no pool named {value!r}", hint)
    return str(pool)


_POOLS = ("prefork", "threads", "solo", "asyncio", "gevent", "eventlet")


def _serializer(value: object) -> str:
    if value not in _SERIALIZERS:
        hint = did_you_mean(str(value), _SERIALIZERS)
        hint = hint or f"one of {', '.join(_SERIALIZERS)}"
        raise Unfit(f"no serializer named {value!r}", hint)
    return str(value)


_SERIALIZERS = ("json", "pickle", "yaml", "msgpack")


def _one_of(*choices: object) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value not in choices:
            raise Unfit
        return value

    return read


def _strategy(value: object) -> object:
    if not callable(value) and value not in _STRATEGIES:
        raise Unfit
    return value


_STRATEGIES = ("round-robin", "shuffle")


BUILTIN_TASKS = ("beatd.run", "beatd.http")
"""Tasks that a worker has if it is told to."""


def _builtin_tasks(value: object) -> tuple[str, ...]:
    names = _words(value)
    for name in names:
        if name not in BUILTIN_TASKS:
            hint = did_you_mean(name, BUILTIN_TASKS)
            hint = hint or f"one of {', '.join(BUILTIN_TASKS)}"
            raise Unfit(f"no built-in task named {name!r}", hint)
    return names


FLAG = Kind("True or False", _flag)
COUNT = Kind("a whole number from 0 up", _whole(0))
POSITIVE = Kind("a whole number from 1 up", _whole(1))
NUMBER = Kind("a number from 0 up", _number)
RATE = Kind("a rate such as 10/m, or a number", _rate)
SECONDS = Kind("seconds (a number or a timedelta)", _seconds)
SOME_SECONDS = Kind("more than 0 seconds", _some_seconds)
TEXT = Kind("text", _text)
OPTIONS = Kind("a dict", _options)
ZONE = Kind("the name of a time zone", _zone)
SERIALIZER = Kind("the name of a serializer", _serializer)
START_METHOD = Kind("'fork' or 'spawn'", _one_of("fork", "spawn"), ("fork", "spawn"))
OVERLAP = Kind("'allow', 'skip' or 'queue_one'", _one_of("allow", "skip", "queue_one"))
DELIVERY_MODE = Kind(
    "2, 1, 'persistent' or 'transient'", _one_of(2, 1, "persistent", "transient")
)

FAILOVER = Kind("'round-robin', 'shuffle' or a callable", _strategy)

Flag: TypeAlias = Annotated[bool, FLAG]
Count: TypeAlias = Annotated[int, COUNT]
Positive: TypeAlias = Annotated[int, POSITIVE]
Index: TypeAlias = Annotated[int, Kind("a whole number from -1 up", _whole(-1))]
Number: TypeAlias = Annotated[float, NUMBER]
Rate: TypeAlias = Annotated[str | float, RATE]
Seconds: TypeAlias = Annotated[float, SECONDS]
SomeSeconds: TypeAlias = Annotated[float, SOME_SECONDS]
Text: TypeAlias = Annotated[str, TEXT]
Url: TypeAlias = Annotated[str, Kind("text", _readable)]
Texts: TypeAlias = Annotated[tuple[str, ...], Kind("a list of texts", _words)]
BuiltinTasks: TypeAlias = Annotated[
    tuple[str, ...], Kind("a list of names of built-in tasks", _builtin_tasks)
]
Options: TypeAlias = Annotated[dict[str, Any], OPTIONS]
Schedule: TypeAlias = Annotated[
    dict[Any, Any], Kind("a dict of entries by name", _mapping)
]
Annotations: TypeAlias = Annotated[
    Any, Kind("dicts of attributes by task name", _annotations)
]
Zone: TypeAlias = Annotated[str, ZONE]
Urls: TypeAlias = Annotated[tuple[str, ...], Kind("an address or a list", _urls)]
Scheduler: TypeAlias = Annotated[
    str, Kind("celery.beat:PersistentScheduler", _scheduler)
]
Pool: TypeAlias = Annotated[
    str, Kind("the name of a pool", _pool, (*_POOLS, "processes"))
]
Serializer: TypeAlias = Annotated[str, SERIALIZER]
StartMethod: TypeAlias = Annotated[str, START_METHOD]
Overlap: TypeAlias = Annotated[str, OVERLAP]
LostWrites: TypeAlias = Annotated[
    str, Kind("'keep' or 'resend'", _one_of("keep", "resend"))
]
ExchangeType: TypeAlias = Annotated[
    str, Kind("'direct', 'topic' or 'fanout'", _one_of("direct", "topic", "fanout"))
]
QueueType: TypeAlias = Annotated[
    str, Kind("'classic' or 'quorum'", _one_of("classic", "quorum"))
]
Protocol: TypeAlias = Annotated[int, Kind("2 or 1", _one_of(2, 1))]
Auto: TypeAlias = Annotated[str, Kind("'auto'", _one_of("auto"), ("auto",))]
Failover: TypeAlias = Annotated[str | Callable[[list[str]], Iterable[str]], FAILOVER]
DeliveryMode: TypeAlias = Annotated[int | str, DELIVERY_MODE]
Anything: TypeAlias = Annotated[Any, Kind("anything", lambda value: value)]
