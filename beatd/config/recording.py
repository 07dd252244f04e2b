"""A producer for Celery's own code, which keeps messages instead of sending them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from beatd.message.recorded import Recorded
from beatd.routing import Queue, Route, queue_of


@dataclass
class Recorder:
    """Keeps what is published through its producer, and which queues were declared.

    Everything up to the transport is kombu's own code: encoding, compression, the
    envelope. The transport of Redis would only write the envelope as JSON then.
    """

    app: Any
    body_encoding: str = "base64"
    queues: dict[str, Queue] = field(default_factory=dict, init=False)
    """Those that were declared for messages, by name."""
    _published: list[Recorded] = field(default_factory=list, init=False)
    _types: dict[str, str] = field(default_factory=dict, init=False)
    """By exchange its type, as the settings say it, or a declaration.

    Celery's beat takes an exchange for a direct one until it declares it."""
    _routes: dict[Route, Route] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.producer = _producer(self)
        for queue in self.app.amqp.queues.values():
            for way in [queue, *queue.bindings]:
                if way.exchange:
                    self._types[way.exchange.name] = way.exchange.type

    def record(self, call: Callable[[], object]) -> list[Recorded]:
        """Make a call that publishes through `producer`; return what it published."""
        self._published = []
        call()
        published, self._published = self._published, []
        return published

    def declared(self, entity: Any) -> None:
        """Note a queue or an exchange that a message is sent to."""
        exchange = getattr(entity, "exchange", entity)
        if not exchange or not exchange.name:
            return  # its messages go to the queue itself
        self._types[exchange.name] = exchange.type
        if exchange is not entity and (queue := queue_of(entity)):
            self.queues[queue.name] = queue

    def published(self, envelope: dict[str, Any], exchange: str, key: str) -> None:
        """Note a message."""
        from kombu.utils.json import dumps

        route = self._route(exchange, key, envelope["properties"]["priority"])
        self._published.append(Recorded(envelope, route, dumps))

    def _route(self, exchange: str, key: str, priority: Any) -> Route:
        """Return where a message goes; equal routes are one object."""
        try:
            level = max(min(int(priority), 9), 0)
        except (TypeError, ValueError):  # as kombu has it
            level = 0
        if exchange:
            kind = self._types.get(exchange, "direct")
            route = Route("", exchange, key, kind, level)
        else:
            route = Route(key, "", key, "direct", level)
        return self._routes.setdefault(route, route)


def _producer(recorder: Recorder) -> Any:
    """Return a producer of the app's own class on a channel of the recorder's."""
    kombu: Any = import_module("kombu")
    virtual: Any = import_module("kombu.transport.virtual")

    def basic_publish(
        channel: Any, message: Any, exchange: str, routing_key: str, **_: Any
    ) -> None:
        channel._inplace_augment_message(message, exchange, routing_key)
        recorder.published(message, exchange, routing_key)

    def publish(
        producer: Any,
        body: Any,
        *args: Any,
        declare: Any = None,
        retry: Any = None,
        retry_policy: Any = None,
        **more: Any,
    ) -> Any:
        # Declaring waits until the term begins, and there is nothing to try again.
        for entity in declare or ():
            recorder.declared(entity)
        return super(Producer, producer).publish(body, *args, **more)

    # Each message gets the tag of its slot.
    channel = {"basic_publish": basic_publish, "_next_delivery_tag": lambda _: ""}
    Channel = type("Channel", (virtual.Channel,), channel)
    Transport = type("Transport", (virtual.Transport,), {"Channel": Channel})
    Producer: Any = type(
        "Producer", (recorder.app.amqp.Producer,), {"publish": publish}
    )
    options = {"body_encoding": recorder.body_encoding}
    connection = kombu.Connection(transport=Transport, transport_options=options)
    return Producer(connection, auto_declare=False)
