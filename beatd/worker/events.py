"""Events for monitors: what becomes of tasks, and that the worker lives.

The loop only takes note; a thread of its own says it to whoever listens. What cannot be
said in time is dropped and counted: monitoring is never in the way of work.
"""

import itertools
import logging
import os
import platform
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from beatd.brokers.base import Outgoing, Sender
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.errors import BrokerUnavailable
from beatd.events.event import EventFactory
from beatd.events.lamport import LamportClock
from beatd.instant import SECOND, Span, span_of
from beatd.message import Envelope
from beatd.version import __version__
from beatd.worker.stage import Backoff, OnCrash, Outage, spawn

logger = logging.getLogger(__name__)

MOST = 10_000
"""Events that wait to be said; more are dropped."""

BATCH = 500
"""Events of tasks in one message."""

LINGER: Span = 50
"""How long the first event waits for others to go with it."""

SOFTWARE = {
    "sw_ident": "beatd",
    "sw_ver": __version__,
    "sw_sys": platform.system(),
}


class Load(NamedTuple):
    """What a worker has to do."""

    active: int
    """Runs at this moment."""
    processed: int
    """Runs that were begun since the start."""


@dataclass
class WorkerEvents:
    """Says events as Celery's workers do.

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
    """Whether events of tasks are said, too."""

    def __post_init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._dropped = 0
        self._announced: dict[str, int] = {}
        self._load: Callable[[], Load] = lambda: Load(0, 0)
        self._voice = EventFactory(
            self.node, self.settings, self.lamport, self.clock, self.machine_zone
        )
        self._trouble = Outage("events cannot be sent", "events")
        self._thread: threading.Thread | None = None

    # From the worker's loop

    def task(self, event: str, said: Envelope, **fields: object) -> None:
        """Take note of what became of a task: `succeeded`, and what there is to say."""
        if not self.enabled:
            return
        if event == "received":
            if self._announced.pop(said.id, None) == said.retries:
                return  # it was received before, and has waited for its time
            fields = _received(said)
        elif event == "delayed":
            # It comes back when it is due, perhaps to another worker.
            self._announce(said)
            event, fields = "received", _received(said)
        self._put(f"task-{event}", {"uuid": said.id, **fields})

    def heartbeat(self) -> None:
        """Say now that the worker lives."""
        self._put_worker("worker-heartbeat", self.interval or 5.0)

    # Its own thread

    def start(self, load: Callable[[], Load], on_crash: OnCrash) -> None:
        """Begin to say events, in a thread; `load` is asked from there, too."""
        self._load = load
        if self.interval is not None:
            self._put_worker("worker-online", self.interval)
        self._thread = spawn("beatd-events", self._run, on_crash)

    def stop(self) -> None:
        """Say what is left, if it can be said at once, and that the worker ends."""
        if self.interval is not None:
            self._put_worker("worker-offline", self.interval)
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    def turn(self) -> bool:
        """Say what lies ready; say whether there was anything.

        Raises BrokerUnavailable; what was to be said is tried again next time.
        """
        with self._changed:
            ready = list(itertools.islice(self._waiting, MOST))
        if not ready:
            return False
        self.broker.send(list(self._messages(ready)))
        with self._changed:
            for _ in ready:
                self._waiting.popleft()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning(
                "%d events were dropped: monitors do not know all",
                dropped,
                extra={"event": "events.dropped"},
            )
        return True

    def _run(self) -> None:
        pause = Backoff()
        beat_at = self._beat_after(self.clock.elapsed())
        while not self._stopping.is_set():
            try:
                self._wait(beat_at)
                if beat_at is not None and self.clock.elapsed() >= beat_at:
                    self.heartbeat()
                    beat_at = self._beat_after(beat_at)
                self.turn()
            except BrokerUnavailable as error:
                self._trouble.meet(error)
                self._stopping.wait(pause.lengthen())
            else:
                self._trouble.end()
                pause.reset()
        try:
            self.turn()
        except BrokerUnavailable as error:
            self._trouble.meet(error)

    def _wait(self, beat_at: Span | None) -> None:
        left = None if beat_at is None else beat_at - self.clock.elapsed()
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._stopping.is_set(),
                None if left is None else max(left, 0) / SECOND,
            )
        self._stopping.wait(LINGER / SECOND)

    def _beat_after(self, last: Span) -> Span | None:
        if self.interval is None:
            return None
        # After a long pause there is nothing to catch up with.
        return max(last + span_of(self.interval), self.clock.elapsed())

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
        event = self._voice.event(kind, fields)
        with self._changed:
            if len(self._waiting) >= MOST:
                self._dropped += 1
                return
            self._waiting.append(event)
            self._changed.notify_all()

    def _announce(self, said: Envelope) -> None:
        self._announced[said.id] = said.retries
        if len(self._announced) > MOST:
            del self._announced[next(iter(self._announced))]

    def _messages(self, events: Iterable[dict[str, Any]]) -> Iterator[Outgoing]:
        for is_task, group in itertools.groupby(events, _is_task):
            if not is_task:
                for event in group:
                    yield self._voice.message(event["type"].replace("-", "."), event)
                continue
            while batch := list(itertools.islice(group, BATCH)):
                yield self._voice.message("task.multi", batch)


def _is_task(event: dict[str, Any]) -> bool:
    return str(event["type"]).startswith("task-")


def _received(said: Envelope) -> dict[str, object]:
    return {
        "name": said.name,
        "args": said.argsrepr,
        "kwargs": said.kwargsrepr,
        "root_id": said.root_id,
        "parent_id": said.parent_id,
        "retries": said.retries,
        "eta": iso(said.eta_text),
        "expires": iso(said.expires_text),
    }


def iso(text: str | None) -> str | None:
    """Give a time of a message with its zone; a naive one is UTC."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
