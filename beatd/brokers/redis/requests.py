"""Requests to Redis: scripts and commands, at the present address."""

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, TypeVar

import redis

from beatd.brokers.redis.connection import Address
from beatd.brokers.redis.failover import Server, is_about_a_key, may_be_odd
from beatd.brokers.redis.wire import WireNames
from beatd.clock import Clock
from beatd.errors import BrokerRefused
from beatd.event_log import EventLog
from beatd.instant import Span
from beatd.routing import Queue, Route
from beatd.text import counted

tell = EventLog(__name__)

T = TypeVar("T")

_KINDS = {
    "workers": "zset",
    "leases": "hash",
    "queues": "hash",
    "inflight": "hash",
    "answered": "string",
    "took": "string",
    "ended": "string",
    "serial": "number",
    "deliveries": "hash",
    "delayed": "zset",
    "late": "hash",
    "runs": "hash",
    "pages": "list",
    "history": "hash",
    "notes": "hash",
}
"""The types of those keys of beatd's own without which no worker can go on. What they
hold can be made anew, but for the messages in them, which are kept."""

CHUNK = 1000
"""The most rows or messages in one command; Redis serves no one else meanwhile."""

CHANNEL, LIST = "channel", "0"
"""Kinds of destinations; a number above 0 is a list that expires after so many ms."""


class RedisRequests:
    """Makes requests to the present server, and first declares the queues there."""

    def __init__(
        self,
        server: Server,
        wires: Mapping[Address, WireNames],
        namespace: str,
        clock: Clock,
    ) -> None:
        self._server = server
        self._wires = wires
        self._clock = clock
        self._own = f"{self._wire.prefix}{{beatd:{namespace}}}:"
        self._expiring: dict[str, dict[str, str]] = {}
        self._greeting = threading.Lock()
        self._greeted = -1  # the server's count of faults at the last greeting
        self._address = self._server.present
        self._moves = 0
        self._declared: dict[str, Queue] = {}
        self._undeclared: set[str] = set()
        """Queues of which it was said that they cannot be declared."""

    def declare(self, queues: Collection[Queue]) -> None:
        for queue in queues:
            if queue.expires is not None:
                life = str(round(queue.expires * 1000))
                family = dict.fromkeys(self._wire.lists([queue.name]), life)
                self._expiring.update((name, family) for name in family)
        self._greet()
        self._bind(queues)
        self._declared.update((queue.name, queue) for queue in queues)

    def _bind(self, queues: Collection[Queue]) -> None:
        """Declare queues, in few round trips; one that is refused holds up no other."""
        now = self._clock.now()
        commands = [
            (queue, command)
            for queue in queues
            for command in self._wire.binding(queue, now)
        ]
        for part in in_chunks(commands):
            answers = self._answers([command for _, command in part])
            for (queue, _), answer in zip(part, answers, strict=True):
                if isinstance(answer, Exception):
                    self._meet_undeclared(queue, answer)

    def _answers(self, commands: Collection[Sequence[Any]]) -> list[Any]:
        """Return the answers to these commands, which go in one round trip.

        The answer to one that is refused is the error.
        """
        with self._server.answering() as client:
            pipe = client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers

    def _meet_undeclared(self, queue: Queue, answer: Exception) -> None:
        """Say that a queue is refused; raise what concerns the whole server."""
        try:
            with self._server.answering():
                raise answer
        except BrokerRefused as refusal:
            if not is_about_a_key(refusal):
                raise
            self._say_undeclared(queue, refusal)

    def _say_undeclared(self, queue: Queue, refusal: BrokerRefused) -> None:
        if queue.name not in self._undeclared:
            self._undeclared.add(queue.name)
            tell.error(
                "declare.refused",
                "queue %s cannot be bound to exchange %r (key %s): %s; what is sent to"
                " that exchange may not reach it; mend it and start beatd again",
                queue.name,
                queue.exchange,
                self._wire.bindings(queue.exchange),
                refusal,
                queue=queue.name,
            )

    def _key(self, name: str) -> str:
        return self._own + name

    @property
    def _wire(self) -> WireNames:
        return self._wires[self._server.present]

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._request(lambda client: _call(client, name, keys, arguments), keys)

    def _run_and_wait(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], wait: "Wait"
    ) -> Any:
        """Run a script, and return once so many replicas have what it has written.

        Raises BrokerUnavailable if they do not have it in time.
        """
        return self._request(
            lambda client: _call_and_wait(client, name, keys, arguments, wait), keys
        )

    def _ask(self, *command: Any) -> Any:
        return self._request(lambda client: client.execute_command(*command), command)

    def _request(self, make: Callable[[Any], Any], words: Sequence[Any]) -> Any:
        """Make a request; once more if an own key among its words is of a wrong type.

        Such a key is kept under another name before that.
        """
        self._greet()
        try:
            with self._server.answering() as client:
                return make(client)
        except BrokerRefused as refusal:
            keys = [word for word in words if isinstance(word, str)]
            if not may_be_odd(refusal) or not self._set_aside_odd(keys):
                raise
        with self._server.answering() as client:
            return make(client)

    def _set_aside_odd(self, keys: Sequence[str]) -> bool:
        """Keep own keys of a wrong type under other names; return whether any was."""
        kinds = {key: self._kind(key) for key in keys}
        own = {key: kind for key, kind in kinds.items() if kind}
        if not own:
            return False
        apart = f"{self._own}unreadable:{secrets.token_hex(8)}:"
        pairs = [(key, apart + key.removeprefix(self._own)) for key in own]
        flat = [name for pair in pairs for name in pair]
        with self._server.answering() as client:
            odd = _call(client, "set_aside", flat, [*own.values()])
        for key in odd:
            tell.error(
                "key.unreadable",
                "the key %s was none that beatd writes: it is kept as %s",
                key.decode(),
                dict(pairs)[key.decode()],
            )
        return bool(odd)

    def _kind(self, key: str) -> str | None:
        """Return the type that a key of the deliveries' has; None for other keys."""
        name = key.removeprefix(self._own) if key.startswith(self._own) else ""
        return _KINDS.get(name.partition(":")[0])

    def _greet(self) -> None:
        """Check the present server and declare the queues, if that is not done yet."""
        if self._greeted != self._server.faults:
            with self._greeting:
                faults = self._server.faults
                if self._greeted != faults and self._arrive():
                    self._greeted = faults

    def _arrive(self) -> bool:
        """Check the version and declare the queues; False if the latter is refused."""
        self._server.check_version()
        address = self._server.present
        moves = self._moves + (address is not self._address)
        told = True
        try:
            self._introduce()
        except BrokerRefused:
            if self._server.present is not address:
                raise  # that address was left for the next one
            told = False  # the server is full, say; the request itself may make room
        if address is not self._address:
            words = "going on at %s: %s failed"
            tell.warning("broker.moved", words, address.name, self._address.name)
        self._address, self._moves = address, moves
        return told

    def _introduce(self) -> None:
        """Declare all queues that were declared before.

        No lease is begun here: first `stay` has to report that the old one is lost.
        """
        self._bind([*self._declared.values()])

    def _rows_of(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a hash, read in parts: one that changes may be old."""
        cursor = None
        while cursor != 0:
            cursor, rows = self._ask(
                "HSCAN", self._key(name), cursor or 0, "COUNT", 5 * CHUNK
            )
            yield from rows.items()

    def _destinations(self, route: Route) -> list[tuple[str, str]]:
        """Return the lists or the channel that a message goes to, with their kind."""
        if route.exchange_type == "fanout":
            return [(self._wire.channel(route), CHANNEL)]
        if route.queue:
            return [(self._wire.list_of(route.queue, route.priority), LIST)]
        members = self._ask("SMEMBERS", self._wire.bindings(route.exchange))
        queues = self._wire.bound(route, members)
        if not queues:
            tell.warning(
                "route.unbound",
                "no queue is bound to exchange %r under %r: the message is dropped",
                route.exchange,
                route.routing_key,
            )
        return [(self._wire.list_of(name, route.priority), LIST) for name in queues]


def _call(client: Any, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
    """Run a script; a server that does not have it yet gets its text."""
    text, digest = script(name)
    asked = (len(keys), *keys, *arguments)
    try:
        return client.execute_command("EVALSHA", digest, *asked)
    except redis.exceptions.NoScriptError:
        return client.execute_command("EVAL", text, *asked)


class Wait(NamedTuple):
    """How many replicas are to have what a script writes, and in what time."""

    replicas: int
    patience: Span


def _call_and_wait(
    client: Any,
    name: str,
    keys: Sequence[str],
    arguments: Sequence[Any],
    wait: Wait,
) -> Any:
    """Run a script as `_call` does, and wait for replicas in the same round trip.

    Raises redis.ConnectionError if too few have acknowledged: what was written may be
    lost with this server, and may come again.
    """
    text, digest = script(name)
    asked = (len(keys), *keys, *arguments)
    for how in (("EVALSHA", digest), ("EVAL", text)):
        pipe = client.pipeline(transaction=False)
        pipe.execute_command(*how, *asked)
        pipe.execute_command("WAIT", *wait)
        answer, have = pipe.execute(raise_on_error=False)
        if not isinstance(answer, redis.exceptions.NoScriptError):
            break
    if isinstance(answer, Exception):
        raise answer
    if not answer:  # it has written nothing
        return answer
    if isinstance(have, Exception):
        raise have
    if have < wait.replicas:
        raise redis.ConnectionError(
            f"{counted(have, 'replica')} acknowledged the emission within"
            f" {wait.patience} ms, and beat_min_replicas is {wait.replicas}: it is sent"
            " again, and nothing else before it; bring replicas back, or lower that"
        )
    return answer


def in_chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Return the items in parts that are few enough for one command."""
    return (items[at : at + CHUNK] for at in range(0, len(items), CHUNK))


@cache
def script(name: str) -> tuple[str, str]:
    """Return a script's text, and the digest by which the server knows it."""
    folder = resources.files(__package__)
    own = folder.joinpath(f"{name}.lua").read_text("utf-8")
    text = _shared(folder.joinpath("prelude.lua").read_text("utf-8"), own) + own
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _shared(prelude: str, own: str) -> str:
    """Return the functions of the prelude that a script calls.

    The server makes all functions of a script anew each time that it runs.
    """
    blocks = prelude.split("\n\n")
    names = [re.search(r"^local function (\w+)", block, re.M) for block in blocks]
    used = [
        block.strip()
        for block, name in zip(blocks, names, strict=True)
        if name and re.search(rf"\b{name[1]}\(", own)
    ]
    return "".join(f"{block}\n\n" for block in used)
