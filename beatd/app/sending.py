"""Calls as messages, sent to the broker."""

import secrets
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beatd.app.connections import Connections
from beatd.app.publishing import after_publish, before_publish, pauses
from beatd.brokers.items import Outgoing
from beatd.errors import BrokerUnavailable, ItemRefused
from beatd.events.sender import say_refused
from beatd.events.sent import sent_with_events
from beatd.ids import call_id
from beatd.instant import Instant
from beatd.message import MessageFormat, Sending, template
from beatd.routing import Router


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
    ) -> Outgoing:
        """Return the message of a call that is sent at `now` and due at `due`.

        `registered` says whether the task is known here.
        """
        connections = self.connections
        return message_of(
            connections.format,
            connections.router,
            sending,
            task_id,
            now,
            due,
            registered=registered,
            tag=str(uuid.uuid4()),
        )

    def made_ready(
        self, sends: Sequence[Outgoing], policy: dict[str, Any] | None = None
    ) -> list[Outgoing]:
        """Return these messages as they are sent, and events of them for monitors.

        Receivers of `before_task_publish` may change the messages, and `policy`.
        """
        connections = self.connections
        if policy is None:
            policy = dict(connections.settings.task_publish_retry_policy)
        ready = [before_publish(one, connections.router, policy) for one in sends]
        factory = connections.event_factory if ready else None
        return sent_with_events(factory, ready) if factory else ready

    def send(self, calls: Sequence[tuple[Outgoing, Mapping[str, Any]]]) -> None:
        """Send the messages of calls, each with its call's options: all, or none.

        The options of the first say how often to try. Raises BrokerUnavailable when all
        tries have failed.
        """
        for _, options in calls:
            self.connections.declare(options)
        first = calls[0][1]
        settings = self.connections.settings
        policy = {
            **settings.task_publish_retry_policy,
            **(first.get("retry_policy") or {}),
        }
        again = first.get("retry", settings.task_publish_retry)
        ready = self.made_ready([message for message, _ in calls], policy)
        self._publish(ready, pauses(policy) if again else ())
        for message in ready:
            if not message.is_event:
                after_publish(message)

    def _publish(self, sends: Sequence[Outgoing], pauses: Iterable[float]) -> None:
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
    format: MessageFormat,
    router: Router,
    sending: Sending,
    task_id: str,
    now: Instant,
    due: Instant | None = None,
    *,
    registered: bool,
    tag: str,
) -> Outgoing:
    """Return the message of a call that is sent at `now` and due at `due`.

    `registered` says whether the task is known here, `tag` is the delivery tag.
    """
    name, args, kwargs, options = sending
    options, route = router.routed(name, options, args, kwargs)
    made = template(format, route, name, args, kwargs, options, registered=registered)
    return Outgoing(route, made.complete(id=task_id, tag=tag, now=now), due)


def new_id(now: Instant) -> str:
    """Return the id of a call that is made at this instant."""
    return call_id(now, secrets.token_bytes(10))
