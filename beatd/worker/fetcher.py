"""Takes deliveries from a worker's queues, as many as it may hold."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from beatd.background import OnCrash, Outage, Service, retried
from beatd.brokers.base import Consumer, Delivery
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import BrokerUnavailable, ConfigError, MessageError
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span, span_of
from beatd.message import Envelope, read_envelope
from beatd.routing import Queue, Router
from beatd.runs.report import limits_of
from beatd.worker.lease import Lease
from beatd.worker.settle import WorkerBroker

tell = EventLog(__name__)

LONGEST_WAIT: Span = 5 * SECOND
"""The fetcher asks the broker at least this often, even if nothing wakes it."""

MOST_DELAYED = 1_000
"""How many messages that wait for their time are read for remote control."""

ROUND_ROBIN, SORTED, PRIORITY = "round_robin", "sorted", "priority"


def order_of(options: Mapping[str, Any]) -> str:
    """Return the `queue_order_strategy` of `broker_transport_options`.

    Queues are taken from in turn (round_robin), by their names (sorted) or in the order
    given (priority): in the last two a queue waits until those before it are empty.
    Raises ConfigError.
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
        self._is_interrupted = False
        self._changed = threading.Condition()

    def free(self) -> int:
        """Return the number of free places."""
        return self._free

    def fill(self, places: int) -> None:
        """Occupy so many places."""
        with self._changed:
            self._free -= places

    def clear(self, places: int) -> None:
        """Make so many places free: of settled deliveries, or added to the window."""
        with self._changed:
            self._free += places
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until there is a free place, or until `interrupt` is called."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._is_interrupted)
            self._is_interrupted = False

    def interrupt(self) -> None:
        """End the present `wait`, or the next one; callable from any thread."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()


class Fetcher:
    """Takes deliveries from the broker while the prefetch window has free places."""

    def __init__(
        self,
        broker: Consumer,
        worker: str,
        queues: Sequence[str],
        lease: Lease,
        window: PrefetchWindow,
        deliver: Callable[[list[Delivery], int], object],
        away: Outage,
        prepare: Callable[[], object] = lambda: None,
        order: str = ROUND_ROBIN,
    ) -> None:
        """`deliver` is called with deliveries and the number of their lease.

        `prepare` is called once, before anything is taken.
        """
        self._broker = broker
        self._worker = worker
        self._order = order
        self._queues = self._ordered(queues)
        self._lease = lease
        self._window = window
        self._deliver = deliver
        self._prepare = prepare
        self._is_held = self._is_prepared = False
        self._numbers = itertools.count()
        self._attempt = self._next_attempt()
        self._service = Service(
            retried(self._step, BrokerUnavailable, away), self._interrupt
        )

    def start(self, on_crash: OnCrash) -> None:
        """Begin to fetch, in a thread."""
        self._service.start("beatd-fetcher", on_crash)

    def take_from(self, queues: Sequence[str]) -> None:
        """Take from these queues from now on, and from no others."""
        self._queues = self._ordered(queues)
        self._broker.interrupt()

    def stop(self) -> None:
        """Fetch no more; what is on its way is still delivered before this returns."""
        self._service.stop()

    def turn(self) -> bool:
        """Take once and deliver what came; return whether anything did."""
        limit = self._window.free()
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
            self._window.fill(len(found))
            self._deliver(found, lease)
        return bool(found)

    def _step(self) -> Span:
        # If this step fails, the lease may be lost: it is renewed in the next one.
        is_held, self._is_held = self._is_held, False
        if not is_held:
            # The broker gives nothing to a worker without a lease.
            self._lease.renew()
        elif not self._is_prepared:
            self._prepare()
            self._is_prepared = True
        elif not self.turn():
            self._await()
        self._is_held = True
        return 0

    def _ordered(self, queues: Sequence[str]) -> deque[str]:
        return deque(sorted(queues) if self._order == SORTED else queues)

    def _await(self) -> None:
        if self._window.free() > 0:
            self._broker.await_message(list(self._queues), LONGEST_WAIT)
        else:
            self._window.wait()

    def _interrupt(self) -> None:
        self._window.interrupt()
        self._broker.interrupt()

    def _next_attempt(self) -> str:
        return f"{self._worker}:{next(self._numbers)}"


class Intake:
    """A worker's queues, with the lease and the fetcher that serve them."""

    def __init__(
        self,
        broker: WorkerBroker,
        worker: str,
        queues: Sequence[str],
        router: Router,
        window: PrefetchWindow,
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
            window,
            deliver,
            away,
            self._declare,
            order_of(settings.broker_transport_options),
        )

    @property
    def queues(self) -> Sequence[Queue]:
        """The queues that the worker takes from."""
        return list(self._queues.values())

    def consume(self, queue: Queue) -> Callable[[], object]:
        """Take from this queue, too; return a slow function that declares it."""
        self._queues[queue.name] = queue
        self.fetcher.take_from(list(self._queues))
        return partial(self._broker.declare, [queue])

    def cease(self, queue: str) -> None:
        """Stop taking from this queue."""
        self._queues.pop(queue, None)
        self.fetcher.take_from(list(self._queues))

    def delayed(self) -> list[Envelope]:
        """Return the messages that wait in the broker for their time."""
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
    tell.warning(
        "worker.recovered", "gave back %d deliveries of workers that died", number
    )
