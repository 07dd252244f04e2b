"""What everybody hears at once, on Redis: kombu's fan-out exchanges are channels."""

import re
from collections.abc import Callable, Collection

from beatd.brokers.redis.connection import Server
from beatd.brokers.redis.listening import SILENCE, Bell, Subscription
from beatd.brokers.redis.wire import Wire
from beatd.clock import Clock
from beatd.instant import Span
from beatd.routing import Queue, Route


class ChannelSubscription:
    """Hears a channel, or all whose names match a queue's routing key."""

    def __init__(
        self,
        server: Server,
        wire: Callable[[], Wire],
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
        self._news = Subscription(server, "", self._bell, clock, is_pattern=True)

    def wait(self, timeout: Span) -> list[bytes]:
        with self._server.answering():
            try:
                return self._wait(self._clock.elapsed() + timeout)
            except BaseException:
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


def pattern_of(wire: Wire, queue: Queue) -> str:
    """Give the pattern of the channels that a queue hears, in Redis' own form."""
    key = queue.routing_key.replace("#", "*")
    channel = wire.channel(Route("", queue.exchange, key, "fanout"))
    fixed = channel.removesuffix(key)
    return re.sub(r"([\\*?\[\]])", r"\\\1", fixed) + channel[len(fixed) :]
