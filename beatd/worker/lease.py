"""A worker's lease: while it is held, nobody else takes what the worker has."""

import threading
from collections.abc import Callable

from beatd.background import OnCrash, Outage, Service, retried
from beatd.brokers.base import Consumer
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable
from beatd.instant import Span

BEATS = 5
"""Renewals within the length of a lease: one may wait for a dead connection to time out
(3 s) and be made again on a new one before 6 s are over."""


class Lease:
    """Says to the broker that the worker lives, and gives back what dead ones held.

    A worker that was cut off for too long counts as dead, too: `on_lost` is called when
    it learns that others have what it held, before it can take anything again.
    """

    def __init__(
        self,
        broker: Consumer,
        worker: str,
        length: Span,
        on_lost: Callable[[], object],
        on_recovered: Callable[[int], object],
        away: Outage,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._length = length
        self._on_lost = on_lost
        self._on_recovered = on_recovered
        self._clock = clock
        self._number = 0
        self._is_held = False
        self._ends: Span | None = None
        self._one_at_a_time = threading.Lock()
        self._service = Service(retried(self._step, BrokerUnavailable, away))

    def start(self, on_crash: OnCrash) -> None:
        """Begin to renew, in a thread."""
        self._service.start("beatd-lease", on_crash)

    def stop(self) -> None:
        """Renew no more; the lease itself is left as it is."""
        self._service.stop()

    @property
    def number(self) -> int:
        """Which lease it is: one that was lost is followed by another number."""
        return self._number

    def has_run_out(self) -> bool:
        """Say whether the broker has not heard of us for so long that others may act.

        They may not have: then it is held again as soon as the broker hears of us.
        """
        return self._ends is not None and self._clock.elapsed() >= self._ends

    def renew(self) -> None:
        """Hold the lease for longer, or tell that it was lost and begin another one."""
        with self._one_at_a_time:
            asked = self._clock.elapsed()
            if self._is_held and not self._broker.stay(self._worker, self._length):
                self._is_held = False
                self._number += 1
                self._on_lost()
            if not self._is_held:
                self._broker.join(self._worker, self._length)
                self._is_held = True
            self._ends = asked + self._length

    def turn(self) -> None:
        """Renew the lease, and look after the others."""
        self.renew()
        recovered = self._broker.recover()
        if recovered:
            self._on_recovered(recovered)

    def _step(self) -> Span:
        self.turn()
        return self._length // BEATS
