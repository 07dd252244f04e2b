"""The events of one process, and their messages, in the form that monitors read."""

import os
import uuid
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from beatd.brokers.items import Outgoing
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.events.lamport import LamportClock
from beatd.events.zone import machine_zone
from beatd.instant import SECOND, Instant, datetime_of
from beatd.message import Notice, write_notice
from beatd.routing import Route


@dataclass
class EventFactory:
    """Makes the events of one process, and the messages that carry them."""

    node: str
    """The name for monitors: `celery@host` of a worker, else `gen<pid>@host`."""
    settings: Settings
    lamport: LamportClock = field(default_factory=LamportClock)
    clock: Clock = field(default_factory=SystemClock)
    zone: tzinfo = field(default_factory=machine_zone)
    """The zone of this machine, whatever the settings say.

    Monitors misread the times of a worker in another zone than theirs, and would count
    it as dead.
    """

    def event(self, kind: str, fields: dict[str, object]) -> dict[str, Any]:
        """Return an event of this kind (`task-started`, say) that happens now."""
        now = self.clock.now()
        return {
            "hostname": self.node,
            "utcoffset": self._utcoffset(now),
            "pid": os.getpid(),
            "clock": self.lamport.forward(),
            **fields,
            "timestamp": now / SECOND,
            "type": kind,
        }

    def message(self, key: str, body: object) -> Outgoing:
        """Return the message of an event, or of a list of them."""
        route = Route("", self.settings.event_exchange, key, "fanout")
        notice = Notice({"hostname": self.node}, body)
        serializer = self.settings.event_serializer
        tag = str(uuid.uuid4())
        message = write_notice(notice, route, tag=tag, serializer=serializer)
        return Outgoing(route, message, is_event=True)

    def _utcoffset(self, now: Instant) -> float:
        """Return how far UTC is from the machine's local time, in hours."""
        offset = datetime_of(now, self.zone).utcoffset()
        return -offset.total_seconds() / 3600 if offset else 0.0
