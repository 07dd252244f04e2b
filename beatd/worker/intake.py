"""What keeps a worker supplied: room for deliveries, fetching them, and its lease."""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from beatd.brokers.base import Consumer, Delivery
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import BrokerUnavailable, ConfigError, MessageError
from beatd.instant import SECOND, Span, span_of
from beatd.message import Envelope, read_envelope
from beatd.routing import Queue, Router
from beatd.runs.report import limits_of
from beatd.worker.settle import Source
from beatd.worker.stage import Backoff, OnCrash, Outage, spawn

logger = logging.getLogger(__name__)

LONGEST_WAIT: Span = 5 * SECOND
"""The fetcher asks the broker at least this often, whatever it is told."""

MOST_DELAYED = 1_000
"""Messages for later that are looked at."""

BEATS = 5
"""Renewals within the length of a lease: one may wait for a dead connection to time out
(3 s) and be made again on a new one before 6 s are over."""


ROUND_ROBIN, SORTED, PRIORITY = "round_robin", "sorted", "priority"


def order_of(options: Mapping[str, Any]) -> str:
    """Read `queue_order_strategy` of `broker_transport_options`.

    In turn (round_robin), by their names (sorted) or as they are given (priority): in
    the last two a queue waits until those before it are empty. Raises ConfigError.
    """
    order = options.get("queue_order_strategy") or ROUND_ROBIN
    known = (ROUND_ROBIN, SORTED, PRIORITY)
    if order not in known:
        problem = f"queue_order_strategy: expected one of {', '.join(known)}"
        raise ConfigError("broker_transport_options", [problem])
    return str(order)


class PrefetchWindow:
    """How many more deliveries the worker may hold."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    def free(self) -> int:
        """Give the number of free places."""
        return self._free

    def fill(self, places: int) -> None:
        """Take so many places."""
        with self._changed:
            self._free -= places

    def clear(self, places: int) -> None:
        """Give so many places back."""
        with self._changed:
            self._free += places
            self._changed.notify_all()

    def wait(self, stop: threading.Event) -> None:
        """Return when there is a free place, or after `stop` and a `clear`."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or stop.is_set())


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
        trouble: Outage,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._length = length
        self._on_lost = on_lost
        self._on_recovered = on_recovered
        self._trouble = trouble
        self._clock = clock
        self._number = 0
        self._is_held = False
        self._ends: Span | None = None
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, on_crash: OnCrash) -> None:
        """Begin to renew, in a thread."""
        self._thread = spawn("beatd-lease", self._run, on_crash)

    def stop(self) -> None:
        """Renew no more; the lease itself is left as it is."""
        self._stop.set()
        if self._thread:
            self._thread.join()

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

    def _run(self) -> None:
        pause = Backoff()
        while not self._stop.is_set():
            try:
                self.turn()
            except BrokerUnavailable as error:
                self._trouble.meet(error)
                self._stop.wait(pause.lengthen())
            else:
                self._trouble.end()
                pause.reset()
                self._stop.wait(self._length / BEATS / SECOND)


class Fetcher:
    """Takes deliveries from the broker as long as there is room for them."""

    def __init__(
        self,
        broker: Consumer,
        worker: str,
        queues: Sequence[str],
        lease: Lease,
        room: PrefetchWindow,
        deliver: Callable[[list[Delivery], int], object],
        trouble: Outage,
        prepare: Callable[[], object] = lambda: None,
        order: str = ROUND_ROBIN,
    ) -> None:
        """`deliver` is called with the number of the lease that they are under, too.

        `prepare` is called once, before anything is taken.
        """
        self._broker = broker
        self._worker = worker
        self._order = order
        self._queues = self._ordered(queues)
        self._lease = lease
        self._room = room
        self._deliver = deliver
        self._trouble = trouble
        self._prepare = prepare
        self._numbers = itertools.count()
        self._attempt = self._next_attempt()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, on_crash: OnCrash) -> None:
        """Begin to fetch, in a thread."""
        self._thread = spawn("beatd-fetcher", self._run, on_crash)

    def take_from(self, queues: Sequence[str]) -> None:
        """Take from these queues from now on, and from no others."""
        self._queues = self._ordered(queues)
        self._broker.interrupt()

    def stop(self) -> None:
        """Fetch no more; what is on its way is still delivered before this returns."""
        self._stop.set()
        self._room.clear(0)
        if self._thread:
            self._broker.interrupt()
            self._thread.join()

    def turn(self) -> bool:
        """Take once and deliver what came; say whether anything did."""
        limit = self._room.free()
        if limit <= 0:
            return False
        lease = self._lease.number
        found = self._broker.take(
            self._worker, list(self._queues), limit, self._attempt
        )
        # Only after an answer: a request whose answer was lost keeps its name.
        self._attempt = self._next_attempt()
        if self._order == ROUND_ROBIN:
            self._queues.rotate(-1)  # so that no queue starves behind a full one
        if found:
            self._room.fill(len(found))
            self._deliver(found, lease)
        return bool(found)

    def _run(self) -> None:
        pause = Backoff()
        is_held = is_prepared = False
        while not self._stop.is_set():
            try:
                if not is_held:
                    # Without a lease nothing is given out, however much there is.
                    self._lease.renew()
                    is_held = True
                elif not is_prepared:
                    self._prepare()
                    is_prepared = True
                elif not self.turn():
                    self._await()
            except BrokerUnavailable as error:
                is_held = False  # perhaps
                self._trouble.meet(error)
                self._stop.wait(pause.lengthen())
            else:
                self._trouble.end()
                pause.reset()

    def _ordered(self, queues: Sequence[str]) -> deque[str]:
        return deque(sorted(queues) if self._order == SORTED else queues)

    def _await(self) -> None:
        if self._room.free() > 0:
            self._broker.await_message(list(self._queues), LONGEST_WAIT)
        else:
            self._room.wait(self._stop)

    def _next_attempt(self) -> str:
        return f"{self._worker}:{next(self._numbers)}"


class Intake:
    """The queues that a worker takes from, and what it takes from them with."""

    def __init__(
        self,
        broker: Source,
        worker: str,
        queues: Sequence[str],
        router: Router,
        room: PrefetchWindow,
        settings: Settings,
        deliver: Callable[[list[Delivery], int], object],
        on_lost: Callable[[], object],
        away: Outage,
        prepare: Callable[[], object],
        clock: Clock,
    ) -> None:
        """`prepare` is called once, by the fetcher, before anything is taken."""
        self._broker = broker
        self._limits = limits_of(settings)
        self._prepare = prepare
        self._queues = {name: router.queue(name) for name in queues}
        length = span_of(settings.worker_lease_timeout)
        self.lease = Lease(broker, worker, length, on_lost, _say_recovered, away, clock)
        self.fetcher = Fetcher(
            broker,
            worker,
            queues,
            self.lease,
            room,
            deliver,
            away,
            self._declare,
            order_of(settings.broker_transport_options),
        )

    @property
    def queues(self) -> Sequence[Queue]:
        """The queues that are taken from."""
        return list(self._queues.values())

    def consume(self, queue: Queue) -> Callable[[], object]:
        """Take from this queue, too; give what is left to do, which takes time."""
        self._queues[queue.name] = queue
        self.fetcher.take_from(list(self._queues))
        return partial(self._broker.declare, [queue])

    def cease(self, queue: str) -> None:
        """Take from this queue no more."""
        self._queues.pop(queue, None)
        self.fetcher.take_from(list(self._queues))

    def delayed(self) -> list[Envelope]:
        """Ask the broker what waits there for its time."""
        found = []
        for late in self._broker.delayed(list(self._queues), MOST_DELAYED):
            with suppress(MessageError):
                found.append(read_envelope(late.message, self._limits))
        return found

    def start(self, on_crash: OnCrash) -> None:
        """Begin to take, under a lease, in two threads."""
        self.lease.start(on_crash)
        self.fetcher.start(on_crash)

    def _declare(self) -> None:
        self._broker.declare(self.queues)
        self._prepare()


def _say_recovered(number: int) -> None:
    logger.warning(
        "gave back %d deliveries of workers that died",
        number,
        extra={"event": "worker.recovered"},
    )
