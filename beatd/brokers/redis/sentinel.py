"""Sentinels: they know which server of a group is its master, and make another one it.

A connection to the master asks them where it is whenever it is taken out of its pool:
a master that another one has replaced is left, though it still answers.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from beatd.clock import Clock, SystemClock
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span

tell = EventLog(__name__)

PORT = 26379

FRESH: Span = SECOND
"""For so long an answer of the sentinels is believed without asking again."""

PATIENCE = 1.0
"""Seconds to wait for one sentinel: they are asked one after the other, and a lead
lives for five."""

_REST = 10
"""After a round in which none answered they rest for so many times its length."""


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class NoMaster(redis.ConnectionError):
    """The sentinels name no master now; the text says why, for people."""


class SentinelRefused(redis.RedisError):
    """No sentinel will ever name a master until somebody mends the settings."""


class _NoAnswer(Exception):
    """One sentinel names no master; the text says why, for people."""


class _Refused(_NoAnswer):
    """It is not to be expected that this sentinel will ever name one."""


class Sentinels:
    """Says which server is the master of a group; open to all threads.

    They are asked again after a fault, and when the last answer is older than `FRESH`.
    While none of them answers, the master that they named last is believed, unless it
    has failed meanwhile.
    """

    def __init__(
        self,
        places: Sequence[Place],
        group: str,
        options: Mapping[str, Any],
        *,
        others: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """Each sentinel has to know `others` more; `options` are those of redis-py.

        Does not connect.
        """
        self.places = tuple(places)
        self.group = group
        self.master: Place | None = None
        """The master that they named last."""
        self.number = len(places)
        """How many there are, those included that we were not told of."""
        self.moves = 0
        """How many times they have named another one."""
        self._clients = [
            (place, redis.Redis(place.host, place.port, **options)) for place in places
        ]
        self._others = others
        self._clock = clock or SystemClock()
        self._asking = threading.Lock()
        self._rounds = 0
        self._is_believed = False
        self._ask_at: Span = 0
        self._fault: tuple[type[redis.RedisError], str] = (NoMaster, "")
        self._are_away = False

    def find(self) -> Place:
        """Return where the master is. Raises NoMaster and SentinelRefused."""
        if not (self._is_believed and self._clock.elapsed() < self._ask_at):
            rounds = self._rounds
            with self._asking:
                if rounds == self._rounds:  # no other thread has asked meanwhile
                    self._ask_all()
                    self._rounds += 1
        if not self._is_believed or self.master is None:
            kind, words = self._fault
            raise kind(words)
        return self.master

    def ask_again(self) -> None:
        """Ask before the next request; go on with the master if none answers."""
        self._ask_at = 0

    def doubt(self) -> None:
        """Note that the master has failed: only an answer makes it the master again."""
        self._is_believed = False

    def mistrust(self) -> None:
        """Ask another one first: the answer of the first one was out of date."""
        self.doubt()
        with self._asking:
            self._clients.append(self._clients.pop(0))

    def close(self) -> None:
        """Close all connections to sentinels."""
        for _, client in self._clients:
            client.close()

    def _ask_all(self) -> None:
        began, faults = self._clock.elapsed(), []
        for place, client in list(self._clients):
            try:
                master = self._ask(client)
            except _NoAnswer as fault:
                faults.append((place, fault))
                self._clients.append(self._clients.pop(0))
                continue
            self._is_believed, self._are_away = True, False
            self._ask_at = self._clock.elapsed() + FRESH
            self._note(master)
            return
        ended = self._clock.elapsed()
        self._ask_at = ended + max(FRESH, _REST * (ended - began))
        self._fault = self._fault_of(faults)
        if self._is_believed and not self._are_away:
            self._are_away = True
            words = "going on with the master %s while it answers: %s"
            tell.warning("broker.sentinels", words, self.master, self._fault[1])

    def _ask(self, client: Any) -> Place:
        """Return where the master is, as one sentinel says."""
        pipe = client.pipeline(transaction=False)
        pipe.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.group)
        pipe.execute_command("SENTINEL", "MASTER", self.group)
        try:
            where, told = pipe.execute(raise_on_error=False)
            if isinstance(where, Exception):
                raise where
            if not where:
                raise _Refused(self._unknown(client))
        except (redis.RedisError, OSError) as error:
            raise _meaning(error) from error
        master = Place(where[0].decode(), int(where[1]))
        about = told if isinstance(told, list) else []  # it does not tell everybody
        self._check(master, dict(zip(about[::2], about[1::2], strict=False)))
        return master

    def _check(self, master: Place, about: Mapping[bytes, bytes]) -> None:
        """Raise _NoAnswer if the sentinel itself takes that master for dead.

        While another one is made the master, it tells of that one already, and about
        the old one still.
        """
        told_of = (about.get(b"ip", b"").decode(), about.get(b"port", b"").decode())
        flags = about.get(b"flags", b"").decode().split(",")
        if told_of == (master.host, str(master.port)) and (
            "s_down" in flags or "o_down" in flags
        ):
            raise _NoAnswer(f"says that {master} does not answer")
        others = int(
            about.get(b"num-other-sentinels", max(self._others, self.number - 1))
        )
        self.number = 1 + others
        if others < self._others:
            raise _NoAnswer(
                f"knows {others} other sentinels, and min_other_sentinels is"
                f" {self._others}"
            )

    def _unknown(self, client: Any) -> str:
        """Return for people that the name is not known, and which names are."""
        rows = client.execute_command("SENTINEL", "MASTERS")
        tables = [dict(zip(row[::2], row[1::2], strict=False)) for row in rows]
        known = [repr(one.get(b"name", b"").decode(errors="replace")) for one in tables]
        return f"knows no master of that name, but {', '.join(known) or 'none at all'}"

    def _fault_of(
        self, faults: Sequence[tuple[Place, _NoAnswer]]
    ) -> tuple[type[redis.RedisError], str]:
        """Return in one error why no sentinel has named a master."""
        told: dict[str, list[str]] = {}
        for place, fault in faults:
            told.setdefault(str(fault), []).append(str(place))
        reasons = (f"{', '.join(who)} {fault}" for fault, who in told.items())
        words = f"no sentinel names the master {self.group!r}: {'; '.join(reasons)}"
        refused = [isinstance(fault, _Refused) for _, fault in faults]
        return (SentinelRefused if all(refused) else NoMaster), words

    def _note(self, master: Place) -> None:
        before, self.master = self.master, master
        if before is not None and before != master:
            self.moves += 1
            tell.warning(
                "broker.master",
                "the sentinels say that the master %r is %s now, no longer %s",
                self.group,
                master,
                before,
            )


def _meaning(error: Exception) -> _NoAnswer:
    """Return for people what an error says about a sentinel."""
    words = str(error)
    if isinstance(error, redis.AuthenticationError) or "NOAUTH" in words:
        if "Authentication required" in words or "NOAUTH" in words:
            return _Refused("wants a password: put it into sentinel_kwargs")
        way_out = "correct sentinel_kwargs, which are for sentinels only"
        return _Refused(f"does not accept user and password: {way_out} ({words})")
    if "unknown command" in words.lower():
        return _Refused("is no sentinel, but a server itself: name it by redis://")
    if isinstance(error, redis.ResponseError):
        return _Refused(f"refuses: {words}")
    return _NoAnswer(f"does not answer ({words})")


class MasterConnection(redis.Connection):
    """A connection to whichever server is the master when it is taken into use."""

    def __init__(self, sentinels: Sentinels, **arguments: Any) -> None:
        self._sentinels = sentinels
        super().__init__(  # type: ignore[no-untyped-call]  # redis-py has no types here
            redis_connect_func=self._greet, **arguments
        )

    def connect(self) -> None:
        master = self._sentinels.find()
        if master != (self.host, self.port):
            self.disconnect()  # type: ignore[no-untyped-call]
            self.host, self.port = master
        super().connect()  # type: ignore[no-untyped-call]

    def _greet(self, _: object) -> None:
        """Begin the conversation; a replica is not what was asked for."""
        self.on_connect()  # type: ignore[no-untyped-call]
        self.send_command("ROLE")  # type: ignore[no-untyped-call]
        try:
            role = self.read_response()[0]
        except redis.exceptions.NoPermissionError:
            return  # it refuses writes, if it is a replica
        if role != b"master":
            self._sentinels.mistrust()
            raise NoMaster(
                f"{Place(self.host, self.port)} is no master, though a sentinel says so"
            )


class MasterSSLConnection(MasterConnection, redis.SSLConnection):
    """The same over TLS."""
