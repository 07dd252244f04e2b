"""`task-sent`: the event by which monitors know of a call that is sent.

A client or a run sends the event in one step with the call. The scheduler sends it
after the emission, in a thread of its own: emission waits for no monitor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from beatd.background import Faults, Halves, Outage
from beatd.brokers.base import Sender
from beatd.brokers.items import Emission, Outgoing
from beatd.errors import BeatdError, MessageError
from beatd.event_log import EventLog
from beatd.events.event import EventFactory
from beatd.events.sender import EventSender, post_of
from beatd.message import Envelope, Limits, read_envelope
from beatd.message.codec import content_types
from beatd.message.represent import bounded_repr
from beatd.routing import Route

tell = EventLog(__name__)

OURS = Limits(content_types(["json", "yaml", "msgpack", "pickle"]))
"""All serializers are read: the messages are beatd's own."""


def sent_with_events(
    factory: EventFactory, sends: Sequence[Outgoing]
) -> list[Outgoing]:
    """Return these messages, and a `task-sent` event for each."""
    told = _events(factory, sends)
    return [*sends, *(factory.message("task.sent", event) for event in told)]


def _events(
    factory: EventFactory, sends: Sequence[Outgoing | Emission]
) -> Iterator[dict[str, Any]]:
    """Yield the event of each message; a message that cannot be read has none."""
    for one in sends:
        try:
            yield _event(factory, one)
        except MessageError as error:
            words = "monitors are not told of a call that is sent: %s"
            tell.warning("events.dropped", words, error)


def _event(factory: EventFactory, sent: Outgoing | Emission) -> dict[str, Any]:
    envelope = read_envelope(sent.message, OURS)
    fields = {
        "uuid": envelope.id,
        "root_id": envelope.root_id,
        "parent_id": envelope.parent_id,
        "name": envelope.task,
        **_arguments(envelope),
        "retries": envelope.retries,
        "eta": envelope.eta_text,
        "expires": envelope.expires_text,
        "queue": _queue(sent.route),
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
    }
    return factory.event("task-sent", fields)


def _arguments(envelope: Envelope) -> dict[str, object]:
    if envelope.decoded is None:
        return {"args": envelope.argsrepr, "kwargs": envelope.kwargsrepr}
    # Protocol 1 has no text of them.
    shown = (
        bounded_repr(envelope.decoded[name], 1024, 3) for name in ("args", "kwargs")
    )
    return dict(zip(("args", "kwargs"), shown, strict=True))


def _queue(route: Route | None) -> str | None:
    return route.queue or None if route else None


@dataclass
class TaskSentEvents:
    """Tells monitors what was emitted, in batches, without holding up the loop."""

    broker: Sender
    factory: EventFactory
    _sender: EventSender[Emission] = field(init=False)
    _thread_is_there: bool = field(default=False, init=False)
    _is_mute: bool = field(default=False, init=False)
    """Whether the thread has crashed: nothing is sent any more."""
    _full: Outage = field(init=False)
    _post: Halves[Outgoing] = field(init=False)

    def __post_init__(self) -> None:
        self._sender = EventSender(self._send)
        self._post = post_of(self.broker, Faults())
        self._full = Outage("monitors do not know all", "events.dropped")

    def emitted(self, emissions: Sequence[Emission]) -> None:
        """Have the events sent of what was put on queues."""
        if self._is_mute:
            return
        self._sender.put(emissions)
        if dropped := self._sender.take_dropped():
            self._full.meet(BeatdError(f"{dropped} events were dropped"))
        elif emissions:
            self._full.end()
        if not self._thread_is_there:
            # Not earlier: a worker's pool may still fork in this process.
            self._start()

    def close(self) -> None:
        """Send what is left, if it can be sent at once."""
        self._sender.stop()

    def turn(self) -> bool:
        """Send what lies ready in this thread; return whether there was anything."""
        return self._sender.turn()

    def _start(self) -> None:
        try:
            self._sender.start("beatd-sent", self._crashed)
        except RuntimeError as error:  # no thread is to be had
            self._crashed(error)
        else:
            self._thread_is_there = True

    def _crashed(self, error: BaseException) -> None:
        self._is_mute = True
        self._sender = EventSender(self._send)  # drops what waits
        tell.error("events.crashed", "events are sent no more", exc_info=error)

    def _send(self, batch: Sequence[Emission]) -> None:
        self._post.do(lambda: [self._message(batch)])

    def _message(self, batch: Sequence[Emission]) -> Outgoing:
        events = list(_events(self.factory, batch))
        return self.factory.message("task.multi", events)
