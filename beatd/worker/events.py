"""Events for monitors: what becomes of tasks, and that the worker is alive.

The loop only puts them into a queue; a thread sends them (events/sender.py).
"""

import itertools
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from beatd.background import Faults, OnCrash, Outage, Service
from beatd.brokers.base import Sender
from beatd.brokers.items import Outgoing
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.event_log import EventLog
from beatd.events.event import EventFactory
from beatd.events.lamport import LamportClock
from beatd.events.sender import MOST, EventSender, post_of
from beatd.instant import Span, span_of
from beatd.message import Envelope
from beatd.text import counted
from beatd.version import __version__

tell = EventLog(__name__)

LINGER: Span = 50
"""How long the first event waits for others to go with it."""

SOFTWARE = {
    "sw_ident": "beatd",
    "sw_ver": __version__,
    "sw_sys": platform.system(),
}


class Load(NamedTuple):
    """How much a worker does: the numbers in its heartbeats."""

    active: int
    """How many runs go on at this moment."""
    processed: int
    """How many runs have begun since the start."""


@dataclass
class WorkerEvents:
    """Sends events as Celery's workers do.

    Worker events come one by one, task events in lists on `task.multi`.
    """

    broker: Sender
    node: str
    settings: Settings
    lamport: LamportClock
    clock: Clock = field(default_factory=SystemClock)
    machine_zone: tzinfo = UTC
    interval: float | None = 2.0
    """Seconds between heartbeats; None: no events of the worker."""
    enabled: bool = False
    """Whether events of tasks are sent, too."""
    away: Outage | None = None
    """That of the broker as a whole."""

    def __post_init__(self) -> None:
        self._announced: dict[str, int] = {}
        self._load: Callable[[], Load] = lambda: Load(0, 0)
        self._factory = EventFactory(
            self.node, self.settings, self.lamport, self.clock, self.machine_zone
        )
        self._sender = EventSender(self._send, LINGER, self.away)
        self._post = post_of(self.broker, Faults(self.clock))
        self._heartbeats = Service(self._beat)

    # From the worker's loop

    def task(self, event: str, envelope: Envelope, **fields: object) -> None:
        """Have an event of a task sent: `succeeded` with its fields, for example."""
        if not self.enabled:
            return
        if event == "received":
            if self._announced.pop(envelope.id, None) == envelope.retries:
                return  # this was sent when the task began to wait for its time
            fields = _received(envelope)
        elif event == "delayed":
            # The task comes back when it is due, perhaps to another worker.
            self._announce(envelope)
            event, fields = "received", _received(envelope)
        self._put(f"task-{event}", {"uuid": envelope.id, **fields})

    def heartbeat(self) -> None:
        """Have a heartbeat sent now."""
        self._put_worker("worker-heartbeat", self.interval or 5.0)

    # Beside it

    def start(self, load: Callable[[], Load], on_crash: OnCrash) -> None:
        """Begin to send events, in threads; these call `load`, too."""
        self._load = load
        self._sender.start("beatd-events", on_crash)
        if self.interval is not None:
            self._put_worker("worker-online", self.interval)
            self._heartbeats.start("beatd-heartbeat", on_crash, rest=self._beat_rest)

    def stop(self) -> None:
        """Send that the worker ends, and what is left, if it can be sent at once."""
        self._heartbeats.stop()
        if self.interval is not None:
            self._put_worker("worker-offline", self.interval)
        self._sender.stop()

    def turn(self) -> bool:
        """Send what lies ready in this thread; return whether there was anything.

        Raises BrokerUnavailable; the same is sent again the next time.
        """
        return self._sender.turn()

    def _beat(self) -> Span:
        self.heartbeat()
        return self._beat_rest

    @property
    def _beat_rest(self) -> Span:
        return max(span_of(self.interval or 0), LINGER)

    def _send(self, events: Sequence[dict[str, Any]]) -> None:
        self._post.do(lambda: list(self._messages(events)))
        if dropped := self._sender.take_dropped():
            tell.warning(
                "events.dropped",
                "dropped %s: monitors do not know all",
                counted(dropped, "event"),
            )

    # Their form

    def _put_worker(self, kind: str, interval: float) -> None:
        load = self._load()
        fields = {
            "freq": interval,
            "active": load.active,
            "processed": load.processed,
            "loadavg": [round(number, 2) for number in os.getloadavg()],
            **SOFTWARE,
        }
        self._put(kind, fields)

    def _put(self, kind: str, fields: dict[str, object]) -> None:
        self._sender.put([self._factory.event(kind, fields)])

    def _announce(self, envelope: Envelope) -> None:
        self._announced[envelope.id] = envelope.retries
        if len(self._announced) > MOST:
            del self._announced[next(iter(self._announced))]

    def _messages(self, events: Iterable[dict[str, Any]]) -> Iterator[Outgoing]:
        for is_task, group in itertools.groupby(events, _is_task):
            if is_task:
                yield self._factory.message("task.multi", list(group))
                continue
            for event in group:
                yield self._factory.message(event["type"].replace("-", "."), event)


def _is_task(event: dict[str, Any]) -> bool:
    return str(event["type"]).startswith("task-")


def _received(envelope: Envelope) -> dict[str, object]:
    return {
        "name": envelope.name,
        "args": envelope.argsrepr,
        "kwargs": envelope.kwargsrepr,
        "root_id": envelope.root_id,
        "parent_id": envelope.parent_id,
        "retries": envelope.retries,
        "eta": iso(envelope.eta_text),
        "expires": iso(envelope.expires_text),
    }


def iso(text: str | None) -> str | None:
    """Return a time of a message as ISO text with its zone; a naive time is UTC."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
