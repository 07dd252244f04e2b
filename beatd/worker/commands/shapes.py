"""How remote control shows what a worker has: in Celery's forms."""

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from beatd.config.settings import (
    Settings,
    addresses_in,
    is_secret,
    mask,
    mask_url,
    table,
)
from beatd.errors import MessageError
from beatd.instant import SECOND
from beatd.message import Envelope, Limits, read_body
from beatd.message.codec import content_types
from beatd.pools.base import Pool
from beatd.results.exceptions import repr_of
from beatd.routing import Queue
from beatd.worker.in_flight import InFlight

LARGEST_BODY = 100_000
"""Bytes of the largest body that is decoded only to show its arguments."""

LARGEST_ANSWER = 1_000_000
"""Bytes of all bodies that are decoded for one answer."""

LONGEST_WRITTEN = 10_000
"""Characters that are shown of arguments as their sender wrote them."""

_TREES = content_types(["json", "msgpack"])
"""Pickle is not among them: it would run foreign code. Nor is YAML: a few lines can
stand for more than any memory holds, when they are written out in an answer."""


class Excerpts:
    """Shows the arguments of the calls in one answer.

    Only what the worker would decode is decoded, and no more than an answer may hold;
    other arguments are shown as their sender wrote them.
    """

    def __init__(self, settings: Settings) -> None:
        self._accept = content_types(settings.accept_content) & _TREES
        self._left = LARGEST_ANSWER

    def of(self, envelope: Envelope, *, safe: bool) -> tuple[object, object]:
        """Return args and kwargs; `safe`: as they were written in any case."""
        written = (
            envelope.argsrepr[:LONGEST_WRITTEN],
            envelope.kwargsrepr[:LONGEST_WRITTEN],
        )
        # Nobody knows what a compressed body grows to.
        size = LARGEST_BODY if envelope.compression else len(envelope.body)
        was_decoded_whole = envelope.decoded is not None and envelope.compression
        if safe or size > min(self._left, LARGEST_BODY) or was_decoded_whole:
            return written
        if envelope.content_type not in self._accept:
            return written
        self._left -= size
        try:
            call = read_body(envelope, Limits(self._accept, LARGEST_BODY))
        except MessageError:
            return written
        return call.args, call.kwargs


def ok(text: str) -> dict[str, str]:
    """Return the answer that all went well."""
    return {"ok": text}


def no(text: str) -> dict[str, str]:
    """Return the answer that something cannot be done."""
    return {"error": text}


def ids_in(value: object) -> list[str]:
    """Return the texts in a list, or one text as a list; leave out what is no text."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [one for one in listed if isinstance(one, str)]


def run_of(
    hostname: str, run: InFlight, excerpts: Excerpts, *, safe: bool = False
) -> dict[str, object]:
    """Return a run that is in flight; `safe`: its arguments as they were written."""
    return {
        **request_of(hostname, run.envelope, excerpts, safe=safe),
        "time_start": None if run.began is None else run.began / SECOND,
        "acknowledged": run.acknowledged,
        "worker_pid": run.pid,
    }


def request_of(
    hostname: str, envelope: Envelope, excerpts: Excerpts, *, safe: bool = False
) -> dict[str, object]:
    """Return a call that no worker has begun to run."""
    args, kwargs = excerpts.of(envelope, safe=safe)
    return {
        "id": envelope.id,
        "name": envelope.name,
        "args": args,
        "kwargs": kwargs,
        "type": envelope.task,
        "hostname": hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": _delivery(envelope),
        "worker_pid": None,
    }


def _delivery(envelope: Envelope) -> dict[str, object]:
    return {
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
        "priority": envelope.priority,
        "redelivered": envelope.redelivered,
    }


def queue_of(queue: Queue) -> dict[str, object]:
    """Return a queue in kombu's form."""
    return {
        "name": queue.name,
        "exchange": {
            "name": queue.exchange,
            "type": queue.exchange_type,
            "arguments": None,
            "durable": True,
            "passive": False,
            "auto_delete": False,
            "delivery_mode": None,
            "no_declare": False,
        },
        "routing_key": queue.routing_key,
        "queue_arguments": None,
        "binding_arguments": None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": queue.expires,
        "message_ttl": None,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": None,
    }


def pool_of(pool: Pool, runs: int, settings: Settings) -> dict[str, object]:
    """Return a pool, and how many runs have begun in it, in billiard's form."""
    kind = type(pool)
    limits = settings.task_soft_time_limit, settings.task_time_limit
    return {
        "implementation": f"{kind.__module__}:{kind.__qualname__}",
        "max-concurrency": pool.size,
        "processes": pool.processes(),
        "max-tasks-per-child": settings.worker_max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [limit or 0 for limit in limits],
        "writes": {"total": runs, "strategy": "fair"},
    }


def broker_of(settings: Settings) -> dict[str, object]:
    """Return the address that a worker reads from, in kombu's form."""
    first, *others = addresses_in(settings.read_urls[0])
    url = urlsplit(first)
    at_sentinels = url.scheme == "sentinel"
    return {
        "hostname": url.hostname,
        "userid": url.username,
        "virtual_host": unquote(url.path.lstrip("/")) or "0",
        "port": url.port or (26379 if at_sentinels else 6379),
        "insist": False,
        "ssl": bool(settings.broker_use_ssl) or url.scheme == "rediss",
        "transport": "sentinel" if at_sentinels else "redis",
        "connect_timeout": settings.broker_transport_options.get(
            "socket_connect_timeout", 3
        ),
        "transport_options": _plain("", settings.broker_transport_options),
        "login_method": None,
        "uri_prefix": None,
        "heartbeat": 0,
        "failover_strategy": _plain("", settings.broker_failover_strategy)
        or "round-robin",
        "alternates": [*map(mask_url, (*others, *settings.read_urls[1:]))],
        "credential_provider": None,
    }


_KEY = re.compile(r"(?<![a-z])(api|key)s?(?![a-z])", re.IGNORECASE)
"""Words in the names of options that Celery hides, beside those of `is_secret`."""

_ALERTS = ("alerts", "beat_alerts")
"""What has addresses and words of commands, which tell people: any may be secret."""


def settings_of(settings: Settings, names: Collection[str]) -> dict[str, object]:
    """Return the settings of these names, in the table's order; no secrets."""
    return {
        name: _plain(name, getattr(settings, name)) for name in table() if name in names
    }


def _plain(name: str, value: object) -> Any:
    """Return a setting as JSON can carry it, without what could be secret."""
    if value is None or isinstance(value, bool):
        return value
    is_hidden = is_secret(name) or _seems_secret(name) or name in _ALERTS
    if isinstance(value, Mapping):
        above = name if is_hidden else ""
        return {str(key): _plain(above or str(key), one) for key, one in value.items()}
    if is_hidden:
        return "********"
    if name.startswith("broker_") and isinstance(value, tuple):
        return mask_url(";".join(value))  # addresses, as Celery writes them
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, part) for part in value]
    if isinstance(value, int | float):
        return value
    return mask(value) if isinstance(value, str) else mask(repr_of(value))


def _seems_secret(name: str) -> bool:
    # A name of beatd's own, such as `result_key_prefix`, is none of these.
    return name not in table() and _KEY.search(name) is not None
