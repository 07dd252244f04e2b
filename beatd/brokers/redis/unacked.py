"""What Celery's workers hold: kombu keeps it in a hash, and who holds it may be dead.

Any of Celery's workers puts back what was taken longer ago than `visibility_timeout`,
whoever took it, one worker at a time. So does beatd, by the same keys and mutex.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from itertools import islice
from typing import Any

from beatd.bounds import seconds_of
from beatd.brokers.redis.failover import is_about_a_key
from beatd.brokers.redis.wire import WireNames
from beatd.clock import Clock
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError, MessageError
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.routing import Route
from beatd.text import quoted

tell = EventLog(__name__)

PAGE = 100
"""How many rows are looked up with one request."""

MOST = 1_000
"""How many messages are put back in one go: a worker that is to stop waits for it."""

SHORTEST_INTERVAL: Span = SECOND // 10


class Unacked:
    """Puts back what Celery's workers have held for too long."""

    def __init__(
        self,
        ask: Callable[..., Any],
        run: Callable[[str, Sequence[str], Sequence[Any]], Any],
        wire: Callable[[], WireNames],
        options: Mapping[str, Any],
        clock: Clock,
    ) -> None:
        """`options` are kombu's. Raises ConfigError."""
        self._ask = ask
        self._run = run
        self._wire = wire
        self._clock = clock
        self._names = {
            name: str(options.get(f"{name}_key") or name)
            for name in ("unacked", "unacked_index", "unacked_mutex")
        }
        self._visible_after = _seconds(options, "visibility_timeout", 3600)
        self._mutex_expires = _seconds(options, "unacked_mutex_expire", 300)
        every = _seconds(options, "unacked_restore_interval", 10)
        every *= _seconds(options, "unacked_restore_throttle", 10) or 1
        self.interval: Span = max(round(every * SECOND), SHORTEST_INTERVAL)
        self._told: set[bytes] = set()

    @property
    def keys(self) -> list[str]:
        """The keys of what Celery's workers hold."""
        return [self._key(name) for name in self._names]

    def restore(self) -> int:
        """Put back what was held for too long; return the number of messages.

        Returns 0 while another worker does it.
        """
        mutex, token = self._key("unacked_mutex"), secrets.token_hex(16)
        life = max(round(self._mutex_expires * SECOND), 1)
        if not self._ask("SET", mutex, token, "NX", "PX", life):
            return 0
        try:
            restored = filter(None, self._restore_all())
            return sum(islice(restored, MOST))
        finally:
            with suppress(BrokerUnavailable):  # it expires by itself
                self._run("release", [mutex], [token])

    def _restore_all(self) -> Iterator[bool]:
        """Look at each row that is old enough; yield whether it was put back."""
        seconds, _ = self._ask("TIME")
        # A clock that is ahead must not take from a worker what it has just begun.
        now = min(int(seconds), self._clock.now() / SECOND)
        latest, left = repr(now - self._visible_after), 0
        index = self._key("unacked_index")
        while tags := self._ask(
            *("ZREVRANGEBYSCORE", index, latest, "-inf", "LIMIT", left, PAGE)
        ):
            for tag in tags:
                row = self._restore(tag, latest)
                left += row is _Row.LEFT
                yield row is _Row.RESTORED

    def _restore(self, tag: bytes, latest: str) -> "_Row":
        row = self._ask("HGET", self._key("unacked"), tag)
        if row is None:  # acknowledged, or there is no message to the tag at all
            self._ask("ZREM", self._key("unacked_index"), tag)
            return _Row.GONE
        try:
            message, places = self._read(row)
            keys = [self._key("unacked"), self._key("unacked_index"), *places]
            return _Row(self._run("unacked", keys, [tag, row, latest, message]))
        except MessageError as error:
            self._say_left(tag, str(error))
        except BrokerRefused as refusal:
            if not is_about_a_key(refusal):
                raise
            self._say_left(tag, str(refusal))
        return _Row.LEFT

    def _read(self, row: bytes) -> tuple[bytes, list[str]]:
        """Return the message, marked as redelivered, and the lists that it goes to."""
        try:
            held = json.loads(row)
        except (ValueError, RecursionError):
            held = None
        match held:
            case [dict(message), str() | None as exchange, str() | None as key]:
                pass
            case _:
                raise MessageError("expected JSON of a message, exchange, routing key")
        properties = _marked(message)
        priority = properties.get("priority")
        queues = self._queues(exchange or "", key or "")
        if not queues:
            to = f"exchange {quoted(exchange)} under {quoted(key)}"
            raise MessageError(f"no queue is bound to {to}")
        step = priority if isinstance(priority, int) else 0
        return json.dumps(message).encode(), [
            self._wire().list_of(queue, step) for queue in queues
        ]

    def _queues(self, exchange: str, key: str) -> list[str]:
        if not exchange:
            return [key] if key else []
        members = self._ask("SMEMBERS", self._wire().bindings(exchange))
        kinds = ("direct", "topic")  # the row does not say what kind of exchange it is
        routes = [Route("", exchange, key, kind) for kind in kinds]
        return next(filter(None, (self._wire().bound(r, members) for r in routes)), [])

    def _key(self, name: str) -> str:
        return self._wire().prefix + self._names[name]

    def _say_left(self, tag: bytes, reason: str) -> None:
        if tag not in self._told:
            self._told.add(tag)
            tell.error(
                "unacked.left",
                "what a worker of Celery's held under the tag %r in %s cannot be put"
                " back, and is left there: %s",
                tag,
                self._key("unacked"),
                reason,
            )


class _Row(Enum):
    """What became of a row that was old enough; the numbers are the script's."""

    GONE = 0  # no longer among them
    RESTORED = 1  # nor is this
    LEFT = 2


def _marked(message: dict[str, Any]) -> Mapping[str, Any]:
    """Mark a message as redelivered, where kombu does; return its properties."""
    properties = message.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    for part in (message.get("headers"), properties.get("delivery_info")):
        if isinstance(part, dict):
            part["redelivered"] = True
    return properties


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    given = options.get(name)
    try:
        return seconds_of(default if given is None else given)
    except ValueError as error:
        raise ConfigError("broker_transport_options", [f"{name}: {error}"]) from None
