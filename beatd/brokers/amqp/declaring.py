"""Queues and exchanges, declared exactly as Celery declares them."""

from typing import Any

from beatd.routing import Queue


def declare(channel: Any, queue: Queue) -> None:
    """Declare a queue, its exchanges and its bindings.

    Raises py-amqp's errors: what exists with other arguments closes the channel.
    """
    if not queue.more and queue.exchange:
        _exchange(channel, queue)
    channel.queue_declare(
        queue.name,
        durable=queue.durable,
        auto_delete=queue.auto_delete,
        arguments=arguments_of(queue),
    )
    for way in queue.ways:
        if queue.more:
            _exchange(channel, way)
        if way.exchange:
            channel.queue_bind(queue.name, way.exchange, way.routing_key)


def _exchange(channel: Any, way: Queue) -> None:
    channel.exchange_declare(
        way.exchange,
        way.exchange_type,
        durable=way.exchange_durable,
        auto_delete=False,
    )


def arguments_of(queue: Queue) -> dict[str, Any]:
    """Return the arguments with which Celery declares a queue."""
    arguments = dict(queue.arguments)
    if queue.expires is not None:
        arguments["x-expires"] = int(queue.expires * 1000)
    return arguments
