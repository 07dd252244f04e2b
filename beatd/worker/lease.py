"""A worker's lease: while it lasts, no other worker gets this one's deliveries."""

import threading
from collections.abc import Callable, Collection

from beatd.background import OnCrash, Outage, Service, retried
from beatd.brokers.base import Consumer
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import Span
from beatd.text import counted
from beatd.worker.holdings import Holdings

tell = EventLog(__name__)

BEATS = 5
"""Renewals within the length of a lease. Before it ends one of them may wait for a dead
connection to time out (3 s), and be made again on a new connection."""


class Lease:
    """Tells the broker that the worker is alive, which deliveries it has, what has run.

    What the broker has under the worker's name beside these goes back to its queue; so
    do the deliveries of dead workers.

    A worker that was cut off for too long counts as dead, too: `on_lost` is called when
    it learns that its deliveries were given back, before it can take any new ones.
    """

    def __init__(
        self,
        broker: Consumer,
        worker: str,
        length: Span,
        holdings: Holdings,
        on_lost: Callable[[], object],
        on_recovered: Callable[[int], object],
        away: Outage,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._length = length
        self._holdings = holdings
        self._on_lost = on_lost
        self._on_recovered = on_recovered
        self.away = away
        """The broker's outage."""
        self._clock = clock
        self._queues: Collection[str] = ()
        self._told: Collection[str] = ()
        """The queues of which the broker was told."""
        self._number = 0
        self.recovered = 0
        """Deliveries of dead workers that were given back here."""
        self._is_held = False
        self._ends: Span | None = None
        self._one_at_a_time = threading.Lock()
        self._service = Service(retried(self._step, BrokerUnavailable, away))

    def start(self, on_crash: OnCrash) -> None:
        """Begin to renew, in a thread."""
        self._service.start("beatd-lease", on_crash)

    def stop(self) -> None:
        """Stop renewing; the lease itself is left as it is."""
        self._service.stop()

    @property
    def number(self) -> int:
        """The number of the present lease; it grows when a lease was lost."""
        return self._number

    @property
    def is_held(self) -> bool:
        """Whether the worker has a lease that has not run out."""
        return self._is_held and not self.has_run_out()

    def take_from(self, queues: Collection[str]) -> None:
        """Let people see, from the next renewal on, that these are taken from."""
        self._queues = tuple(queues)

    def has_run_out(self) -> bool:
        """Return whether the lease has not been renewed in time.

        Other workers may give our deliveries back then. If none has done it, the lease
        goes on with the next renewal.
        """
        return self._ends is not None and self._clock.elapsed() >= self._ends

    def renew(self) -> None:
        """Renew the lease; if it was lost, call `on_lost` and begin another one."""
        with self._one_at_a_time:
            asked = self._clock.elapsed()
            if self._is_held and not self._broker.stay(self._worker, self._length):
                self._is_held = False
                self._number += 1
                self._holdings.lost()
                self._on_lost()
            if not self._is_held or self._told != self._queues:
                told = self._queues
                self._broker.join(self._worker, self._length, told)
                self._is_held, self._told = True, told
            self._ends = asked + self._length

    def turn(self) -> None:
        """Renew the lease; give back what no worker has, and what dead workers had."""
        self.renew()
        self.tell_holdings()
        recovered = self._broker.recover()
        if recovered:
            self.recovered += recovered
            self._on_recovered(recovered)

    def tell_holdings(self) -> None:
        """Tell the broker what the worker holds; have all else given back."""
        request, held, ended = self._holdings.known()
        if unknown := self._broker.reclaim(self._worker, held, request, ended):
            tell.warning(
                "delivery.unknown",
                "gave back %s that this worker does not have, although the broker"
                " counted such as its own: the broker was set back to an earlier"
                " state, or an answer of its was lost; tasks among them may run again",
                counted(unknown, "delivery"),
            )

    def _step(self) -> Span:
        self.turn()
        return self._length // BEATS
