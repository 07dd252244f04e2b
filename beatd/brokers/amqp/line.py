"""Connections to RabbitMQ: from a URL to sockets that never hang, and errors in words.

A line is one connection, used by one thread at a time. Its heartbeats are sent by a
thread of its own while nobody uses it: without them a server would take a process that
only has nothing to say for a dead one.
"""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import amqp
from amqp import exceptions as faults

from beatd.background import Service
from beatd.bounds import seconds_of
from beatd.config.settings import mask_url
from beatd.config.tls import options_of, requirement
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.version import __version__

tell = EventLog(__name__)

SOCKET_TIMEOUT = 3.0
"""Seconds that a socket waits for a byte; a server that lives sends heartbeats."""


@dataclass(frozen=True)
class Address:
    """Where a server is, who we are there, and in which virtual host."""

    name: str
    """The URL without its password."""
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: Mapping[str, Any] | None
    connect_timeout: float
    heartbeat: float | None
    """Seconds that the URL asks for; None if it does not."""

    @property
    def place(self) -> str:
        """The server's host and port."""
        return f"{self.host}:{self.port}"


def address_of(
    url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
) -> Address:
    """Read a URL in Celery's form. Raises ConfigError."""
    name = mask_url(url)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    try:
        wants_tls = parts.scheme == "amqps" or bool(tls)
        asked = query.get("heartbeat")
        return Address(
            name,
            unquote(parts.hostname or "localhost"),
            _port(parts, 5671 if wants_tls else 5672),
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
            unquote(parts.path[1:]) or "/",
            _tls(parts.hostname or "localhost", options_of(query, tls))
            if wants_tls
            else None,
            seconds_of(options.get("socket_connect_timeout") or SOCKET_TIMEOUT),
            None if asked is None else seconds_of(float(asked)),
        )
    except ValueError as error:
        raise ConfigError(name, [str(error)]) from error


def _port(parts: Any, usual: int) -> int:
    try:
        return int(parts.port or usual)
    except ValueError:  # its text shows what may be a password
        raise ValueError("the port is not a number up to 65535") from None


def _tls(host: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return TLS options under py-amqp's names."""
    known = {"keyfile", "certfile", "ca_certs", "cert_reqs", "ciphers"}
    found = {name.removeprefix("ssl_"): value for name, value in options.items()}
    if unknown := found.keys() - known - {"server_hostname"}:
        raise ValueError(f"no TLS option 'ssl_{min(unknown)}' for RabbitMQ")
    reqs = requirement(found.get("cert_reqs", ssl.CERT_REQUIRED))
    found["cert_reqs"] = reqs
    if reqs != ssl.CERT_NONE:
        # A certificate for another host proves nothing.
        found.setdefault("server_hostname", host)
    return found


class _Blocked(Exception):
    """The server has told that it takes no messages."""


class Line:
    """One connection, opened when it is first needed, and by `connected` only."""

    def __init__(self, address: Address, heartbeat: Span) -> None:
        """`heartbeat` is after how long without a sign the server gives us up."""
        self.address = address
        self.number = 0
        """Counts the connections: what was begun on one ends with it."""
        self.has_worked = False
        """Whether all went well once: what is refused later was not always wrong."""
        self.blocked = False
        """Whether the server takes no messages: it is out of memory or disk."""
        self.server = ""
        self._heartbeat = heartbeat
        self._connection: Any = None
        self._lock = threading.RLock()
        self._keeper: Service | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Lend the connection, a new one if there is none.

        Raises BrokerUnavailable and BrokerRefused, in words, for whatever goes wrong in
        the block as well; and ConfigError for an address that was never right.
        """
        with self._lock, self._in_words():
            if self._connection is None:
                self._open()
            yield self._connection
            self.has_worked = True

    @contextmanager
    def same(self, number: int) -> Iterator[Any]:
        """Lend the connection of this number; raise BrokerUnavailable if it is gone."""
        with self._lock, self._in_words():
            if self._connection is None or self.number != number:
                raise BrokerUnavailable(f"{self.address.place}: connection lost")
            yield self._connection

    @contextmanager
    def channel(self, connection: Any) -> Iterator[Any]:
        """Lend a channel for a few questions."""
        channel = connection.channel()
        try:
            yield channel
        finally:
            self.close_channel(channel)

    def close_channel(self, channel: Any) -> None:
        """Close a channel; leave it open where the server would not answer."""
        if not self.blocked:
            with suppress(Exception):  # an error may have closed it
                channel.close()

    def await_until(
        self, connection: Any, done: Callable[[], bool], patience: Span
    ) -> bool:
        """Take in what comes until `done`; return False if it is not, after `patience`.

        Patience begins anew with whatever comes, but for heartbeats.
        """
        step = max(min(self._heartbeat // 3, patience), 1)
        waited: Span = 0
        while not done():
            if waited >= patience:
                return False
            try:
                connection.drain_events(timeout=step / SECOND)
                waited = 0
            except TimeoutError:
                waited += step
                self._beat(connection)
        return True

    def refuse_if_blocked(self) -> None:
        """Raise BrokerRefused if the server takes no messages just now."""
        if self.blocked:
            raise BrokerRefused(self._blocked_words())

    def close(self) -> None:
        """Say goodbye, if that takes no time."""
        keeper, self._keeper = self._keeper, None
        if keeper:
            keeper.leave()
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(Exception):  # it may be gone, or hang
                    if not self.blocked:
                        connection.close()
                with suppress(Exception):  # as in `drop`
                    connection.collect()

    def drop(self) -> None:
        """Let go of the connection without a word."""
        with self._lock:
            connection, self._connection = self._connection, None
            self.blocked = False
            if connection is not None:
                with suppress(Exception):  # its socket may be anything by now
                    connection.collect()

    def _open(self) -> None:
        address = self.address
        seconds = self._heartbeat / SECOND
        connection = amqp.Connection(
            address.place,
            address.user,
            address.password,
            virtual_host=address.vhost,
            ssl=dict(address.tls) if address.tls is not None else False,
            heartbeat=max(round(seconds), 1),
            connect_timeout=address.connect_timeout,
            read_timeout=SOCKET_TIMEOUT,
            write_timeout=SOCKET_TIMEOUT,
            client_properties={
                "product": "beatd",
                "version": __version__,
                "connection_name": "beatd",
            },
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        )
        try:
            connection.connect()
        except BaseException:  # also an interrupt: no socket is left open
            with suppress(Exception):  # half open
                connection.collect()
            raise
        connection.transport.sock.settimeout(SOCKET_TIMEOUT)
        told = connection.server_properties
        self.server = f"{told.get('product', 'AMQP')} {told.get('version', '')}".strip()
        self._connection = connection
        self.blocked = False
        self.number += 1
        if self._keeper is None:
            self._keeper = Service(self._keep)
            self._keeper.start("beatd-amqp", self._on_crash)

    # Heartbeats

    def _keep(self) -> Span:
        """Send a heartbeat and take in what has come, if nobody uses the line."""
        if self._lock.acquire(blocking=False):
            try:
                connection = self._connection
                if connection is not None:
                    with suppress(BrokerUnavailable, ConfigError), self._in_words():
                        self._beat(connection)
                        with suppress(TimeoutError):
                            while True:
                                connection.drain_events(timeout=0.001)
            finally:
                self._lock.release()
        return max(self._heartbeat // 3, 1)

    def _beat(self, connection: Any) -> None:
        if not self.blocked:
            # The server reads nothing of one that it has blocked, and gives it time.
            connection.send_heartbeat()

    def _on_crash(self, error: BaseException) -> None:
        tell.error("amqp.ended", "no heartbeats any more: %r", error, exc_info=error)
        self.drop()

    # Faults

    def _on_blocked(self, reason: str) -> None:
        self.blocked = True
        raise _Blocked

    def _on_unblocked(self) -> None:
        self.blocked = False

    def _blocked_words(self) -> str:
        return (
            f"{self.address.place} takes no messages: it is low on memory or disk"
            " (rabbitmqctl status names the alarm); what was sent may still arrive"
        )

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        address = self.address
        try:
            yield
        except _Blocked:
            raise BrokerRefused(self._blocked_words()) from None
        except faults.AccessRefused as error:
            if self._connection is None:
                self._never_right(
                    f"user {address.user!r} may not log in at {address.place}: wrong"
                    " password, or no such user",
                    error,
                )
            self._never_right(
                f"user {address.user!r} lacks a permission in virtual host"
                f" {address.vhost!r} at {address.place}: {text_of(error)} (rabbitmqctl"
                " set_permissions)",
                error,
            )
        except faults.NotAllowed as error:
            self.drop()
            self._never_right(
                f"user {address.user!r} may not use virtual host {address.vhost!r} at"
                f" {address.place}, or there is none of that name: rabbitmqctl"
                " add_vhost, set_permissions",
                error,
            )
        except faults.ChannelError as error:
            raise BrokerRefused(f"{address.place}: {text_of(error)}") from error
        except (faults.AMQPError, OSError) as error:
            self.drop()
            why = text_of(error) or type(error).__name__
            raise BrokerUnavailable(f"{address.place}: {why}") from error

    def _never_right(self, words: str, error: Exception) -> None:
        """Raise ConfigError, or BrokerRefused if this address was right before."""
        if self.has_worked:
            raise BrokerRefused(words) from error
        raise ConfigError(f"broker {self.address.name}", [words]) from error


def text_of(error: Exception) -> str:
    """Return a fault in the server's words."""
    text = getattr(error, "reply_text", None) or str(error)
    return text.partition(" - ")[2] or text
