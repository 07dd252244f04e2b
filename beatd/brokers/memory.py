"""A broker in this process's memory: the contract in its shortest form.

What it holds ends with the process. Several objects of one process, and their threads,
may share it; that is how tests stand two schedulers before one broker.
"""

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice

from beatd.brokers.base import (
    ENOUGH,
    DeadLetter,
    Delayed,
    Delivery,
    Done,
    Emission,
    Outcome,
    Outgoing,
    Term,
    idle,
)
from beatd.clock import Clock, SystemClock
from beatd.errors import TermOver
from beatd.instant import SECOND, Instant, Span
from beatd.routing import PRIORITY_STEPS, Queue, Route, binding_of, step_of
from beatd.timetable.ledger import LedgerCopy, Mark

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A message where it lies, or where it is to go back to."""

    queue: str
    step: int
    message: bytes
    deliveries: int = 0


@dataclass(slots=True)
class _Worker:
    """One worker's lease and what it holds, in the order in which it was taken."""

    lease_ends: Instant
    in_flight: dict[str, _Stored] = field(default_factory=dict)


class _Hearing:
    """What one listener has heard and not asked for yet."""

    def __init__(self, queue: Queue, broker: "MemoryBroker") -> None:
        self.queue = queue
        self.heard: deque[bytes] = deque()
        self.interrupted = False
        self._broker = broker

    def wait(self, timeout: Span) -> list[bytes]:
        return self._broker.hear(self, timeout)

    def interrupt(self) -> None:
        self._broker.end_hearing(self)

    def close(self) -> None:
        self._broker.forget_hearing(self)


class MemoryBroker:
    """All ports of a broker, on dicts and deques under one lock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._changed = threading.Condition(threading.RLock())
        self._term = Term(0, "")
        self._holder = ""
        self._lead_ends: Instant = 0
        self._resigned = 0
        self._ledger: dict[str, Mark] = {}
        self._era = 0
        self._runs: dict[str, str] = {}
        self._bindings: dict[str, list[Queue]] = {}
        self._lists: dict[tuple[int, str], deque[_Stored]] = {}
        self._delayed: list[tuple[Instant, int, _Stored]] = []
        self._hearings: list[_Hearing] = []
        self._workers: dict[str, _Worker] = {}
        self._answered: dict[str, str] = {}
        """By worker, the first token of its last request that sent something."""
        self._dead: dict[str, tuple[DeadLetter, _Stored]] = {}
        self._serial = count(1)
        self._interrupted = False

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | None:
        with self._changed:
            if self._led():
                return None
            number = max(self._term.number, floor) + 1
            self._term = Term(number, secrets.token_hex(8))
            self._holder = holder
            self._lead_ends = self._clock.now() + ttl
            return self._term

    def renew(self, term: Term, ttl: Span) -> bool:
        with self._changed:
            if not self._leads(term):
                return False
            self._lead_ends = self._clock.now() + ttl
            return True

    def resign(self, term: Term) -> None:
        with self._changed:
            if self._leads(term):
                self._lead_ends = 0
                self._resigned += 1
                self._changed.notify_all()

    def let_go(self) -> None:
        """Leave the lead to run out."""

    def leader(self) -> str | None:
        with self._changed:
            return self._holder if self._led() else None

    def await_release(self, timeout: Span) -> bool:
        with self._changed:
            led, resigned = self._led(), self._resigned
            return self._wait(
                lambda: self._resigned > resigned or (led and not self._led()),
                lambda: self._lead_ends if led else self._clock.now() + timeout,
                timeout,
            )

    def emit(self, term: Term, batch: Sequence[Emission], ttl: Span) -> list[Outcome]:
        with self._changed:
            self._demand(term)
            self._lead_ends = self._clock.now() + ttl
            return [self._emit(emission) for emission in batch]

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        with self._changed:
            return LedgerCopy(dict(self._ledger), self._era)

    def write_ledger(
        self, term: Term, marks: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        with self._changed:
            self._demand(term)
            for entry in gone:
                self._ledger.pop(entry, None)
            self._ledger.update(marks)
            self._era = era

    def running(self, entries: Collection[str]) -> dict[str, str]:
        with self._changed:
            return {name: self._runs[name] for name in entries if name in self._runs}

    def end_runs(self, runs: Mapping[str, str]) -> None:
        with self._changed:
            for entry, run in runs.items():
                if self._runs.get(entry) == run:
                    del self._runs[entry]

    def declare(self, queues: Collection[Queue]) -> None:
        with self._changed:
            for queue in queues:
                bound = self._bindings.setdefault(queue.exchange, [])
                if queue not in bound:
                    bound.append(queue)

    def purge(self, queues: Collection[str]) -> int:
        with self._changed:
            lists = [self._lists.pop(key) for key in [*self._lists] if key[1] in queues]
            return sum(map(len, lists))

    def send(self, batch: Sequence[Outgoing]) -> None:
        with self._changed:
            for outgoing in batch:
                self._send(outgoing)

    def join(self, worker: str, lease: Span) -> None:
        with self._changed:
            ends = self._clock.now() + lease
            self._workers.setdefault(worker, _Worker(ends)).lease_ends = ends

    def stay(self, worker: str, lease: Span) -> bool:
        with self._changed:
            joined = worker in self._workers
            if joined:
                self.join(worker, lease)
            return joined

    def leave(self, worker: str) -> None:
        with self._changed:
            self._answered.pop(worker, None)
            if gone := self._workers.pop(worker, None):
                self._put_in_front(list(gone.in_flight.values()))

    def take(
        self, worker: str, queues: Sequence[str], limit: int, attempt: str
    ) -> list[Delivery]:
        with self._changed:
            joined = self._workers.get(worker)
            if joined is None:
                return []
            self._end_delays(queues, limit)
            lists = [(step, name) for step in PRIORITY_STEPS for name in queues]
            tokens = (f"{attempt}:{index}" for index in count())
            if f"{attempt}:0" not in joined.in_flight:
                size = 0
                for token in islice(tokens, limit):
                    if size >= ENOUGH or (stored := self._pop(lists)) is None:
                        break
                    joined.in_flight[token] = stored
                    size += len(stored.message)
            return [
                Delivery(token, stored.queue, stored.message, stored.deliveries + 1)
                for token, stored in joined.in_flight.items()
                if token.rpartition(":")[0] == attempt
            ]

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        lists = [(step, name) for step in PRIORITY_STEPS for name in queues]

        def found() -> bool:
            self._end_delays(queues, 0)
            late = [one for one in self._delayed if one[0] <= self._clock.now()]
            return bool(late) or any(self._lists.get(key) for key in lists)

        with self._changed:
            self._wait(lambda: self._interrupted or found(), self._next_due, timeout)
            interrupted, self._interrupted = self._interrupted, False
            return not interrupted and found()

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def acknowledge(
        self, worker: str, done: Sequence[Done], send: Sequence[Outgoing] = ()
    ) -> None:
        with self._changed:
            for one in done:
                if self._settle(worker, one.delivery) and one.run:
                    self.end_runs({one.entry: one.run})
            if done and send:
                request = done[0].delivery.token
                if self._answered.get(worker) == request:
                    return
                self._answered[worker] = request
            self.send(send)

    def give_back(self, worker: str, deliveries: Sequence[Delivery]) -> None:
        with self._changed:
            settled = [self._settle(worker, delivery) for delivery in deliveries]
            self._put_in_front([stored for stored in settled if stored])

    def delay(self, worker: str, delivery: Delivery, until: Instant) -> None:
        with self._changed:
            if stored := self._settle(worker, delivery):
                self._delay(stored, until)

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        with self._changed:
            return [
                Delayed(stored.queue, stored.message, due)
                for due, _, stored in self._delayed
                if stored.queue in queues
            ][:limit]

    def bury(
        self,
        worker: str,
        delivery: Delivery,
        reason: str,
        task: str = "",
        task_id: str = "",
    ) -> None:
        with self._changed:
            if stored := self._settle(worker, delivery):
                letter = DeadLetter(
                    str(next(self._serial)),
                    delivery.queue,
                    reason,
                    self._clock.now(),
                    delivery.deliveries,
                    worker,
                    len(delivery.message),
                    task,
                    task_id,
                )
                self._dead[letter.id] = letter, stored

    def recover(self) -> int:
        with self._changed:
            now = self._clock.now()
            dead = [name for name, w in self._workers.items() if w.lease_ends <= now]
            lost = [
                replace(stored, deliveries=stored.deliveries + 1)
                for name in dead
                for stored in self._workers.pop(name).in_flight.values()
            ]
            self._put_in_front(lost)
            return len(lost)

    def dead_letters(self) -> list[DeadLetter]:
        with self._changed:
            return [letter for letter, _ in self._dead.values()]

    def dead_message(self, letter: str) -> bytes | None:
        with self._changed:
            return self._dead[letter][1].message if letter in self._dead else None

    def retry_dead(self, letters: Collection[str]) -> int:
        with self._changed:
            found = self._exhume(letters)
            for stored in found:
                fresh = replace(stored, deliveries=0)
                key = stored.step, stored.queue
                self._lists.setdefault(key, deque()).append(fresh)
            self._changed.notify_all()
            return len(found)

    def drop_dead(self, letters: Collection[str]) -> int:
        with self._changed:
            return len(self._exhume(letters))

    def listen(self, queue: Queue) -> _Hearing:
        return _Hearing(queue, self)

    def hear(self, hearing: _Hearing, timeout: Span) -> list[bytes]:
        """Wait for what one listener hears."""
        with self._changed:
            if hearing not in self._hearings:
                self._hearings.append(hearing)
            self._wait(
                lambda: bool(hearing.heard) or hearing.interrupted,
                lambda: self._clock.now() + timeout,
                timeout,
            )
            hearing.interrupted = False
            heard = list(hearing.heard)
            hearing.heard.clear()
            return heard

    def end_hearing(self, hearing: _Hearing) -> None:
        """End one listener's waiting."""
        with self._changed:
            hearing.interrupted = True
            self._changed.notify_all()

    def forget_hearing(self, hearing: _Hearing) -> None:
        """Let one listener hear no more."""
        with self._changed:
            self._hearings = [one for one in self._hearings if one is not hearing]

    def ask(self, question: Outgoing, answers: Queue, timeout: Span) -> list[bytes]:
        with self._changed:
            self.declare([answers])
            lists = [(step, answers.name) for step in PRIORITY_STEPS]
            heard = self._tell(question)
            came: list[bytes] = []

            def complete() -> bool:
                while stored := self._pop(lists):
                    came.append(stored.message)
                return len(came) >= heard

            self._wait(complete, lambda: self._clock.now() + timeout, timeout)
            self._bindings[answers.exchange].remove(answers)
            return came

    def ping(self) -> str:
        return "memory"

    def risks(self) -> list[str]:
        return []

    def close(self) -> None:
        """Keep everything: others may still use it."""

    def _led(self) -> bool:
        return self._clock.now() < self._lead_ends

    def _leads(self, term: Term) -> bool:
        return self._led() and term == self._term

    def _demand(self, term: Term) -> None:
        if not self._leads(term):
            raise TermOver(f"term {term.number} is over: someone else may lead")

    def _emit(self, emission: Emission) -> Outcome:
        row = self._ledger.get(emission.entry)
        if row is not None and row.slot >= emission.mark.slot:
            return Outcome.KNOWN
        self._ledger[emission.entry] = emission.mark
        if emission.run:
            self._runs[emission.entry] = emission.run
        if emission.route is None:
            return Outcome.DROPPED
        reached = self._send(Outgoing(emission.route, emission.message))
        return Outcome.QUEUED if reached else Outcome.DROPPED

    def _send(self, outgoing: Outgoing) -> bool:
        """Put the message on every queue of its route; False if nobody has it."""
        route = outgoing.route
        heard = route.exchange_type == "fanout" and self._tell(outgoing) > 0
        names = self._targets(route)
        step = step_of(route.priority)
        for name in names:
            stored = _Stored(name, step, outgoing.message)
            if outgoing.due is None:
                self._lists.setdefault((step, name), deque()).append(stored)
            else:
                self._delay(stored, outgoing.due)
        self._changed.notify_all()
        if not names and route.exchange_type != "fanout":
            logger.warning(
                "no queue is bound to exchange %r under %r: the message is dropped",
                route.exchange,
                route.routing_key,
                extra={"event": "route.unbound"},
            )
        return heard or bool(names)

    def _tell(self, outgoing: Outgoing) -> int:
        """Let those hear it who listen; say how many do."""
        route = outgoing.route
        hearings = [one for one in self._hearings if _hears(one.queue, route)]
        for hearing in hearings:
            hearing.heard.append(outgoing.message)
        self._changed.notify_all()
        return len(hearings)

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
        """Put back what is due: of these queues no more than are taken next.

        What comes due later would be put in front of those that were not.
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

    def _exhume(self, letters: Collection[str]) -> list[_Stored]:
        """Take these from the dead-letter queue."""
        found = [self._dead.pop(letter, None) for letter in letters]
        return [stored for _, stored in filter(None, found)]

    def _settle(self, worker: str, delivery: Delivery) -> _Stored | None:
        """Take the delivery out of flight; None if its lease ran out before."""
        joined = self._workers.get(worker)
        return joined.in_flight.pop(delivery.token, None) if joined else None

    def _wait(
        self,
        done: Callable[[], bool],
        look_again: Callable[[], Instant],
        timeout: Span,
    ) -> bool:
        """Wait for `done`: a change calls for a look, and so does an instant."""
        end = self._clock.elapsed() + timeout
        with self._changed:
            while not done():
                left = end - self._clock.elapsed()
                if left <= 0:
                    return False
                nap = min(left, max(1, look_again() - self._clock.now()))
                self._changed.wait(nap / SECOND)
            return True


def _hears(queue: Queue, route: Route) -> bool:
    binding = binding_of(replace(queue, exchange_type="topic"))
    key = route.routing_key
    return queue.exchange == route.exchange and (
        queue.routing_key == key or binding.matches("topic", key)
    )
