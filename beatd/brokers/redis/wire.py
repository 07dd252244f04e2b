"""Celery's names for queues, bindings and channels, under this broker's options."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from beatd.instant import HOUR, Instant, span_of
from beatd.routing import (
    PRIORITY_STEPS,
    SEPARATOR,
    Queue,
    Route,
    binding_of,
    bound_queues,
    fanout_channel,
    list_key,
    step_of,
    steps_of,
)


@dataclass(frozen=True)
class WireNames:
    """The options of kombu's transport that decide about names."""

    db: int
    prefix: str = ""
    separator: str = SEPARATOR
    steps: tuple[int, ...] = PRIORITY_STEPS
    fanout_prefix: bool | str = True
    fanout_patterns: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any], db: int) -> "WireNames":
        """Read `broker_transport_options`. Raises ConfigError."""
        return cls(
            db,
            options.get("global_keyprefix") or "",
            options.get("sep") or SEPARATOR,
            steps_of(options),
            options.get("fanout_prefix", True),
            options.get("fanout_patterns", True),
        )

    def lists(self, queues: Iterable[str]) -> dict[str, str]:
        """Return the lists of these queues, in the order to empty them.

        Each has the name of its queue.
        """
        names = list(queues)
        return {self._list(name, step): name for step in self.steps for name in names}

    def list_of(self, queue: str, priority: int) -> str:
        """Return the name of the list for a message of this priority."""
        return self._list(queue, step_of(priority, self.steps))

    def channel(self, route: Route) -> str:
        """Return the name of a fan-out exchange's channel."""
        name = fanout_channel(
            route.exchange,
            route.routing_key,
            self.db,
            self.fanout_prefix,
            self.fanout_patterns,
        )
        return self.prefix + name

    def bindings(self, exchange: str) -> str:
        """Return the name of the set of an exchange's bindings."""
        return f"{self.prefix}_kombu.binding.{exchange}"

    def binding(self, queue: Queue, now: Instant) -> list[tuple[Any, ...]]:
        """Return the commands that bind the queue to its exchanges."""
        return [one for way in queue.ways for one in self._binding(way, now)]

    def _binding(self, queue: Queue, now: Instant) -> list[tuple[Any, ...]]:
        member = binding_of(queue).member(self.separator)
        bind = ("SADD", self.bindings(queue.exchange), member)
        if queue.expires is None:
            permanent = f"{self.prefix}_kombu.binding_permanent.{queue.exchange}"
            return [bind, ("SADD", permanent, member)]
        # kombu's own rule: twice the queue's life, and an hour at least.
        ends = now + max(2 * span_of(queue.expires), HOUR)
        deadlines = f"{self.prefix}_kombu.binding_deadlines"
        return [bind, ("ZADD", deadlines, "GT", ends, queue.exchange)]

    def unbinding(self, queue: Queue) -> list[tuple[Any, ...]]:
        """Return the commands that undo `binding`, and drop the queue's messages."""
        member = binding_of(queue).member(self.separator)
        return [
            ("SREM", self.bindings(queue.exchange), member),
            ("DEL", *self.lists([queue.name])),
        ]

    def bound(self, route: Route, members: Iterable[bytes]) -> list[str]:
        """Return the queues that a message reaches through these bindings."""
        texts = (member.decode(errors="replace") for member in members)
        return bound_queues(
            texts, route.exchange_type, route.routing_key, self.separator
        )

    def _list(self, queue: str, step: int) -> str:
        return self.prefix + list_key(queue, step, self.separator)
