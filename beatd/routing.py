"""Where a message goes: queues, exchanges, priorities, and Celery's routing rules."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """A declared queue and the binding by which its exchange reaches it.

    `exchange_type` is direct, topic or fanout. An empty exchange is named after the
    queue, an empty routing key too (Celery: `task_queues`, kombu's defaults).
    """

    name: str
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    expires: float | None = None
    """Seconds without use after which the broker may delete it (`x-expires`)."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one message goes.

    With a `queue`, to that queue. Without one, to every queue that is bound to
    `exchange` under `routing_key`. `exchange` and `routing_key` are also what the
    message's delivery_info says.
    """

    queue: str
    exchange: str = ""
    routing_key: str = ""
    exchange_type: str = "direct"
    priority: int = 0
