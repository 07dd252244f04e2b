"""The ports of a broker, on Redis: each request is one script, or one command."""

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, TypeAlias, TypeVar

import msgspec
import redis

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
from beatd.brokers.redis.broadcast import ChannelSubscription
from beatd.brokers.redis.connection import Server
from beatd.brokers.redis.listening import MessageWait, ReleaseWait
from beatd.brokers.redis.wire import Wire
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Failover
from beatd.errors import BrokerRefused, TermOver
from beatd.instant import DAY, HOUR, SECOND, Instant, Span
from beatd.routing import Queue, Route
from beatd.timetable.ledger import LedgerCopy, Mark

logger = logging.getLogger(__name__)

T = TypeVar("T")

Command: TypeAlias = tuple[Any, ...]

CHUNK = 1000
"""Rows or messages for one command; Redis serves no one else meanwhile."""

REMEMBER_ANSWERS: Span = HOUR
REMEMBER_DEATHS: Span = 7 * DAY

CHANNEL, LIST = "channel", "0"
"""Kinds of destinations; a number above 0 is a list that lives for so many ms."""

_OUTCOMES = {
    ord("q"): Outcome.QUEUED,
    ord("d"): Outcome.DROPPED,
    ord("k"): Outcome.KNOWN,
}


class RedisBroker:
    """All ports of a broker, on one Redis or Valkey server.

    `options` are kombu's (`broker_transport_options`), `tls` is `broker_use_ssl`.
    Nothing is connected before the first request. One thread at a time may wait for
    messages and one for the lead; everything else is open to all threads.

    Of several URLs the next one is gone to, in the order that `failover` gives, when
    the present one cannot be reached. Each server keeps what it has: what was taken at
    one and is settled at another is delivered again where it came from, once the lease
    there has run out. So the lead, which has to be one, is only for a single URL.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        namespace: str,
        options: Mapping[str, Any] | None = None,
        tls: bool | Mapping[str, Any] = False,
        failover: Failover | None = None,
        clock: Clock | None = None,
    ) -> None:
        options = options or {}
        urls = [url] if isinstance(url, str) else url
        self._clock = clock or SystemClock()
        self._server = Server(urls, options, tls, failover)
        self._wires = {
            address: Wire.of(options, address.db)
            for address in self._server.addresses.values()
        }
        self._own = f"{self._wire.prefix}{{beatd:{namespace}}}:"
        self._nonce = secrets.token_hex(8)
        self._expiring: dict[str, dict[str, str]] = {}
        self._greeting = threading.Lock()
        self._greeted = -1  # the faults before the last greeting
        self._address = self._server.present
        self._moves = 0
        self._declared: dict[str, Queue] = {}
        self._leases: dict[str, str] = {}
        """By worker, the name of the lease that it began."""
        self._messages = MessageWait(self._server, self._key("delayed"), self._clock)
        self._releases = ReleaseWait(
            self._server, self._key("released"), self._key("lead"), self._clock
        )

    # Lead

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | None:
        number = self._run(
            "acquire",
            [self._key("lead"), self._key("term")],
            [holder, ttl, floor, self._nonce],
        )
        # Only now: had the answer been lost, the same nonce would know its own term.
        nonce, self._nonce = self._nonce, secrets.token_hex(8)
        return None if number is None else Term(number, nonce)

    def renew(self, term: Term, ttl: Span) -> bool:
        return bool(self._run("renew", [self._key("lead")], [_text(term), ttl]))

    def resign(self, term: Term) -> None:
        released = self._key("released")
        self._run("resign", [self._key("lead")], [_text(term), released])

    def let_go(self) -> None:
        """Leave the lead to run out: Redis alone holds it."""

    def leader(self) -> str | None:
        held: bytes | None = self._ask("GET", self._key("lead"))
        return held.decode().split(" ", 2)[2] if held else None

    def await_release(self, timeout: Span) -> bool:
        with self._server.answering():
            return self._releases.wait(timeout)

    # Emitter

    def emit(self, term: Term, batch: Sequence[Emission], ttl: Span) -> list[Outcome]:
        places, ways, way_of = self._ways(batch)
        outcomes: bytes | None = self._run(
            "emit",
            [self._key("lead"), self._key("ledger"), self._key("runs"), *places],
            [
                _text(term),
                ttl,
                len(batch),
                way_of,
                len(ways),
                *[emission.entry for emission in batch],
                *[_row(emission.mark) for emission in batch],
                *[emission.message for emission in batch],
                *places.values(),
                *ways,
                *[
                    part
                    for number, emission in enumerate(batch, 1)
                    if emission.run
                    for part in (number, emission.run)
                ],
            ],
        )
        if outcomes is None:
            raise _over(term)
        return [_OUTCOMES[letter] for letter in outcomes]

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        marks: dict[str, Mark] = {}
        for number, (name, row) in enumerate(self._rows_of("ledger")):
            if number % CHUNK == 0:
                on_part()
            try:
                marks[name.decode()] = _mark(row)
            except ValueError:
                logger.error(
                    "the ledger's row for %r is none of ours: %r",
                    name,
                    row[:80],
                    extra={"event": "ledger.unreadable"},
                )
        return LedgerCopy(marks, int(self._ask("GET", self._key("era")) or 0))

    def write_ledger(
        self, term: Term, marks: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        keys = [self._key("lead"), self._key("ledger"), self._key("era")]
        steps: list[list[Any]] = [
            [len(rows), *(part for name, mark in rows for part in (name, _row(mark)))]
            for rows in _chunks(list(marks.items()))
        ]
        steps.extend([0, *names] for names in _chunks(list(gone)))
        for step in steps or [[0]]:
            if not self._run("write_ledger", keys, [_text(term), era, *step]):
                raise _over(term)

    def running(self, entries: Collection[str]) -> dict[str, str]:
        current: dict[str, str] = {}
        for names in _chunks(list(entries)):
            runs = self._ask("HMGET", self._key("runs"), *names)
            found = zip(names, runs, strict=True)
            current.update((name, run.decode()) for name, run in found if run)
        return current

    def end_runs(self, runs: Mapping[str, str]) -> None:
        for ended in _chunks(list(runs.items())):
            self._run(
                "end_runs", [self._key("runs")], [x for run in ended for x in run]
            )

    # Sender

    def declare(self, queues: Collection[Queue]) -> None:
        for queue in queues:
            if queue.expires is not None:
                life = str(round(queue.expires * 1000))
                family = dict.fromkeys(self._wire.lists([queue.name]), life)
                self._expiring.update((name, family) for name in family)
            for command in self._wire.binding(queue, self._clock.now()):
                self._ask(*command)
            self._declared[queue.name] = queue

    def purge(self, queues: Collection[str]) -> int:
        return int(self._run("purge", list(self._wire.lists(queues)), []))

    def send(self, batch: Sequence[Outgoing]) -> None:
        commands = self._sending(batch)
        if len(commands) == 1 and commands[0][0] != "DELAY":
            self._ask(*commands[0])
        elif commands:
            self._settle("", (), commands)

    # Consumer

    def join(self, worker: str, lease: Span) -> None:
        name = self._lease(worker)
        self._run("join", [self._key("workers")], [name, lease])
        self._leases[worker] = name

    def stay(self, worker: str, lease: Span) -> bool:
        name = self._lease(worker)
        if self._leases.get(worker) != name:
            return False  # what it holds is at an address that was left
        return bool(self._run("stay", [self._key("workers")], [name, lease]))

    def leave(self, worker: str) -> None:
        self._leases.pop(worker, None)
        name = self._lease(worker)
        self._run("leave", self._keys_of(name), [name, REMEMBER_DEATHS])

    def take(
        self, worker: str, queues: Sequence[str], limit: int, attempt: str
    ) -> list[Delivery]:
        lists = self._wire.lists(queues)
        own = ("serial", "deliveries", "delayed", "late")
        name = self._lease(worker)
        keys = [self._key("workers"), self._in_flight(name), *map(self._key, own)]
        given = self._run("take", [*keys, *lists], [name, attempt, limit, ENOUGH])
        parts = iter(given)
        return [
            Delivery(f"{attempt}:{number}", lists[name.decode()], message, deaths + 1)
            for number, name, message, deaths in zip(
                parts, parts, parts, parts, strict=True
            )
        ]

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        with self._server.answering():
            return self._messages.wait(list(self._wire.lists(queues)), timeout)

    def interrupt(self) -> None:
        self._messages.bell.ring()

    def acknowledge(
        self, worker: str, done: Sequence[Done], send: Sequence[Outgoing] = ()
    ) -> None:
        self._settle(worker, done, self._sending(send))

    def give_back(self, worker: str, deliveries: Sequence[Delivery]) -> None:
        tokens = [delivery.token for delivery in deliveries]
        self._run("give_back", [self._in_flight(self._lease(worker))], tokens)

    def delay(self, worker: str, delivery: Delivery, until: Instant) -> None:
        in_flight = self._in_flight(self._lease(worker))
        keys = [in_flight, self._key("delayed"), self._key("late")]
        # Not the instant: the server's clock need not agree with ours.
        wait = until - self._clock.now()
        self._run("delay", keys, [delivery.token, secrets.token_hex(8), wait])

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        lists = self._wire.lists(queues)
        waiting = self._ask("ZRANGE", self._key("delayed"), 0, CHUNK - 1, "WITHSCORES")
        due = dict(zip(waiting[::2], waiting[1::2], strict=True))
        held = self._ask("HMGET", self._key("late"), *due) if due else []
        seconds, micros = self._ask("TIME")
        ahead = int(seconds) * SECOND + int(micros) // 1000 - self._clock.now()
        found = []
        for moment, late in zip(due.values(), held, strict=True):
            if late is not None:  # it came due meanwhile
                place, message = _unpack(late)
                if queue := lists.get(place):
                    found.append(Delayed(queue, message, int(float(moment)) - ahead))
        return found[:limit]

    def bury(
        self,
        worker: str,
        delivery: Delivery,
        reason: str,
        task: str = "",
        task_id: str = "",
    ) -> None:
        record = {
            "queue": delivery.queue,
            "reason": reason,
            "at": self._clock.now(),
            "deliveries": delivery.deliveries,
            "worker": worker,
            "size": len(delivery.message),
            "task": task,
            "task_id": task_id,
        }
        own = ("dead", "dead_messages", "dead_serial", "deliveries")
        keys = [self._in_flight(self._lease(worker)), *map(self._key, own)]
        arguments = [delivery.token, msgspec.json.encode(record), _digest(delivery)]
        self._run("bury", keys, arguments)

    def recover(self) -> int:
        dead = iter(self._run("dead_workers", [self._key("workers")], []))
        return sum(
            self._run(
                "leave",
                self._keys_of(worker.decode()),
                [worker, REMEMBER_DEATHS, lease_end],
            )
            for worker, lease_end in zip(dead, dead, strict=True)
        )

    # Dead letters

    def dead_letters(self) -> list[DeadLetter]:
        letters = {
            int(number): DeadLetter(number.decode(), **msgspec.json.decode(record))
            for number, record in self._rows_of("dead")
        }
        return [letters[number] for number in sorted(letters)]

    def dead_message(self, letter: str) -> bytes | None:
        held = self._ask("HGET", self._key("dead_messages"), letter)
        return None if held is None else _unpack(held)[1]

    def retry_dead(self, letters: Collection[str]) -> int:
        return self._exhume("retry_dead", letters)

    def drop_dead(self, letters: Collection[str]) -> int:
        return self._exhume("drop_dead", letters)

    def _exhume(self, script: str, letters: Collection[str]) -> int:
        keys = [self._key("dead"), self._key("dead_messages")]
        return sum(self._run(script, keys, some) for some in _chunks(list(letters)))

    # Broadcast

    def listen(self, queue: Queue) -> ChannelSubscription:
        return ChannelSubscription(
            self._server, lambda: self._wire, queue, self.declare, self._clock
        )

    def ask(self, question: Outgoing, answers: Queue, timeout: Span) -> list[bytes]:
        end = self._clock.elapsed() + timeout
        place = self._wire.list_of(answers.name, 0)
        came: list[bytes] = []
        self.declare([answers])
        try:
            channel = self._wire.channel(question.route)
            heard = self._ask("PUBLISH", channel, question.message)
            while len(came) < heard and (left := end - self._clock.elapsed()) > 0:
                if answer := self._ask("BRPOP", place, left / SECOND):
                    came.append(answer[1])
        finally:
            self._declared.pop(answers.name, None)
            for command in self._wire.unbinding(answers):
                self._ask(*command)
        return came

    # All

    def ping(self) -> str:
        return self._server.check_version()

    def risks(self) -> list[str]:
        self._greet()
        with self._server.answering() as client:
            try:
                policy = client.info("memory").get("maxmemory_policy", "noeviction")
            except redis.exceptions.NoPermissionError:
                return []  # nor may we change it
        if policy == "noeviction":
            return []
        lost = "the lead and results" if policy.startswith("volatile") else "messages"
        return [
            f"its maxmemory-policy is {policy}: when it is full it throws keys away,"
            f" {lost} among them; set it to noeviction"
        ]

    def close(self) -> None:
        self._messages.close()
        self._releases.close()
        self._server.close()

    def _rows_of(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Read a hash, bit by bit: what changes meanwhile may come as it was."""
        cursor = None
        while cursor != 0:
            cursor, rows = self._ask(
                "HSCAN", self._key(name), cursor or 0, "COUNT", 5 * CHUNK
            )
            yield from rows.items()

    def _key(self, name: str) -> str:
        return self._own + name

    def _in_flight(self, worker: str) -> str:
        return self._key(f"inflight:{worker}")

    def _answered(self, worker: str) -> str:
        return self._key(f"answered:{worker}")

    def _keys_of(self, worker: str) -> list[str]:
        return [
            self._key("workers"),
            self._in_flight(worker),
            self._key("deliveries"),
            self._answered(worker),
        ]

    @property
    def _wire(self) -> Wire:
        return self._wires[self._server.present]

    def _lease(self, worker: str) -> str:
        """Name the worker's lease at the present address."""
        self._greet()
        return _lease(worker, self._moves)

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        self._greet()
        with self._server.answering() as client:
            return _call(client, name, keys, arguments)

    def _ask(self, *command: Any) -> Any:
        self._greet()
        with self._server.answering() as client:
            return client.execute_command(*command)

    def _greet(self) -> None:
        """Agree with the server that is present, unless that was done already."""
        if self._greeted != self._server.faults:
            with self._greeting:
                faults = self._server.faults
                if self._greeted != faults and self._arrive():
                    self._greeted = faults

    def _arrive(self) -> bool:
        """Look who answers, and tell it what it may not know; False if it refuses."""
        self._server.check_version()
        address = self._server.present
        moves = self._moves + (address is not self._address)
        told = True
        try:
            self._introduce()
        except BrokerRefused:
            if self._server.present is not address:
                raise  # it was left for the next one
            told = False  # it is full, say, and what we are asked for makes room
        if address is not self._address:
            words = "going on at %s: %s failed"
            event = {"event": "broker.moved"}
            logger.warning(words, address.name, self._address.name, extra=event)
        self._address, self._moves = address, moves
        return told

    def _introduce(self) -> None:
        """Declare what was declared before.

        No lease is begun: that one was lost is for `stay` to say, before another is.
        """
        with self._server.answering() as client:
            for queue in [*self._declared.values()]:
                for command in self._wire.binding(queue, self._clock.now()):
                    client.execute_command(*command)

    def _settle(
        self, worker: str, done: Sequence[Done], commands: Sequence[Command]
    ) -> None:
        arguments: list[Any] = [len(done), REMEMBER_ANSWERS]
        for one in done:
            arguments += one.delivery.token, one.entry, one.run, _digest(one.delivery)
        for command in commands:
            arguments += len(command), *command
        name = self._lease(worker)
        keys = [
            self._in_flight(name),
            self._key("runs"),
            self._key("deliveries"),
            self._answered(name),
        ]
        self._run("acknowledge", keys, arguments)

    def _sending(self, batch: Sequence[Outgoing]) -> list[Command]:
        """Give the commands that send the batch: acknowledge.lua says which there are.

        Those for one list become one; what cannot be taken back comes last.
        """
        pushed: dict[str, list[bytes]] = {}
        delays: list[Command] = []
        published: list[Command] = []
        for outgoing in batch:
            for place, kind in self._destinations(outgoing.route):
                if kind == CHANNEL:
                    published.append(("PUBLISH", place, outgoing.message))
                elif outgoing.due is None:
                    pushed.setdefault(place, []).append(outgoing.message)
                else:
                    wait = outgoing.due - self._clock.now()
                    delays.append(self._delay(place, wait, outgoing.message))
        pushes = [
            ("LPUSH", place, *some)
            for place, messages in pushed.items()
            for some in _chunks(messages)
        ]
        lives = [
            ("PEXPIRE", name, life)
            for place in pushed
            for name, life in self._expiring.get(place, {}).items()
        ]
        return [*pushes, *delays, *lives, *published]

    def _delay(self, place: str, wait: Span, message: bytes) -> Command:
        keys = self._key("delayed"), self._key("late")
        name = place.encode()
        held = b"0:%d:%b%b" % (len(name), name, message)
        return ("DELAY", *keys, secrets.token_hex(8), wait, held)

    def _ways(
        self, batch: Sequence[Emission]
    ) -> tuple[dict[str, str], list[str], bytes]:
        """Number the places that a batch goes to, and the ways to them.

        Gives each list or channel with its kind; for each way the numbers of its
        places; and the way of each emission, two bytes for each.
        """
        places: dict[str, str] = {}
        numbers: dict[str, int] = {}
        ways: list[str] = []
        known: dict[int, bytes] = {}  # by identity: hashing a Route costs too much
        way_of = []
        for emission in batch:
            route = emission.route
            way = known.get(id(route))
            if way is None:
                destinations = self._destinations(route) if route else []
                places.update(destinations)
                for place, _ in destinations:
                    numbers.setdefault(place, len(numbers) + 1)
                ways.append(",".join(str(numbers[place]) for place, _ in destinations))
                way = known[id(route)] = len(ways).to_bytes(2, "big")
            way_of.append(way)
        for place in numbers:
            places.update(self._expiring.get(place, {}))
        return places, ways, b"".join(way_of)

    def _destinations(self, route: Route) -> list[tuple[str, str]]:
        """Give the lists or the channel that a message goes to, with their kind."""
        if route.exchange_type == "fanout":
            return [(self._wire.channel(route), CHANNEL)]
        if route.queue:
            return [(self._wire.list_of(route.queue, route.priority), LIST)]
        members = self._ask("SMEMBERS", self._wire.bindings(route.exchange))
        queues = self._wire.bound(route, members)
        if not queues:
            logger.warning(
                "no queue is bound to exchange %r under %r: the message is dropped",
                route.exchange,
                route.routing_key,
                extra={"event": "route.unbound"},
            )
        return [(self._wire.list_of(name, route.priority), LIST) for name in queues]


def _lease(worker: str, moves: int) -> str:
    """Name a worker's lease: after each move it is another one.

    What is in flight at an address that was left may have been settled elsewhere, in
    vain: it must not be held for ever when the worker comes back there.
    """
    return f"{worker}/{moves}" if moves else worker


def _call(client: Any, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
    """Run a script; a server that does not have it yet is given its text."""
    text, digest = _script(name)
    asked = (len(keys), *keys, *arguments)
    try:
        return client.execute_command("EVALSHA", digest, *asked)
    except redis.exceptions.NoScriptError:
        return client.execute_command("EVAL", text, *asked)


def _text(term: Term) -> str:
    return f"{term.number} {term.nonce} "


def _over(term: Term) -> TermOver:
    return TermOver(f"term {term.number} is over: someone else may lead")


def _row(mark: Mark) -> str:
    """Give the ledger's text for a mark; scripts read no more of it than the slot."""
    last = "-" if mark.last is None else mark.last
    return f"{mark.slot} {mark.runs} {last} {mark.fingerprint}"


def _mark(row: bytes) -> Mark:
    slot, runs, last, fingerprint = row.decode().split(" ", 3)
    return Mark(int(slot), fingerprint, int(runs), None if last == "-" else int(last))


def _unpack(held: bytes) -> tuple[str, bytes]:
    """Give list and message of a held message; take.lua says its form."""
    _, size, rest = held.split(b":", 2)
    return rest[: int(size)].decode(errors="replace"), rest[int(size) :]


def _digest(delivery: Delivery) -> str:
    """Name the message among those that a worker died with; "" if it is not one."""
    if delivery.deliveries == 1:
        return ""
    return hashlib.sha1(delivery.message, usedforsecurity=False).hexdigest()


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[at : at + CHUNK] for at in range(0, len(items), CHUNK))


@cache
def _script(name: str) -> tuple[str, str]:
    """Read a script; give its text, and the digest by which the server knows it."""
    text = resources.files(__package__).joinpath(f"{name}.lua").read_text("utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
