"""The queues of a broker on Redis: each request is one script, or one command."""

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from beatd.brokers.items import (
    DONE,
    ENOUGH,
    GONE,
    Acknowledge,
    Act,
    Answer,
    Begin,
    DeadLetter,
    Delay,
    Delayed,
    Delivery,
    Effect,
    Forbidden,
    GiveBack,
    Outgoing,
    Overview,
    SetAside,
    Suspects,
    idle,
    letter_of,
    pass_over,
)
from beatd.brokers.redis.failover import (
    SMALLEST_LARGEST,
    Server,
    is_about_a_key,
    too_large,
)
from beatd.brokers.redis.lead import RedisLead
from beatd.brokers.redis.listening import (
    INVALIDATIONS,
    ChannelSubscription,
    MessageWait,
    instant_in,
)
from beatd.brokers.redis.needs import forbidden, needs_of
from beatd.brokers.redis.observer import Observer
from beatd.brokers.redis.requests import CHANNEL, CHUNK, LIST, in_chunks
from beatd.brokers.redis.rights import (
    channel_risks,
    eviction_risks,
    refused_channels,
    replication_risks,
)
from beatd.brokers.redis.unacked import Unacked
from beatd.brokers.redis.wire import WireNames
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Failover
from beatd.errors import BrokerRefused, ItemRefused
from beatd.instant import DAY, HOUR, SECOND, Span
from beatd.routing import Queue

Command: TypeAlias = tuple[Any, ...]

REMEMBER_ANSWERS: Span = HOUR
REMEMBER_DEATHS: Span = 7 * DAY

MOST_PASSED_OVER = 1_000
"""So many suspects are passed over by one `take`, which then returns no more."""

HELD_BACK, KEPT_APART = -1, -2
"""What take.lua answers in the place of a token's number."""

ANSWER_NAP: Span = SECOND // 10
"""How long one request waits for an answer: any socket's time-out is longer."""

NOT_REMEMBERED = 0
"""The number of a request that may be done twice when it is made again."""

_record = msgspec.json.Decoder(dict[str, Any])
_ANSWERS = {b"d": DONE, b"g": GONE}


class RedisBroker(RedisLead):
    """All ports of a broker, on one Redis or Valkey server.

    `options` are kombu's (`broker_transport_options`), `tls` is `broker_use_ssl`, and
    `min_replicas` is `beat_min_replicas`.
    Nothing is connected before the first request. One thread at a time may wait for
    messages and one for the lead; everything else is open to all threads.

    With several URLs the broker moves to the next one, in the order that `failover`
    gives, when the present one cannot be reached. Each server keeps its messages: one
    that was taken at the first server and settled at the second is delivered again by
    the first, once the lease there has run out. The lead has to be one, so that it can
    only be used with a single URL.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        namespace: str,
        options: Mapping[str, Any] | None = None,
        tls: bool | Mapping[str, Any] = False,
        failover: Failover | None = None,
        min_replicas: int = 0,
        clock: Clock | None = None,
    ) -> None:
        options = options or {}
        urls = [url] if isinstance(url, str) else url
        server = Server(urls, options, tls, failover)
        wires = {
            one: WireNames.of(options, one.db) for one in server.addresses.values()
        }
        super().__init__(server, wires, namespace, clock or SystemClock())
        self._min_replicas = min_replicas
        self._joined: dict[str, str] = {}
        """By worker, the name of the lease that it began."""
        self._settling: dict[str, list[str]] = {}
        self._unacked = Unacked(
            self._ask, self._run, lambda: self._wire, options, self._clock
        )
        self.restore_interval = self._unacked.interval
        self._messages = MessageWait(self._server, self._key("delayed"), self._clock)

    # Sender

    def purge(self, queues: Collection[str]) -> int:
        keys = [self._key("runs"), *self._wire.lists(queues)]
        total, are_left = 0, 1
        while are_left:
            removed, are_left = self._run("purge", keys, [])
            total += removed
        return total

    def send(self, batch: Sequence[Outgoing]) -> None:
        commands = self._sending(batch)
        if len(commands) == 1 and commands[0][0] != "DELAY":
            self._ask(*commands[0])
        elif commands:
            self._settle("", (), commands, NOT_REMEMBERED)

    # Consumer

    def join(self, worker: str, lease: Span, queues: Collection[str] = ()) -> None:
        name = self._lease(worker)
        self._longest_lease = max(lease, self._longest_lease)
        told = msgspec.json.encode([*queues])
        self._run("join", [*self._workers, self._key("queues")], [name, lease, told])
        self._joined[worker] = name

    def stay(self, worker: str, lease: Span) -> bool:
        name = self._lease(worker)
        if self._joined.get(worker) != name:
            return False  # its messages are at an address that was left
        return bool(self._run("stay", self._workers, [name, lease]))

    def reclaim(
        self,
        worker: str,
        held: Collection[str],
        request: int,
        ended: Collection[str] = (),
    ) -> int:
        name = self._lease(worker)
        keys = [self._in_flight(name), self._key("runs"), self._ended(name)]
        about = [" ".join(held), request, " ".join(ended), REMEMBER_DEATHS]
        return int(self._run("reclaim", keys, about))

    def leave(self, worker: str) -> None:
        self._joined.pop(worker, None)
        name = self._lease(worker)
        self._end_lease(name, [name, REMEMBER_DEATHS])

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
        lists = self._wire.lists(queues)
        refused: dict[str, str] = {}
        how = (suspects.value, MOST_PASSED_OVER, together)
        try:
            given = self._take(worker, list(lists), limit, request, how)
        except BrokerRefused as refusal:
            kinds = dict.fromkeys(lists, LIST)
            found = self._forbidden(kinds) if is_about_a_key(refusal) else {}
            if not found:
                raise
            for place, reason in found.items():
                refused.setdefault(lists[place], reason)
            others = [name for name in lists if name not in found]
            given = self._take(worker, others, limit, request, how)
        deliveries = []
        parts = iter(given)
        attempt = f"{request}:{next(parts, b'').decode()}"
        for number, name, content, deaths in zip(
            parts, parts, parts, parts, strict=True
        ):
            if number == KEPT_APART:
                self._say_apart(self._key("late"), name)
                continue
            queue = lists[name.decode()]
            if number > 0:
                token = f"{attempt}:{number}"
                deliveries.append(Delivery(token, queue, content, deaths + 1))
            elif number == HELD_BACK:
                on_held_back()
            else:
                reason = self._server.refusal(content.decode())
                refused.setdefault(queue, f"{name.decode()}: {reason}")
        for queue, reason in refused.items():
            on_refused(queue, reason)
        return deliveries

    def _take(
        self,
        worker: str,
        lists: Sequence[str],
        limit: int,
        request: int,
        how: Sequence[Any],
    ) -> list[Any]:
        own = ("serial", "deliveries", "delayed", "late")
        name = self._lease(worker)
        keys = [
            self._key("workers"),
            self._in_flight(name),
            *map(self._key, own),
            self._took(name),
            self._apart,
            self._ended(name),
        ]
        about = [name, request, limit, ENOUGH, REMEMBER_ANSWERS, *how]
        given: list[Any] = self._run("take", [*keys, *lists], about)
        return given

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        with self._server.answering():
            return self._messages.wait(list(self._wire.lists(queues)), timeout)

    def interrupt(self) -> None:
        self._messages.bell.ring()

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        return self._settle(worker, acts, self._sending(sends), request)

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        lists = self._wire.lists(queues)
        waiting = self._ask("ZRANGE", self._key("delayed"), 0, CHUNK - 1, "WITHSCORES")
        due = dict(zip(waiting[::2], waiting[1::2], strict=True))
        held = self._ask("HMGET", self._key("late"), *due) if due else []
        seconds, micros = self._ask("TIME")
        ahead = int(seconds) * SECOND + int(micros) // 1000 - self._clock.now()
        found = []
        for moment, late in zip(due.values(), held, strict=True):
            if late is not None:  # else it came due meanwhile
                try:
                    place, message = _unpack(late)
                except ValueError:
                    words = "what is delayed until %r is none of ours: %r"
                    self._oddities.tell("delayed.unreadable", words, moment, late[:80])
                    continue
                if queue := lists.get(place):
                    found.append(Delayed(queue, message, instant_in(moment) - ahead))
        return found[:limit]

    def recover(self) -> int:
        dead = [(one.worker, one.ends) for one in self._leases_run_out()]
        return sum(
            self._end_lease(name, [name, REMEMBER_DEATHS, ends]) for name, ends in dead
        )

    def _end_lease(self, name: str, about: Sequence[Any]) -> int:
        """Put back what is in flight under a lease; return the number of messages."""
        number, *odd = self._run("leave", self._keys_of(name), about)
        for token in odd:
            self._say_apart(self._in_flight(name), token)
        return int(number)

    def _say_apart(self, key: str, field: bytes) -> None:
        words = "what was held under %r is no message that beatd put there: it is kept"
        self._oddities.tell(
            "held.unreadable", f"{words} in %s", f"{key} {field!r}", self._apart
        )

    def restore_unacked(self) -> int:
        return self._unacked.restore()

    # Observed

    def overview(self, queues: Collection[str]) -> Overview:
        self._greet()
        return Observer(self._answers, self._key, self._wire).overview(queues)

    def waiting(self, queue: str, limit: int) -> list[bytes]:
        lists = self._wire.lists([queue])
        answers = self._answers([("LRANGE", one, -limit, -1) for one in lists])
        if refusal := next(
            (one for one in answers if isinstance(one, Exception)), None
        ):
            raise BrokerRefused(f"queue {queue}: {refusal}")
        return [one for part in answers for one in reversed(part)][:limit]

    # Dead letters

    def dead_letters(self) -> list[DeadLetter]:
        letters: dict[int, DeadLetter] = {}
        for number, record in self._rows_of("dead"):
            try:
                letters[int(number)] = letter_of(
                    {**_record.decode(record), "id": number.decode()}
                )
            except (ValueError, RecursionError):
                words = "the dead letter %r is none of ours, and passed over: %r"
                self._oddities.tell("dead.unreadable", words, number, record[:80])
        return [letters[number] for number in sorted(letters)]

    def dead_message(self, letter: str) -> bytes | None:
        held = self._ask("HGET", self._key("dead_messages"), letter)
        if held is None:
            return None
        try:
            return _unpack(held)[1]
        except ValueError:
            return bytes(held)  # none of ours: people are to see what is there

    def retry_dead(
        self,
        letters: Collection[str],
        on_refused: Callable[[str, str], object] = pass_over,
    ) -> int:
        total = 0
        for some in in_chunks(list(letters)):
            number, *refused = self._run("retry_dead", self._dead, some)
            total += number
            parts = iter(refused)
            for letter, reason in zip(parts, parts, strict=True):
                on_refused(letter.decode(), self._server.refusal(reason.decode()))
        return total

    def drop_dead(self, letters: Collection[str]) -> int:
        chunks = in_chunks(list(letters))
        return sum(self._run("drop_dead", self._dead, some) for some in chunks)

    @property
    def _dead(self) -> list[str]:
        """The keys of dead letters: their records, their messages."""
        return [self._key("dead"), self._key("dead_messages")]

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
            receivers = self._ask("PUBLISH", channel, question.message)
            while len(came) < receivers and (left := end - self._clock.elapsed()) > 0:
                nap = min(left, ANSWER_NAP) / SECOND
                if answer := self._ask("BRPOP", place, nap):
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
        released = self._key("released")
        refused = refused_channels(self._server, [released, INVALIDATIONS])
        if released not in refused and self._forbidden({released: CHANNEL}):
            refused[released] = "to publish on it"
        return [
            *eviction_risks(self._server),
            *replication_risks(self._server, self._min_replicas),
            *channel_risks(refused, released),
        ]

    @property
    def user(self) -> str:
        return self._server.present.user

    def forbidden(self, queues: Collection[Queue]) -> list[Forbidden]:
        needs = needs_of(self._key(""), self._wire, self._unacked.keys, queues)
        return forbidden(self._server, needs)

    def close(self) -> None:
        self._messages.close()
        self._releases.close()
        self._server.close()

    # Within

    def _in_flight(self, worker: str) -> str:
        return self._key(f"inflight:{worker}")

    def _took(self, worker: str) -> str:
        return self._key(f"took:{worker}")

    def _ended(self, worker: str) -> str:
        return self._key(f"ended:{worker}")

    def _answered(self, worker: str) -> str:
        return self._key(f"answered:{worker}")

    def _keys_of(self, worker: str) -> list[str]:
        return [
            *self._workers,
            self._in_flight(worker),
            self._key("deliveries"),
            self._key("runs"),
            self._apart,
            self._ended(worker),
            self._key("queues"),
        ]

    @property
    def _apart(self) -> str:
        return self._key("unreadable:held")

    def _lease(self, worker: str) -> str:
        """Return the name of the worker's lease at the present address."""
        self._greet()
        return _lease(worker, self._moves)

    def _settle(
        self,
        worker: str,
        acts: Sequence[Act],
        commands: Sequence[Command],
        request: int,
    ) -> list[Answer]:
        words = [part for one in commands for part in (len(one), *one)]
        sends = len(words)
        for act in acts:
            words += self._words(worker, act)
        if not commands and {*map(type, acts)} <= {Acknowledge}:
            request = NOT_REMEMBERED  # made again, it has nothing to do
        keys = self._keys_to_settle(self._lease(worker))
        counts = [request, REMEMBER_ANSWERS, len(acts), sends]
        answers: bytes = self._run("settle", keys, [*counts, *words])
        if not answers:
            return [DONE] * len(acts)
        if b"WRONGTYPE" in answers:
            self._set_aside_odd(keys)  # for the next try
        return [self._answer(line) for line in answers.split(b"\n")]

    def _keys_to_settle(self, name: str) -> list[str]:
        """Return the keys of settle.lua for a lease; made once, used for each task."""
        if name not in self._settling:
            own = ("runs", "deliveries", "delayed", "late")
            dead = ("dead", "dead_messages", "dead_serial")
            keys = map(self._key, (*own, *dead))
            self._settling[name] = [self._in_flight(name), self._answered(name), *keys]
        return self._settling[name]

    def _words(self, worker: str, act: Act) -> Command:
        """Return an act as the words that settle.lua reads."""
        token = act.delivery.token
        match act:
            case Begin(delivery, entry, run):
                if run:
                    return "begin", token, entry, run, _digest(delivery)
                return self._words(worker, Acknowledge(delivery))
            case Acknowledge(goes_on=True):
                return "pass_on", token
            case Acknowledge(delivery, entry, run):
                if run or delivery.deliveries > 1:
                    return "finish", token, entry, run, _digest(delivery)
                return "acknowledge", token
            case Delay(_, until):
                # Not the instant: the server's clock need not agree with ours.
                wait = until - self._clock.now()
                return "delay", token, secrets.token_hex(8), wait
            case SetAside(delivery, way_back=way_back):
                record, held = self._record(worker, act), b""
                if way_back:
                    place = self._wire.list_of(way_back.queue, way_back.priority)
                    held = _held(place, delivery.message)
                return "set_aside", token, record, _digest(delivery), held
            case GiveBack():
                return "give_back", token

    def _record(self, worker: str, act: SetAside) -> bytes:
        """Return what is known of a dead letter, in JSON."""
        record = {
            "queue": act.delivery.queue,
            "reason": act.reason,
            "at": self._clock.now(),
            "deliveries": act.delivery.deliveries,
            "worker": worker,
            "size": len(act.delivery.message),
            "task": act.task,
            "task_id": act.task_id,
        }
        return msgspec.json.encode(record)

    def _answer(self, line: bytes) -> Answer:
        """Return the server's answer to one act."""
        if answer := _ANSWERS.get(line):
            return answer
        return Answer(Effect.REFUSED, self._server.refusal(line[1:].decode()))

    def _sending(self, batch: Sequence[Outgoing]) -> list[Command]:
        """Return the commands that send the batch; settle.lua has their forms.

        Messages for one list share a command. Publishing, which cannot be undone, comes
        last.
        """
        pushed: dict[str, list[bytes]] = {}
        delays: list[Command] = []
        published: list[Command] = []
        for outgoing in batch:
            self._check_size(len(outgoing.message))
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
            for some in in_chunks(messages)
        ]
        lives = [
            ("PEXPIRE", name, life)
            for place in pushed
            for name, life in self._expiring.get(place, {}).items()
        ]
        return [*pushes, *delays, *lives, *published]

    def _check_size(self, size: int) -> None:
        """Raise ItemRefused for what is so large that the server hangs up."""
        if size > SMALLEST_LARGEST and size > (largest := self._server.largest_text()):
            raise ItemRefused(
                f"{self._server.name} refuses: {too_large(size, largest)}"
            )

    def _delay(self, place: str, wait: Span, message: bytes) -> Command:
        return ("DELAY", secrets.token_hex(8), wait, _held(place, message))


def _lease(worker: str, moves: int) -> str:
    """Return the name of a worker's lease; after each move it is another one.

    The worker may have settled, at another address, messages that are in flight at one
    that it left. They must not be held for ever when the worker comes back there.
    """
    return f"{worker}/{moves}" if moves else worker


def _held(place: str, message: bytes) -> bytes:
    """Return a message as what is held for a list; prelude.lua has its form."""
    name = place.encode()
    return b"0:%d:%b%b" % (len(name), name, message)


def _unpack(held: bytes) -> tuple[str, bytes]:
    """Return list and message of a held message; prelude.lua has its form."""
    _, size, rest = held.split(b":", 2)
    return rest[: int(size)].decode(errors="replace"), rest[int(size) :]


def _digest(delivery: Delivery) -> str:
    """Return the SHA-1 of a message that a worker died with; "" for other messages."""
    if delivery.deliveries == 1:
        return ""
    return hashlib.sha1(delivery.message, usedforsecurity=False).hexdigest()
