"""Takes deliveries from a worker's queues, as many as it may hold."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from beatd.background import Backoff, OnCrash, Outage, Service, retried
from beatd.brokers.base import Consumer
from beatd.brokers.items import Delivery
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.errors import BrokerUnavailable, ConfigError, MessageError
from beatd.event_log import EventLog
from beatd.instant import MINUTE, SECOND, Span, span_of
from beatd.message import Envelope, read_envelope
from beatd.routing import Queue, Router
from beatd.runs.report import limits_of
from beatd.text import counted
from beatd.worker.holdings import Holdings
from beatd.worker.isolation import Isolation
from beatd.worker.lease import Lease
from beatd.worker.restoring import Restoring
from beatd.worker.settle import WorkerBroker
from beatd.worker.window import PrefetchWindow

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


@dataclass(slots=True)
class _Rest:
    """How long a queue that the broker refused is left alone."""

    until: Span = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(SECOND, MINUTE))


class RestingQueues:
    """Queues that the broker refuses: said once, and tried again with a back-off."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rests: dict[str, _Rest] = {}

    def __bool__(self) -> bool:
        return bool(self._rests)

    def without(self, queues: Sequence[str]) -> list[str]:
        """Return the queues that are to be tried now; forget all that are not here."""
        if not self._rests:
            return list(queues)
        kept = {name: rest for name, rest in self._rests.items() if name in queues}
        self._rests, now = kept, self._clock.elapsed()
        return [name for name in queues if name not in kept or kept[name].until <= now]

    def not_refused(self, queues: Sequence[str]) -> list[str]:
        """Return the queues that may be waited for: none that is still to be tried."""
        return [name for name in queues if name not in self._rests]

    def longest_wait(self, wait: Span) -> Span:
        """Return how long to wait, at most `wait`, until a queue is to be tried."""
        now = self._clock.elapsed()
        ends = [rest.until - now for rest in self._rests.values()]
        return max(1, min([wait, *ends]))

    def meet(self, queue: str, reason: str) -> None:
        """Take note that the broker refuses a queue."""
        if queue not in self._rests:
            self._rests[queue] = _Rest()
            tell.error(
                "queue.refused",
                "nothing is taken from queue %s: %s; the other queues go on, and it is"
                " tried again until that is mended",
                queue,
                reason,
                queue=queue,
            )
        rest = self._rests[queue]
        rest.until = self._clock.elapsed() + rest.backoff.lengthen()

    def end(self, queue: str) -> None:
        """Take note that a queue was not refused; do nothing if it was not before."""
        if self._rests.pop(queue, None):
            tell.warning(
                "queue.accepted", "queue %s is taken from again", queue, queue=queue
            )


class Fetcher:
    """Takes deliveries from the broker while the prefetch window has room."""

    def __init__(
        self,
        broker: Consumer,
        worker: str,
        queues: Sequence[str],
        lease: Lease,
        holdings: Holdings,
        window: PrefetchWindow,
        isolation: Isolation,
        deliver: Callable[[list[Delivery], int], object],
        away: Outage,
        prepare: Callable[[], object] = lambda: None,
        order: str = ROUND_ROBIN,
        clock: Clock | None = None,
    ) -> None:
        """`deliver` is called with deliveries and the number of their lease.

        `prepare` is called once, before anything is taken.
        """
        self._broker = broker
        self._worker = worker
        self._order = order
        self._queues = self._ordered(queues)
        clock = clock or SystemClock()
        self._resting = RestingQueues(clock)
        self.isolation = isolation
        self._lease = lease
        self._holdings = holdings
        self._window = window
        self._deliver = deliver
        self._prepare = prepare
        self._is_held = self._is_prepared = False
        self._is_held_back = False
        self._clearings = 0
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
        # What a request took whose answer was lost is not ours.
        self._holdings.taken(())

    def turn(self) -> bool:
        """Take once and deliver what came; return whether anything did."""
        self._clearings = self._window.clearings
        limit, suspects = self._window.room(), self.isolation.rule()
        self._is_held_back = suspects is None
        if limit == 0 or suspects is None:
            return False
        lease = self._lease.number
        queues = self._resting.without(self._queues)
        refused: dict[str, str] = {}
        found = self._broker.take(
            self._worker,
            queues,
            limit,
            self._holdings.request,
            refused.__setitem__,
            suspects,
            self.isolation.room,
            self._hold_back,
        )
        self._holdings.taken(found)
        if self._order == ROUND_ROBIN and not self._is_held_back:
            # So that no queue starves behind a full one. But where a suspect waits for
            # the worker to hold nothing else, no other queue is first meanwhile.
            self._queues.rotate(-1)
        if refused or self._resting:
            self._note(queues, refused, found)
        self.isolation.took(found, suspects, held_back=self._is_held_back)
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

    def _note(
        self, asked: Sequence[str], refused: Mapping[str, str], found: list[Delivery]
    ) -> None:
        """Note which queues are refused, and which are not any more."""
        for queue, reason in refused.items():
            self._resting.meet(queue, reason)
        # With messages of some queues, the others may not have been looked at; nor
        # behind a suspect that waits.
        is_part = found or self._is_held_back
        looked_at = {one.queue for one in found} if is_part else set(asked)
        for queue in looked_at - refused.keys():
            self._resting.end(queue)

    def _ordered(self, queues: Sequence[str]) -> deque[str]:
        return deque(sorted(queues) if self._order == SORTED else queues)

    def _await(self) -> None:
        if self._is_held_back and self._holdings.has_news:
            # Until the broker is told, what has ended is company for a suspect.
            self._lease.tell_holdings()
        elif self._is_held_back:
            wait = self.isolation.longest_wait()
            self._window.wait_for_clearing(self._clearings, wait)
        elif self._window.room() > 0:
            # The broker cannot wait for a queue that it refuses. Also when the rest of
            # one has just ended: first comes a try.
            queues = self._resting.not_refused(self._queues)
            wait = self._resting.longest_wait(LONGEST_WAIT)
            self._broker.await_message(queues, wait)
        else:
            self._window.wait()

    def _hold_back(self) -> None:
        self._is_held_back = True

    def _interrupt(self) -> None:
        self._window.interrupt()
        self._broker.interrupt()


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
        pool_size: Callable[[], int],
        clock: Clock,
    ) -> None:
        """`prepare` is called once, by the fetcher, before anything is taken."""
        self._broker = broker
        self._window = window
        self._limits = limits_of(settings)
        self._prepare = prepare
        self._queues = {name: router.queue(name) for name in queues}
        length = span_of(settings.worker_lease_timeout)
        self._holdings = Holdings()
        self._delaying: dict[str, Envelope] = {}
        self.lease = Lease(
            broker,
            worker,
            length,
            self._holdings,
            on_lost,
            _say_recovered,
            away,
            clock,
        )
        self.lease.take_from(queues)
        self.restoring = Restoring(broker, away)
        self.fetcher = Fetcher(
            broker,
            worker,
            queues,
            self.lease,
            self._holdings,
            window,
            Isolation(clock, settings.task_max_deliveries, pool_size),
            deliver,
            away,
            self._declare,
            order_of(settings.broker_transport_options),
            clock,
        )

    @property
    def queues(self) -> Sequence[Queue]:
        """The queues that the worker takes from."""
        return list(self._queues.values())

    def takes_from(self, queue: str) -> bool:
        """Return whether the worker takes from this queue."""
        return queue in self._queues

    def settled(self, tokens: Sequence[str]) -> None:
        """Take note that these deliveries have been settled."""
        self._holdings.settled(tokens)
        self.fetcher.isolation.settled(tokens)
        if self._delaying:
            for token in tokens:
                self._delaying.pop(token, None)

    def delaying(self, token: str, envelope: Envelope) -> None:
        """Take note of a delivery that the broker is told to keep for its time."""
        self._delaying[token] = envelope

    def have_run(self, tokens: Collection[str]) -> None:
        """Take note that these have run, and wait for a result backend that is away.

        They stay in flight, and keep the worker from nothing else.
        """
        self._holdings.have_run(tokens)
        self.fetcher.isolation.settled(tokens)
        self._window.clear(len(tokens))

    def leave_in_flight(self, token: str) -> None:
        """Take note that this delivery cannot be settled."""
        self._holdings.left(token)

    def consume(self, queue: Queue) -> Callable[[], object]:
        """Take from this queue, too; return a slow function that declares it."""
        self._queues[queue.name] = queue
        self._take_from_all()
        return partial(self._broker.declare, [queue])

    def cease(self, queue: str) -> None:
        """Stop taking from this queue."""
        self._queues.pop(queue, None)
        self._take_from_all()

    def _take_from_all(self) -> None:
        names = list(self._queues)
        self.lease.take_from(names)
        self.fetcher.take_from(names)

    def delayed(self) -> list[Envelope]:
        """Return the messages that wait in the broker for their time, or will soon.

        It may be called from any thread.
        """
        # Before the broker is asked: what it is told of meanwhile is in both.
        soon = self._delaying.copy()
        found = {}
        for late in self._broker.delayed(list(self._queues), MOST_DELAYED):
            with suppress(MessageError):
                envelope = read_envelope(late.message, self._limits)
                found[envelope.id] = envelope
        found |= {one.id: one for one in soon.values()}
        return list(found.values())[:MOST_DELAYED]

    def start(self, on_crash: OnCrash) -> None:
        """Begin to take, under a lease, in threads."""
        self.lease.start(on_crash)
        self.restoring.start(on_crash)
        self.fetcher.start(on_crash)

    def _declare(self) -> None:
        self._broker.declare(self.queues)
        self._prepare()


def _say_recovered(number: int) -> None:
    words = "gave back %s of workers that died"
    tell.warning("worker.recovered", words, counted(number, "delivery"))
