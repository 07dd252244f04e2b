"""Waiting for messages and changes in Redis, without asking again and again."""

import re
import selectors
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import redis

from beatd.brokers.redis.failover import Server
from beatd.brokers.redis.wire import WireNames
from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import EARLIEST, LATEST, SECOND, Instant, Span
from beatd.routing import Queue, Route

tell = EventLog(__name__)

INVALIDATIONS = "__redis__:invalidate"
"""The channel on which Redis tells the keys that have changed since they were read."""

POLL: Span = 100
"""How often to look where Redis does not tell us of changes."""

SILENCE: Span = 5 * SECOND
"""A subscription that was quiet for so long is checked with a PING."""


class Bell:
    """Wakes a thread that waits on sockets; the bell rings until it is answered."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def ring(self) -> None:
        with suppress(OSError):  # it rings already and its buffer is full, or is closed
            self._there.send(b"!")

    def answer(self) -> bool:
        """Silence the bell; return True if it rang."""
        try:
            return bool(self._here.recv(4096))
        except BlockingIOError:
            return False

    def fileno(self) -> int:
        return self._here.fileno()

    def close(self) -> None:
        self._here.close()
        self._there.close()

    __del__ = close  # an app that only sends never closes its broker


class ChannelListener:
    """Listens on one channel, over a connection of its own, in one thread."""

    def __init__(
        self,
        server: Server,
        channel: str,
        bell: Bell,
        clock: Clock,
        *,
        is_pattern: bool = False,
    ) -> None:
        self._server = server
        self.channel = channel
        """A change of it takes effect when the listener is opened anew."""
        self._verb = "PSUBSCRIBE" if is_pattern else "SUBSCRIBE"
        self._bell = bell
        self._clock = clock
        self._connection: Any = None
        self._place = server.place
        self._last_sign: Span = 0
        self._unread: list[list[Any]] = []
        self.id = 0
        """The connection's number on the server, 0 while it is closed."""

    def open(self) -> bool:
        """Subscribe, or check the subscription; return True if it is a new one."""
        if self._place != self._server.place:
            self.close()
        if self._connection is None:
            self._place = self._server.place
            self._connection = self._server.present.connect()
            self._connection.send_command("CLIENT", "ID")
            self.id = int(self._connection.read_response())
            self._connection.send_command(self._verb, self.channel)
            self._connection.read_response()
            self._last_sign = self._clock.elapsed()
            return True
        if self._clock.elapsed() - self._last_sign > SILENCE:
            self._connection.send_command("PING")
            while (message := self._read())[0] != b"pong":
                self._unread.append(message)
        return False

    def drain(self) -> bool:
        """Read and drop what has come; return True if there was anything."""
        return bool(self.read())

    def read(self) -> list[list[Any]]:
        """Return the messages that have come; the last part of each is its content."""
        came, self._unread = self._unread, []
        while self._connection is not None and self._connection.can_read(0):
            came.append(self._read())
        return came

    def wait(self, timeout: Span) -> None:
        """Return when a message comes, when the bell rings, or after `timeout`."""
        with selectors.DefaultSelector() as selector:
            if self._connection is not None:
                # redis-py has no other way to wait on its socket and the bell's.
                selector.register(self._connection._sock, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            selector.select(timeout / SECOND)

    def close(self) -> None:
        connection, self._connection, self.id = self._connection, None, 0
        self._unread = []
        if connection is not None:
            connection.disconnect()

    def _read(self) -> list[Any]:
        message: list[Any] = self._connection.read_response()
        self._last_sign = self._clock.elapsed()
        return message


class MessageWait:
    """Waits for messages on lists: Redis tells when a list that was empty has changed.

    One connection looks at the lists, and Redis tracks the keys that it looks at; news
    of these keys comes on a second connection (RESP 2 cannot carry both on one).
    """

    def __init__(self, server: Server, delayed: str, clock: Clock) -> None:
        self.bell = Bell()
        self._server = server
        self._delayed = delayed
        self._clock = clock
        self._news = ChannelListener(server, INVALIDATIONS, self.bell, clock)
        self._waiting = threading.Lock()
        self._looker: Any = None
        self._place = server.place
        self._tracked = True

    def wait(self, lists: Sequence[str], timeout: Span) -> bool:
        """Return True when a list has messages or a delay is over; else False."""
        with self._waiting:
            try:
                return self._wait(lists, self._clock.elapsed() + timeout)
            except BaseException:  # whatever it is, it goes on up
                # Half a conversation: the next one begins on fresh connections.
                self._disconnect()
                raise

    def close(self) -> None:
        self.bell.ring()
        with self._waiting:
            self._disconnect()
            self.bell.close()

    def _wait(self, lists: Sequence[str], end: Span) -> bool:
        while not self.bell.answer():
            self._listen()
            # Before the look: the news so far is of earlier looks.
            self._news.drain()
            due_in = self._look(lists)
            left = end - self._clock.elapsed()
            if due_in <= 0:
                return True
            if left <= 0:
                return False
            nap = min(left, due_in)
            self._news.wait(nap if self._tracked else min(nap, POLL))
            if self._news.drain():
                return True  # likely there is a message; a look would only cost time
        return False

    def _disconnect(self) -> None:
        looker, self._looker = self._looker, None
        if looker is not None:
            looker.disconnect()
        self._news.close()

    def _listen(self) -> None:
        if self._place != self._server.place:
            self._disconnect()
            self._place, self._tracked = self._server.place, True
        if self._looker is None:
            self._looker = self._server.present.connect()
            self._news.close()
        try:
            fresh = self._tracked and self._news.open()
        except redis.exceptions.NoPermissionError as error:
            self._poll(error)
            return
        if fresh:
            try:
                self._ask("CLIENT", "TRACKING", "ON", "REDIRECT", self._news.id)
            except redis.ResponseError as error:
                self._poll(error)

    def _poll(self, error: Exception) -> None:
        self._tracked = False
        self._news.close()
        tell.warning(
            "broker.poll",
            "%s does not tell us of new messages (%s): looking every %d ms; to be told"
            " takes the rights +client +subscribe and the channel '&%s'",
            self._server.name,
            error,
            POLL,
            INVALIDATIONS,
        )

    def _look(self, lists: Sequence[str]) -> Span:
        """Return the time until there may be a message; 0 or less if there is now."""
        if lists and self._ask("EXISTS", *lists):
            return 0
        first = self._ask("ZRANGE", self._delayed, 0, 0, "WITHSCORES")
        if not first:
            return 3600 * SECOND
        seconds, micros = self._ask("TIME")
        now: Instant = int(seconds) * SECOND + int(micros) // 1000
        return instant_in(first[1]) - now

    def _ask(self, *command: Any) -> Any:
        self._looker.send_command(*command)
        return self._looker.read_response()


def instant_in(score: bytes) -> Instant:
    """Return the instant that a score means; one of no date is cut to the nearest."""
    return int(min(max(float(score), EARLIEST), LATEST))


class ReleaseWait:
    """Waits for the lead to be given back, or to run out."""

    def __init__(self, server: Server, channel: str, lead: str, clock: Clock) -> None:
        self._server = server
        self._lead = lead
        self._clock = clock
        self._waiting = threading.Lock()
        self._bell = Bell()
        self._news = ChannelListener(server, channel, self._bell, clock)

    def wait(self, timeout: Span) -> bool:
        """Return True when the lead has become free; False after `timeout`."""
        with self._waiting:
            try:
                return self._wait(self._clock.elapsed() + timeout)
            except BaseException:  # whatever it is, it goes on up
                self._news.close()
                raise

    def close(self) -> None:
        self._bell.ring()
        with self._waiting:
            self._news.close()
            self._bell.close()

    def _wait(self, end: Span) -> bool:
        led = False
        while not self._bell.answer():
            self._news.open()
            lasts = int(self._server.client.pttl(self._lead))
            # News from before this call count, too: the leader resigned meanwhile.
            if self._news.drain() or (led and lasts < 0):
                return True
            led = lasts >= 0
            left = end - self._clock.elapsed()
            if left <= 0:
                return False
            self._news.wait(min(left, lasts + 1) if led else left)
        return False


class ChannelSubscription:
    """Receives the messages of all channels that match a queue's routing key."""

    def __init__(
        self,
        server: Server,
        wire: Callable[[], WireNames],
        queue: Queue,
        declare: Callable[[Collection[Queue]], None],
        clock: Clock,
    ) -> None:
        self._server = server
        self._wire = wire
        self._queue = queue
        self._declare = declare
        self._clock = clock
        self._bell = Bell()
        self._news = ChannelListener(server, "", self._bell, clock, is_pattern=True)

    def wait(self, timeout: Span) -> list[bytes]:
        with self._server.answering():
            try:
                return self._wait(self._clock.elapsed() + timeout)
            except BaseException:  # whatever it is, it goes on up
                # Half a conversation: the next one begins on a fresh connection.
                self._news.close()
                raise

    def interrupt(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        self._news.close()
        self._bell.close()

    def _wait(self, end: Span) -> list[bytes]:
        while not self._bell.answer():
            self._news.channel = pattern_of(self._wire(), self._queue)
            if self._news.open():
                self._declare([self._queue])
            if came := self._news.read():
                return [message[-1] for message in came]
            left = end - self._clock.elapsed()
            if left <= 0:
                break
            self._news.wait(min(left, SILENCE))
        return []


def pattern_of(wire: WireNames, queue: Queue) -> str:
    """Return the pattern, as Redis has it, of the channels that reach a queue."""
    key = queue.routing_key.replace("#", "*")
    channel = wire.channel(Route("", queue.exchange, key, "fanout"))
    fixed = channel.removesuffix(key)
    return re.sub(r"([\\*?\[\]])", r"\\\1", fixed) + channel[len(fixed) :]
