"""Sends events to monitors in batches, without holding up the work.

Events that cannot be sent in time are dropped and counted.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from beatd.background import BatchWorker, Faults, Halves, OnCrash, Outage
from beatd.brokers.base import Sender
from beatd.brokers.items import Outgoing
from beatd.errors import BrokerUnavailable, ItemRefused
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.text import counted

T = TypeVar("T")

tell = EventLog(__name__)

MOST = 10_000
"""How many items may wait to be sent; more are dropped."""


def post_of(broker: Sender, dropped: Faults) -> Halves[Outgoing]:
    """Return what sends messages with events; those that are refused are dropped."""
    return Halves(broker.send, lambda _, refusal: say_refused(dropped, refusal))


def say_refused(dropped: Faults, refusal: ItemRefused) -> None:
    """Say that events are dropped because the broker refuses them, if it is time to."""
    if number := dropped.meet():
        words = "events are dropped (%s), monitors do not know all: %s"
        tell.warning("events.refused", words, counted(number, "message"), refusal)


class EventSender(Generic[T]):
    """Hands items to `send` in a thread of its own; drops them if too many wait.

    While the broker is away, which is logged once, a batch is tried again and again.
    """

    def __init__(
        self,
        send: Callable[[Sequence[T]], None],
        linger: Span = 0,
        away: Outage | None = None,
    ) -> None:
        """`linger` is how long the first item waits for others to go with it.

        `away` is the outage of the broker as a whole.
        """
        outage = Outage("events cannot be sent", "events", part_of=away)
        self._batches = BatchWorker(send, BrokerUnavailable, outage, linger=linger)
        self._dropped = 0
        self._lock = threading.Lock()

    def put(self, items: Sequence[T]) -> None:
        """Have these sent soon; those for which there is no room are dropped."""
        with self._lock:
            room = max(MOST - self._batches.waiting, 0)
            for item in items[:room]:
                self._batches.put(item)
            self._dropped += len(items[room:])

    def take_dropped(self) -> int:
        """Return how many items were dropped since this was last asked."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def start(self, name: str, on_crash: OnCrash) -> None:
        """Begin to send. Raises NoThread when the system has no thread left."""
        self._batches.start(name, on_crash)

    def stop(self) -> None:
        """Send what is left, if it can be sent at once."""
        self._batches.stop(SECOND)

    def turn(self) -> bool:
        """Send what lies ready in this thread; return whether there was anything.

        Raises BrokerUnavailable; the same is sent again the next time.
        """
        found = False
        while self._batches.turn():
            found = True
        return found
