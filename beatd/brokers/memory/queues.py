"""Queues, deliveries under leases and dead letters, on dicts and deques."""

import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice

from beatd.brokers.current_runs import run_of
from beatd.brokers.items import (
    DONE,
    GONE,
    STANDBY_LASTS,
    Acknowledge,
    Act,
    Answer,
    Begin,
    DeadLetter,
    Delay,
    Delayed,
    Delivery,
    GiveBack,
    Outgoing,
    Overview,
    QueueState,
    SetAside,
    StandbyState,
    Suspects,
    WorkerState,
    as_new,
    do_in_turn,
    idle,
    number_together,
    pass_over,
)
from beatd.brokers.leases import LeaseWatch, WorkerLease
from beatd.brokers.memory.lead import MemoryLead
from beatd.clock import Clock
from beatd.errors import ItemRefused
from beatd.event_log import EventLog
from beatd.instant import SECOND, Instant, Span
from beatd.routing import PRIORITY_STEPS, Queue, Route, binding_of, step_of

tell = EventLog(__name__)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A message, and the queue in which it lies or to which it may go back."""

    queue: str
    step: int
    message: bytes
    deliveries: int = 0


@dataclass(slots=True)
class _Worker:
    """One worker's lease and its messages in flight, in the order of taking."""

    lease: Span = 0
    lease_ends: Span = 0
    """By the monotonic clock."""
    queues: Sequence[str] = ()
    """Those that it takes from, as it says."""
    in_flight: dict[str, _Stored] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()
    """Deliveries whose runs have ended, as the worker said last."""
    begun: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By delivery, entry and task id of a current run that `Begin` was for."""

    @property
    def is_busy(self) -> bool:
        """Whether anything is in flight that may be running."""
        return not self.in_flight.keys() <= self.ended


class _Subscription:
    """The messages that one listener has received and not fetched yet."""

    def __init__(self, queue: Queue, broker: "MemoryBroker") -> None:
        self.queue = queue
        self.received: deque[bytes] = deque()
        self.interrupted = False
        self._broker = broker

    def wait(self, timeout: Span) -> list[bytes]:
        return self._broker.receive(self, timeout)

    def interrupt(self) -> None:
        self._broker.interrupt_subscription(self)

    def close(self) -> None:
        self._broker.end_subscription(self)


class MemoryBroker(MemoryLead):
    """All ports of a broker, on dicts and deques under one lock."""

    def __init__(
        self,
        clock: Clock | None = None,
        nonces: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        super().__init__(clock, nonces)
        self._bindings: dict[str, list[Queue]] = {}
        self._lists: dict[tuple[int, str], deque[_Stored]] = {}
        self._delayed: list[tuple[Instant, int, _Stored]] = []
        self._subscriptions: list[_Subscription] = []
        self._workers: dict[str, _Worker] = {}
        self._leases = LeaseWatch()
        self._answered: dict[str, tuple[int, list[Answer]]] = {}
        """By worker, the number of its last `settle` request, and the answers."""
        self._took: dict[str, int] = {}
        """By worker, the number of its last `take` request."""
        self._dead: dict[str, tuple[DeadLetter, _Stored]] = {}
        self._serial = count(1)
        self._interrupted = False
        self.closed: dict[str, str] = {}
        """By queue, why it takes and gives no message: what only a server
        has reasons for."""

    # Sender

    def declare(self, queues: Collection[Queue]) -> None:
        with self._changed:
            for way in (way for queue in queues for way in queue.ways):
                bound = self._bindings.setdefault(way.exchange, [])
                if way not in bound:
                    bound.append(way)

    def purge(self, queues: Collection[str]) -> int:
        with self._changed:
            lists = [self._lists.pop(key) for key in [*self._lists] if key[1] in queues]
            self._end_runs_of(stored.message for one in lists for stored in one)
            return sum(map(len, lists))

    def send(self, batch: Sequence[Outgoing]) -> None:
        with self._changed:
            for outgoing in batch:
                if refusal := self._refusal(outgoing):
                    raise ItemRefused(refusal)
            for outgoing in batch:
                self._put(outgoing)

    # Consumer

    def join(self, worker: str, lease: Span, queues: Collection[str] = ()) -> None:
        with self._changed:
            joined = self._workers.setdefault(worker, _Worker())
            joined.lease, joined.lease_ends = lease, self._clock.elapsed() + lease
            joined.queues = [*queues]

    def stay(self, worker: str, lease: Span) -> bool:
        with self._changed:
            joined = self._workers.get(worker)
            if joined:
                self.join(worker, lease, joined.queues)
            return joined is not None

    def reclaim(
        self,
        worker: str,
        held: Collection[str],
        request: int,
        ended: Collection[str] = (),
    ) -> int:
        with self._changed:
            joined = self._workers.get(worker)
            if joined is None:
                return 0
            joined.ended = frozenset(ended)

            def is_unknown(token: str) -> bool:
                return token not in held and int(token.partition(":")[0]) < request

            for token in filter(is_unknown, [*joined.begun]):
                self.end_runs(dict([joined.begun.pop(token)]))
            strays = [*filter(is_unknown, joined.in_flight)]
            self._put_in_front([joined.in_flight.pop(token) for token in strays])
            return len(strays)

    def leave(self, worker: str) -> None:
        with self._changed:
            # What it asked is still known: copies of its requests may be under way.
            if gone := self._workers.pop(worker, None):
                self.end_runs(dict(gone.begun.values()))
                self._put_in_front(list(gone.in_flight.values()))

    def take(
        self,
        worker: str,
        queues: Sequence[str],
        limit: int,
        request: int,
        on_refused: Callable[[str, str], object] = pass_over,
        suspects: Suspects = Suspects.ALONE,
        together: int = 1,
        on_held_back: Callable[[], object] = idle,
    ) -> list[Delivery]:
        with self._changed:
            joined = self._workers.get(worker)
            last = self._took.get(worker, 0)
            if joined is None or request < last:
                return []
            self._took[worker] = request
            for name in self.closed.keys() & set(queues):
                on_refused(name, self.closed[name])
            queues = [name for name in queues if name not in self.closed]
            self._end_delays(queues, limit)
            if request > last:
                lying = list(islice(self._lying(queues), limit))
                found = bool(lying)
                if suspects is Suspects.PASSED_OVER:
                    fresh = (one for one in self._lying(queues) if not one.deliveries)
                    lying = list(islice(fresh, limit))
                elif suspects is Suspects.ALONE and found and lying[0].deliveries:
                    lying = [] if joined.is_busy else lying
                sizes = [(stored.deliveries, len(stored.message)) for stored in lying]
                number = number_together(sizes, suspects, together)
                if found and not number:
                    on_held_back()
                attempt = f"{request}:{next(self._serial)}"
                for index, stored in enumerate(lying[:number]):
                    self._lists[stored.step, stored.queue].remove(stored)
                    joined.in_flight[f"{attempt}:{index}"] = stored
            return [
                Delivery(token, stored.queue, stored.message, stored.deliveries + 1)
                for token, stored in joined.in_flight.items()
                if token.partition(":")[0] == str(request)
            ]

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        lists = [(step, name) for step in PRIORITY_STEPS for name in queues]

        def found() -> bool:
            self._end_delays(queues, 0)
            late = [one for one in self._delayed if one[0] <= self._clock.now()]
            return bool(late) or any(self._lists.get(key) for key in lists)

        with self._changed:
            self._wait(
                lambda: self._interrupted or found(),
                lambda: self._next_due() - self._clock.now(),
                timeout,
            )
            interrupted, self._interrupted = self._interrupted, False
            return not interrupted and found()

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        with self._changed:
            last, answers = self._answered.get(worker, (0, []))
            if request == last:
                return answers
            if request < last:
                return [GONE] * len(acts)
            self.send(sends)
            answers = do_in_turn(acts, lambda act: self._do(worker, act))
            self._answered[worker] = request, answers
            return answers

    def _do(self, worker: str, act: Act) -> Answer:
        """Do one act; return what became of it."""
        joined = self._workers.get(worker) or _Worker()
        stored = joined.in_flight.pop(act.delivery.token, None)
        if isinstance(act, SetAside) and (route := act.way_back):
            joined.begun.pop(act.delivery.token, None)
            step, message = step_of(route.priority), act.delivery.message
            stored = _Stored(route.queue, step, message)
        elif stored is None:
            return self._end_begun(joined, act)
        match act:
            case Begin(delivery, entry, run):
                if run and self._runs.get(entry) == run:
                    joined.begun[delivery.token] = entry, run
            case Acknowledge(_, entry, run, goes_on):
                if run and not goes_on:
                    self.end_runs({entry: run})
            case Delay(_, until):
                self._delay(stored, until)
            case SetAside():
                self._end_runs_of([stored.message])
                self._set_aside(worker, act, stored)
            case GiveBack():
                self._put_in_front([stored])
        return DONE

    def _end_begun(self, joined: _Worker, act: Act) -> Answer:
        """End the run of a delivery that is out of flight since `Begin`."""
        begun = joined.begun.get(act.delivery.token)
        if begun is None or not isinstance(act, Acknowledge):
            return GONE
        del joined.begun[act.delivery.token]
        if not act.goes_on:
            self.end_runs(dict([begun]))
        return DONE

    def _set_aside(self, worker: str, act: SetAside, stored: _Stored) -> None:
        letter = DeadLetter(
            str(next(self._serial)),
            stored.queue,
            act.reason,
            self._clock.now(),
            act.delivery.deliveries,
            worker,
            len(stored.message),
            act.task,
            act.task_id,
        )
        self._dead[letter.id] = letter, stored

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        with self._changed:
            return [
                Delayed(stored.queue, stored.message, due)
                for due, _, stored in self._delayed
                if stored.queue in queues
            ][:limit]

    def recover(self) -> int:
        with self._changed:
            dead = self._leases_run_out()
            return sum(self._release(self._workers.pop(one.worker)) for one in dead)

    def _leases_run_out(self) -> list[WorkerLease]:
        """Return the leases of workers that are dead, in the order of their ends."""
        now = self._clock.elapsed()
        leases = [
            WorkerLease(name, one.lease_ends, one.lease)
            for name, one in self._workers.items()
        ]
        leases.sort(key=lambda one: (one.ends, one.worker))
        return self._leases.run_out(leases, now, now, now)

    def _release(self, dead: _Worker) -> int:
        """Put back what a dead worker had in flight; return the number of messages."""
        self.end_runs(dict(dead.begun.values()))
        lost = [
            replace(stored, deliveries=stored.deliveries + (token not in dead.ended))
            for token, stored in dead.in_flight.items()
        ]
        self._put_in_front(lost)
        return len(lost)

    def held_runs(self, runs: Collection[str]) -> set[str]:
        if not runs:
            return set()
        with self._changed:
            dead = {one.worker for one in self._leases_run_out()}
            living = [one for name, one in self._workers.items() if name not in dead]
            taken = [run_of(x.message) for w in living for x in w.in_flight.values()]
            begun = [run for w in living for run in w.begun.values()]
            return {run for _, run in filter(None, [*taken, *begun])} & set(runs)

    # Observed

    def overview(self, queues: Collection[str]) -> Overview:
        with self._changed:
            return Overview(
                [self._state_of(name) for name in queues],
                [self._state(name, one) for name, one in self._workers.items()],
                len(self._dead),
                [*self._standbys_heard()],
            )

    def waiting(self, queue: str, limit: int) -> list[bytes]:
        with self._changed:
            return [one.message for one in self._lying([queue])][:limit]

    def _standbys_heard(self) -> Iterator[StandbyState]:
        now = self._clock.elapsed()
        for name, (digest, heard) in sorted(self._standbys.items()):
            if now - heard <= STANDBY_LASTS:
                yield StandbyState(name, digest, now - heard)

    def _state_of(self, queue: str) -> QueueState:
        if queue in self.closed:
            return QueueState(queue, None)
        lying = [*self._lying([queue])]
        return QueueState(queue, len(lying), lying[0].message if lying else b"")

    def _state(self, name: str, worker: _Worker) -> WorkerState:
        held = len(worker.in_flight) + len(worker.begun)
        left = max(worker.lease_ends - self._clock.elapsed(), 0)
        return WorkerState(name, worker.queues, held, left)

    # Dead letters

    def dead_letters(self) -> list[DeadLetter]:
        with self._changed:
            return [letter for letter, _ in self._dead.values()]

    def dead_message(self, letter: str) -> bytes | None:
        with self._changed:
            return self._dead[letter][1].message if letter in self._dead else None

    def retry_dead(
        self,
        letters: Collection[str],
        on_refused: Callable[[str, str], object] = pass_over,
    ) -> int:
        with self._changed:
            known = [one for one in letters if one in self._dead]
            places = {one: self._dead[one][1].queue for one in known}
            refused = [one for one in known if places[one] in self.closed]
            for one in refused:
                on_refused(one, self.closed[places[one]])
            found = self._remove_dead([one for one in known if one not in refused])
            for stored in found:
                fresh = replace(stored, deliveries=0, message=as_new(stored.message))
                key = stored.step, stored.queue
                self._lists.setdefault(key, deque()).append(fresh)
            self._changed.notify_all()
            return len(found)

    def drop_dead(self, letters: Collection[str]) -> int:
        with self._changed:
            return len(self._remove_dead(letters))

    # Broadcast

    def listen(self, queue: Queue) -> _Subscription:
        return _Subscription(queue, self)

    def receive(self, subscription: _Subscription, timeout: Span) -> list[bytes]:
        """Wait for the messages of one subscription, and return them."""
        with self._changed:
            if subscription not in self._subscriptions:
                self._subscriptions.append(subscription)
            self._wait(
                lambda: bool(subscription.received) or subscription.interrupted,
                lambda: timeout,
                timeout,
            )
            subscription.interrupted = False
            received = list(subscription.received)
            subscription.received.clear()
            return received

    def interrupt_subscription(self, subscription: _Subscription) -> None:
        """End the waiting of one subscription."""
        with self._changed:
            subscription.interrupted = True
            self._changed.notify_all()

    def end_subscription(self, subscription: _Subscription) -> None:
        """Let one subscription receive nothing more."""
        with self._changed:
            left = [one for one in self._subscriptions if one is not subscription]
            self._subscriptions = left

    def ask(self, question: Outgoing, answers: Queue, timeout: Span) -> list[bytes]:
        with self._changed:
            self.declare([answers])
            lists = [(step, answers.name) for step in PRIORITY_STEPS]
            receivers = self._publish(question)
            came: list[bytes] = []

            def complete() -> bool:
                while stored := self._pop(lists):
                    came.append(stored.message)
                return len(came) >= receivers

            self._wait(complete, lambda: timeout, timeout)
            self._bindings[answers.exchange].remove(answers)
            return came

    # All

    def ping(self) -> str:
        return "memory"

    def risks(self) -> list[str]:
        return []

    def close(self) -> None:
        """Keep everything: others may still use it."""

    # Within

    def _refusal(self, outgoing: Outgoing) -> str:
        if not self.closed:
            return ""
        closed = [one for one in self._targets(outgoing.route) if one in self.closed]
        return "; ".join(f"the queue {one}: {self.closed[one]}" for one in closed)

    def _put(self, outgoing: Outgoing) -> bool:
        route = outgoing.route
        is_fanout = route.exchange_type == "fanout"
        received = is_fanout and self._publish(outgoing) > 0
        names = self._targets(route)
        step = step_of(route.priority)
        for name in names:
            stored = _Stored(name, step, outgoing.message)
            if outgoing.due is None:
                self._lists.setdefault((step, name), deque()).append(stored)
            else:
                self._delay(stored, outgoing.due)
        self._changed.notify_all()
        if not names and not is_fanout:
            tell.warning(
                "route.unbound",
                "no queue is bound to exchange %r under %r: the message is dropped",
                route.exchange,
                route.routing_key,
            )
        return received or bool(names)

    def _publish(self, outgoing: Outgoing) -> int:
        """Hand the message to all subscriptions that it is for; return their number."""
        route = outgoing.route
        found = [one for one in self._subscriptions if _is_for(one.queue, route)]
        for subscription in found:
            subscription.received.append(outgoing.message)
        self._changed.notify_all()
        return len(found)

    def _targets(self, route: Route) -> list[str]:
        if route.queue and route.exchange_type != "fanout":
            return [route.queue]
        return [
            queue.name
            for queue in self._bindings.get(route.exchange, [])
            if binding_of(queue).matches(route.exchange_type, route.routing_key)
        ]

    def _delay(self, stored: _Stored, until: Instant) -> None:
        self._delayed.append((until, next(self._serial), stored))
        self._delayed.sort(key=lambda late: late[:2])
        self._changed.notify_all()

    def _end_delays(self, queues: Collection[str], limit: int) -> None:
        """Put back delayed messages that are due: from these queues at most `limit`.

        A message that is put back and not taken at once would wait longer than those
        that come due later: they are put in front of it.
        """
        now = self._clock.now()
        over, left = [], []
        for late in self._delayed:
            until, _, stored = late
            own = stored.queue in queues
            if until > now or (own and limit <= 0):
                left.append(late)
            else:
                over.append(stored)
                limit -= own
        self._delayed = left
        self._put_in_front(over)

    def _next_due(self) -> Instant:
        return self._delayed[0][0] if self._delayed else self._clock.now() + SECOND

    def _put_in_front(self, messages: list[_Stored]) -> None:
        for stored in reversed(messages):
            key = stored.step, stored.queue
            self._lists.setdefault(key, deque()).appendleft(stored)
        self._changed.notify_all()

    def _pop(self, lists: list[tuple[int, str]]) -> _Stored | None:
        filled = (self._lists[key] for key in lists if self._lists.get(key))
        first = next(filled, None)
        return first.popleft() if first else None

    def _lying(self, queues: Sequence[str]) -> Iterator[_Stored]:
        """Return the messages that may be taken, in order."""
        for step in PRIORITY_STEPS:
            for name in queues:
                yield from self._lists.get((step, name), ())

    def _remove_dead(self, letters: Collection[str]) -> list[_Stored]:
        """Remove these dead letters; return their messages."""
        found = [self._dead.pop(letter, None) for letter in letters]
        return [stored for _, stored in filter(None, found)]


def _is_for(queue: Queue, route: Route) -> bool:
    binding = binding_of(replace(queue, exchange_type="topic"))
    key = route.routing_key
    return queue.exchange == route.exchange and (
        queue.routing_key == key or binding.matches("topic", key)
    )
