"""Calls as messages, sent to the broker."""

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

from beatd.app.connections import Connections
from beatd.app.publishing import after_publish, before_publish, pauses
from beatd.background import do_in_halves
from beatd.brokers.items import Outgoing
from beatd.errors import BrokerUnavailable, ItemRefused
from beatd.events.sender import say_refused
from beatd.events.sent import sent_with_events
from beatd.ids import call_id
from beatd.instant import Instant
from beatd.message import Sending
from beatd.message.shape import Shape
from beatd.message.template import of_shape
from beatd.routing import Queue


class CallMessage(NamedTuple):
    """The message of a call, the queue to declare for it, and the call's options."""

    message: Outgoing
    queue: Queue
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallSender:
    """Makes messages of calls and sends them, through the connections of a process."""

    connections: Connections

    def message(
        self,
        sending: Sending,
        task_id: str,
        now: Instant,
        due: Instant | None = None,
        *,
        registered: bool,
    ) -> CallMessage:
        """Return the message of a call that is sent at `now` and due at `due`.

        `registered` says whether the task is known here.
        """
        shape, queue = self.connections.shapes.of(sending, registered=registered)
        # An id that was given may be on its way a second time: a tag never is.
        tag = new_id(now) if "task_id" in sending.options else task_id
        message = message_of(shape, sending, task_id, now, due, tag=tag)
        return CallMessage(message, queue, sending.options)

    def made_ready(
        self, sends: Sequence[Outgoing], policy: dict[str, Any] | None = None
    ) -> list[Outgoing]:
        """Return these messages as they are sent, and events of them for monitors.

        Receivers of `before_task_publish` may change the messages, and `policy`.
        """
        if policy is None:
            policy = dict(self.connections.settings.task_publish_retry_policy)
        return self._with_events(self._changed(sends, policy))

    def send(self, calls: Sequence[CallMessage]) -> None:
        """Send the messages of calls: all, or none.

        The options of the first say how often to try. Raises BrokerUnavailable when all
        tries have failed.
        """
        policy, again = self._prepare(calls)
        ready = self._changed([one.message for one in calls], policy)
        self._publish(ready, policy, again)

    def send_each(
        self,
        calls: Sequence[CallMessage],
        on_sent: Callable[[int], object],
        on_refused: Callable[[int, ItemRefused], object],
    ) -> None:
        """Send the messages of calls that the broker takes, together if it takes all.

        `on_sent` is told the place of each, `on_refused` that of each of the others,
        and why. The options of the first say how often to try. Raises BrokerUnavailable
        when all tries have failed for those of which neither is told.
        """
        policy, again = self._prepare(calls)
        ready = self._changed([one.message for one in calls], policy)

        def publish(part: Sequence[tuple[int, Outgoing]]) -> None:
            self._publish([one for _, one in part], policy, again)
            for place, _ in part:
                on_sent(place)

        do_in_halves(
            publish,
            [*enumerate(ready)],
            lambda one, refusal: on_refused(one[0], refusal),
        )

    def _prepare(self, calls: Sequence[CallMessage]) -> tuple[dict[str, Any], bool]:
        """Declare the queues; return the policy of further tries, and if there are."""
        for queue in {one.queue.name: one.queue for one in calls}.values():
            self.connections.declare(queue)
        first, settings = calls[0].options, self.connections.settings
        policy = {
            **settings.task_publish_retry_policy,
            **(first.get("retry_policy") or {}),
        }
        return policy, first.get("retry", settings.task_publish_retry)

    def _changed(
        self, sends: Sequence[Outgoing], policy: dict[str, Any]
    ) -> list[Outgoing]:
        """Return these messages as the receivers want them."""
        router = self.connections.router
        return [before_publish(one, router, policy) for one in sends]

    def _with_events(self, sends: list[Outgoing]) -> list[Outgoing]:
        factory = self.connections.event_factory if sends else None
        return sent_with_events(factory, sends) if factory else sends

    def _publish(
        self, sends: list[Outgoing], policy: Mapping[str, Any], again: bool
    ) -> None:
        """Send with the events of them, try again as the policy has it, and tell."""
        self._try(self._with_events(sends), pauses(policy) if again else ())
        for one in sends:
            after_publish(one)

    def _try(self, sends: Sequence[Outgoing], pauses: Iterable[float]) -> None:
        """Send, and try again after each of these pauses."""
        for pause in pauses:
            try:
                self._send(sends)
            except ItemRefused:
                raise  # it would be refused again
            except BrokerUnavailable:
                threading.Event().wait(pause)
            else:
                return
        self._send(sends)

    def _send(self, sends: Sequence[Outgoing]) -> None:
        """Send these once, without their events if the broker refuses those."""
        broker = self.connections.broker
        try:
            broker.send(sends)
        except ItemRefused as refusal:
            calls = [one for one in sends if not one.is_event]
            if len(calls) == len(sends):
                raise
            broker.send(calls)
            say_refused(self.connections.refused_events, refusal)


def message_of(
    shape: Shape,
    sending: Sending,
    task_id: str,
    now: Instant,
    due: Instant | None = None,
    *,
    tag: str,
) -> Outgoing:
    """Return the message of a call of this shape, sent at `now` and due at `due`.

    `tag` is the delivery tag. Raises MessageError for arguments that cannot be sent.
    """
    made = of_shape(shape, sending.args, sending.kwargs)
    return Outgoing(shape.route, made.complete(id=task_id, tag=tag, now=now), due)


_RANDOM = 9
"""Random bytes of an id."""


def new_id(now: Instant) -> str:
    """Return the id of a call that is made at this instant."""
    return call_id(now, secrets.token_bytes(_RANDOM))


class NewIds:
    """Draws ids of many calls, some hundred with one question to the system.

    Not for longer than one process lives: a copy of it would draw the same ids.
    """

    def __init__(self) -> None:
        self._drawn = BytesIO()

    def draw(self, now: Instant) -> str:
        """Return the id of a call that is made at this instant."""
        if not (random := self._drawn.read(_RANDOM)):
            self._drawn = BytesIO(secrets.token_bytes(_RANDOM * 500))
            random = self._drawn.read(_RANDOM)
        return call_id(now, random)
