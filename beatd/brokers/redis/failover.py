"""The server in use: what its errors mean, and which one to use when it fails."""

import random
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, cycle
from queue import Empty
from typing import Any

import redis

from beatd.brokers.redis.connection import Address
from beatd.brokers.redis.sentinel import SentinelRefused
from beatd.config.settings import Failover
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError, ItemRefused

OLDEST = (6, 2)
"""The first version that can take several messages in one step."""

_WAYS_OUT = {
    "READONLY": "it is a read-only replica: point broker_url at the primary",
    "OOM": "it is out of memory: raise its maxmemory, or make room",
    "MISCONF": "it cannot save its data: look at its disk and its log",
    "NOPERM": "its ACL forbids us this: permit it to the user of broker_url",
    "NOREPLICAS": "too few of its replicas are connected: bring them back",
    "NOAUTH": "it wants a password: put it into broker_url",
    "WRONGPASS": "it knows no such user and password: correct broker_url",
    "LOADING": "it is still loading its data: wait",
    "BUSY": "a script of someone else blocks it: SCRIPT KILL ends that",
    "MASTERDOWN": "it is a replica that has lost its primary: bring that back",
    "MOVED": "its cluster has our keys at another node: name that one in broker_url",
    "CROSSSLOT": "it is a cluster: begin global_keyprefix with a name in braces, so"
    " that all keys lie at one node",
    "WRONGTYPE": "another program uses our key: rename the queue, or set"
    " broker_transport_options['global_keyprefix']",
}

_KINDS: dict[type[redis.RedisError], str] = {
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.AuthenticationError: "WRONGPASS",
    redis.exceptions.AuthorizationError: "NOPERM",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.ClusterCrossSlotError: "CROSSSLOT",
}
"""redis-py cuts off the server's word for an error for which it has a class."""

_REFUSALS: tuple[type[redis.RedisError], ...] = (redis.ResponseError, *_KINDS)

_NO_ANSWER = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.InvalidResponse,  # the program that listens there speaks another protocol
    OSError,
)

_FIRST_WORDS = {
    "Authentication required": "NOAUTH",
    "ACL failure in script": "NOPERM",
    "The user executing the script can't": "NOPERM",
}
"""First words of refusals that come without the server's word for them."""

_OF_ONE_KEY = ("NOPERM", "WRONGTYPE")

_CANNOT_SERVE = ("READONLY", "LOADING", "MASTERDOWN")
"""Refusals after which to try the next address: this server cannot serve for now."""

SMALLEST_LARGEST = 1024 * 1024
"""Every server takes a text of so many bytes."""

_USUAL_LARGEST = 512 * 1024 * 1024


class Server:
    """The Redis server in use: the one at the present one of some addresses.

    All threads use the present address. When the server there cannot be reached, or
    says that it cannot serve for now, the next address becomes the present one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        options: Mapping[str, Any],
        tls: bool | Mapping[str, Any],
        failover: Failover | None = None,
    ) -> None:
        """Raises ConfigError; does not connect."""
        self.addresses = {url: Address(url, options, tls) for url in urls}
        self.present = self.addresses[urls[0]]
        self._is_known = False
        prefix = options.get("global_keyprefix") or ""
        self._has_hash_tag = bool(re.search(r"\{[^}]+\}", prefix))
        self.faults = 0
        """How many requests failed so that the next server has to be greeted anew."""
        self._order = _order(list(self.addresses), failover)
        self._moving = threading.Lock()

    @property
    def name(self) -> str:
        """Where the server is, for people."""
        return self.present.name

    @property
    def place(self) -> object:
        """Which server it is now: another value after it has been left for another."""
        return self.present, self.present.moves

    @property
    def client(self) -> Any:
        """A client of the present address, open to all threads."""
        return self.present.client

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """Lend a client of the present address, and move on when the server fails.

        Turns redis-py's errors into those that the ports raise.
        """
        present = self.present
        try:
            yield present.client
        except SentinelRefused as error:
            raise BrokerRefused(str(error)) from error
        except _REFUSALS as error:
            kind, refusal = _refusal(present, error)
            if kind in _CANNOT_SERVE:
                self._leave(present)
            raise refusal from error
        except _NO_ANSWER as error:
            # A pool without a free connection says nothing about the server.
            if not isinstance(error.__context__, Empty):
                self._leave(present)
            raise BrokerUnavailable(f"{present.name}: {error}") from error

    def refusal(self, words: str) -> str:
        """Return for people why the server refuses, from its own words."""
        # Outside of scripts redis-py cuts off a word that says no more than the rest.
        words = words.removeprefix("ERR ")
        _, refused = _refusal(self.present, redis.ResponseError(words))
        return str(refused)

    def largest_text(self) -> int:
        """Return the most bytes that the server takes as one text; it hangs up on more.

        Raises BrokerUnavailable.
        """
        name = "proto-max-bulk-len"
        try:
            with self.answering() as client:
                return int(client.execute_command("CONFIG GET", name)[name])
        except (BrokerRefused, KeyError, TypeError, ValueError):
            return _USUAL_LARGEST  # it does not tell everybody

    def check_version(self) -> str:
        """Return the version of the first server in turn that answers.

        Raises BrokerRefused if that server is too old, and ConfigError if the first one
        that we ever reach is of a kind that the settings are not for.
        """
        # To ask again is safe: this request changes nothing.
        for _ in range(len(self.addresses) - 1):
            present = self.present
            try:
                return self._check_version()
            except BrokerUnavailable:
                if self.present is present:
                    raise
        return self._check_version()

    def close(self) -> None:
        """Close all connections that nobody uses."""
        for address in self.addresses.values():
            address.close()

    def ask_again(self) -> None:
        """Before the next request, have sentinels say which server is the master."""
        self.present.ask_again()

    def _leave(self, failed: Address) -> None:
        """Make the next address present, unless another thread did."""
        # One socket is dead: the idle ones beside it are likely dead too, and each
        # would cost a time-out. The failed one is closed by redis-py. A server that
        # cannot serve any more may have been replaced under the same name.
        failed.fail()
        with self._moving:
            self.faults += 1
            if self.present is failed and len(self.addresses) > 1:
                self.present = self.addresses[next(self._order)]

    def _check_version(self) -> str:
        with self.answering() as client:
            try:
                info = client.info("server")
            except redis.exceptions.NoPermissionError:
                client.ping()
                return "redis of a version that its ACL does not let us see"
        version = str(info.get("redis_version", "0"))
        if _is_too_old(version):
            raise BrokerRefused(
                f"{self.name}: this is Redis {version}, and beatd needs 6.2 or later:"
                " upgrade it, or use another broker_url"
            )
        self._check_mode(str(info.get("redis_mode") or info.get("server_mode")))
        self._is_known = True
        if "valkey_version" in info:
            return f"valkey {info['valkey_version']}"
        return f"redis {version}"

    def _check_mode(self, mode: str) -> None:
        """Raise an error for a kind of server that the settings are not for.

        A server becomes another kind only when it is started anew.
        """
        if mode == "cluster" and not self._has_hash_tag:
            problem = _CLUSTER
        elif mode == "sentinel":
            problem = _NO_SERVER
        else:
            return
        if self._is_known:
            raise BrokerRefused(f"{self.name}: {problem}")
        raise ConfigError(self.name, [problem])


_CLUSTER = (
    "this is a cluster, and each step of beatd's needs its keys at one node: set"
    " broker_transport_options = {'global_keyprefix': '{beatd}'}, and broker_url to the"
    " node that has the slot of '{beatd}'; everybody who sends or takes there needs the"
    " same prefix. Or use a Redis that is no cluster: one, or one behind sentinels"
    " (sentinel://)"
)
_NO_SERVER = (
    "this is a sentinel, which keeps no data: write sentinel:// in the place of"
    " redis://, and the name of its master in broker_transport_options['master_name']"
)


def _is_too_old(version: str) -> bool:
    """Return whether a version is below the oldest one, as far as it has numbers.

    Builds from source have others, as `7.rc1`; one without a number is not refused.
    """
    found = re.match(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", version)
    numbers = [int(part) for part in found.groups() if part] if found else [*OLDEST]
    return tuple(numbers) < OLDEST


def is_about_a_key(refusal: BrokerRefused) -> bool:
    """Return whether one key may be at fault, and not the whole server."""
    cause = refusal.__cause__
    return isinstance(cause, redis.RedisError) and _kind(cause) in _OF_ONE_KEY


def too_large(size: int, largest: int, what: str = "a message") -> str:
    """Return for people why a server cannot be sent a text of this size."""
    return (
        f"{what} of {size} bytes is too large, its server takes {largest}: hand over"
        " where its data lie instead, or raise the server's proto-max-bulk-len"
    )


def may_be_odd(refusal: BrokerRefused) -> bool:
    """Return whether what lies under a key may be what no script of ours expects."""
    cause = refusal.__cause__
    return isinstance(cause, redis.ResponseError) and _kind(cause) in ("WRONGTYPE", "")


def _order(urls: Sequence[str], failover: Failover | None) -> Iterator[str]:
    """Yield the addresses to use one after the other, without an end."""
    if callable(failover):
        order = iter(failover(list(urls)))
    else:
        order = _shuffled(urls) if failover == "shuffle" else cycle(urls)
    next(order, None)  # the address in use at first, as in kombu
    rest = cycle(urls)
    for url in chain(order, rest):
        yield url if url in urls else next(rest)


def _shuffled(urls: Sequence[str]) -> Iterator[str]:
    """Yield addresses at random, none twice in a row."""
    last = urls[0]
    while True:
        yield last
        last = random.choice([url for url in urls if url != last] or [last])


def _refusal(address: Address, error: redis.RedisError) -> tuple[str, BrokerRefused]:
    """Return the server's own word for its refusal, and the error for our callers."""
    words, kind = str(error), _kind(error)
    if kind in _WAYS_OUT:
        words = f"{_WAYS_OUT[kind]} (it says: {words})"
    error_of = ItemRefused if kind in _OF_ONE_KEY else BrokerRefused
    return kind, error_of(f"{address.name} refuses: {words}")


def _kind(error: redis.RedisError) -> str:
    """Return the server's own word for its refusal; empty if it is none we know."""
    words = str(error)
    for beginning, kind in _FIRST_WORDS.items():
        if words.startswith(beginning):
            return kind
    kinds = (kind for of, kind in _KINDS.items() if isinstance(error, of))
    # Redis 6 wraps what a script was refused: "ERR ... script ...: -OOM ...".
    spoken = (word.lstrip("-") for word in words.split())
    return next(kinds, None) or next((w for w in spoken if w in _WAYS_OUT), "")
