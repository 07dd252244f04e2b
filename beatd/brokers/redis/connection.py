"""Connections to Redis: from a URL and options to sockets that never hang."""

import inspect
import random
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, cycle
from queue import Empty
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beatd.config.settings import Failover, did_you_mean, mask, shown
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError

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
}
"""redis-py cuts the server's word for the error off where it has a class for it."""

_REFUSALS: tuple[type[redis.RedisError], ...] = (redis.ResponseError, *_KINDS)

_NO_ANSWER = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.InvalidResponse,  # whoever listens there speaks another protocol
    OSError,
)

_ELSEWHERE = ("READONLY", "LOADING", "MASTERDOWN")
"""Refusals that another address may be free of: this server cannot serve for now."""


def _seconds(value: Any) -> float | None:
    return float(value) or None  # to wait for nothing is what nobody means


def _flag(value: Any) -> bool:
    return str(value).lower() not in ("false", "no", "off", "0", "")


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "health_check_interval": _seconds,
    "timeout": _seconds,
    "socket_keepalive": _flag,
    "socket_keepalive_options": dict,
    "max_connections": int,
    "client_name": str,
}
"""What of kombu's options concerns connections; `timeout` is how long to wait for one
of `max_connections`."""

_DEMANDS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class Address:
    """Where a server is, and connections to it."""

    def __init__(
        self, url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
    ) -> None:
        """Raises ConfigError; does not connect."""
        self.url = url
        self.name = mask(url)
        try:
            kind, arguments = _arguments(url, options, tls)
        except ValueError as error:
            raise ConfigError(self.name, [str(error)]) from error
        self.db = int(arguments["db"])
        if arguments["max_connections"]:
            arguments.setdefault("timeout", arguments["socket_timeout"])
            pool: type[redis.ConnectionPool] = redis.BlockingConnectionPool
        else:
            arguments.pop("timeout", None)
            pool = redis.ConnectionPool
        self.pool = pool(connection_class=kind, **arguments)
        # Its answers have types too vague to be of use.
        self.client: Any = redis.Redis(connection_pool=self.pool)

    def connect(self) -> Any:
        """Give a connection that no one else uses; the caller disconnects it."""
        # What it listens for would be taken for the answer to a health check.
        own = {"health_check_interval": 0}
        connection = self.pool.connection_class(**self.pool.connection_kwargs | own)
        connection.connect()
        return connection


class Server:
    """The Redis server in use: that at the present one of some addresses.

    All threads go to the present address. When it cannot be reached, or says that it
    cannot serve for now, the next one in turn is present, until that one fails.
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
        self.faults = 0
        """How many requests failed in a way that ends what was agreed with a server."""
        self._order = _order(list(self.addresses), failover)
        self._moving = threading.Lock()

    @property
    def name(self) -> str:
        """Say for people where it is."""
        return self.present.name

    @property
    def client(self) -> Any:
        """Give a client of the present address, open to all threads."""
        return self.present.client

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """Lend a client of the present address, and mend things after a fault.

        Turns redis-py's errors into ours.
        """
        present = self.present
        try:
            yield present.client
        except _REFUSALS as error:
            kind, refusal = _refusal(present, error)
            if kind in _ELSEWHERE:
                self._leave(present)
            raise refusal from error
        except _NO_ANSWER as error:
            # A pool without a free connection says nothing about the server.
            if not isinstance(error.__context__, Empty):
                # One socket is dead: the idle ones beside it are likely dead too, and
                # each would cost a time-out. The failed one is closed by redis-py.
                present.pool.disconnect(inuse_connections=False)
                self._leave(present)
            raise BrokerUnavailable(f"{present.name}: {error}") from error

    def check_version(self) -> str:
        """Say who answers, at the first address in turn that does.

        Raises BrokerRefused if that server is too old.
        """
        # Nothing was asked before, so that nothing can be done twice.
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
            address.pool.disconnect()

    def _leave(self, failed: Address) -> None:
        """Make the next address present, unless another thread did."""
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
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise BrokerRefused(
                f"{self.name}: this is Redis {version}, and beatd needs 6.2 or later:"
                " upgrade it, or use another broker_url"
            )
        if "valkey_version" in info:
            return f"valkey {info['valkey_version']}"
        return f"redis {version}"


def _order(urls: Sequence[str], failover: Failover | None) -> Iterator[str]:
    """Give the addresses to go to, one after the other, without an end."""
    if callable(failover):
        order = iter(failover(list(urls)))
    else:
        order = _shuffled(urls) if failover == "shuffle" else cycle(urls)
    next(order, None)  # it is the one to begin with, as kombu has it
    rest = cycle(urls)
    for url in chain(order, rest):
        yield url if url in urls else next(rest)


def _shuffled(urls: Sequence[str]) -> Iterator[str]:
    """Give any address but the one before, again and again."""
    last = urls[0]
    while True:
        yield last
        last = random.choice([url for url in urls if url != last] or [last])


def _refusal(address: Address, error: redis.RedisError) -> tuple[str, BrokerRefused]:
    """Give the server's word for what is wrong, and it in words for people."""
    words = str(error)
    if words.startswith("Authentication required"):
        kind = "NOAUTH"
    else:
        kinds = (kind for of, kind in _KINDS.items() if isinstance(error, of))
        # Redis 6 wraps what a script was refused: "ERR ... script ...: -OOM ...".
        said = (word.lstrip("-") for word in words.split())
        kind = next(kinds, None) or next((w for w in said if w in _WAYS_OUT), "")
    if kind in _WAYS_OUT:
        words = f"{_WAYS_OUT[kind]} (it says: {words})"
    return kind, BrokerRefused(f"{address.name} refuses: {words}")


def _arguments(
    url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Give the kind of connection, and redis-py's arguments for it.

    What the URL says wins over the options. Raises ValueError for what no server could
    be reached with.
    """
    kind, address, query = _address(url)
    arguments: dict[str, Any] = {
        "socket_timeout": 3.0,
        "socket_connect_timeout": 3.0,
        "socket_keepalive": True,
        "max_connections": None,
        # After a lost answer only the caller knows what may be asked again.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **address,
        **_read(options),
        **_read(query),
    }
    secure = {name: query[name] for name in query if name.startswith("ssl_")}
    if kind is redis.UnixDomainSocketConnection:
        if tls:
            raise ValueError("broker_use_ssl: a unix socket has no TLS")
        del arguments["socket_keepalive"]
        arguments.pop("socket_keepalive_options", None)
    elif tls or kind is redis.SSLConnection:
        kind = redis.SSLConnection
        arguments |= _tls(secure | dict(tls if isinstance(tls, Mapping) else {}))
    return kind, arguments


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read those options that concern connections and are set."""
    found = {}
    for name, read in _OPTIONS.items():
        if options.get(name) is None:
            continue
        try:
            value = read(options[name])
        except (TypeError, ValueError):
            said = shown(name, options[name])
            raise ValueError(f"{name}: cannot be {said}") from None
        if value is not None:
            found[name] = value
    return found


def _address(url: str) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """Read where the server is, in Celery's forms of URLs and redis-py's."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    address: dict[str, Any] = {}
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value := unquote(value or "") or query.get(name):
            address[name] = value
    if parts.scheme in ("redis+socket", "unix"):
        address["path"] = unquote(parts.path)
        kind: Any = redis.UnixDomainSocketConnection
        database = query.get("virtual_host") or query.get("db", "")
    else:
        address["host"] = unquote(parts.hostname or "localhost")
        address["port"] = parts.port or 6379
        kind = redis.SSLConnection if parts.scheme == "rediss" else redis.Connection
        database = query.get("db") or unquote(parts.path)
    database = database.strip("/")
    if database and not database.isdecimal():
        raise ValueError(f"expected the number of a database, got {database!r}")
    address["db"] = int(database or 0)
    return kind, address, query


def _tls(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give TLS options as redis-py names them; Celery also says `CERT_REQUIRED`."""
    tls = {n if n.startswith("ssl_") else f"ssl_{n}": options[n] for n in options}
    known = inspect.signature(redis.SSLConnection).parameters
    for name in tls:
        if name not in known:
            hint = did_you_mean(name, [one for one in known if one.startswith("ssl_")])
            raise ValueError("; ".join(filter(None, [f"no TLS option {name!r}", hint])))
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = _flag(tls["ssl_check_hostname"])
    if "ssl_cert_reqs" in tls:
        tls["ssl_cert_reqs"] = _demand(tls["ssl_cert_reqs"])
    return tls


def _demand(asked: object) -> ssl.VerifyMode:
    """Read what is demanded of a certificate; None means nothing, as in Celery."""
    if isinstance(asked, int):
        return ssl.VerifyMode(asked)
    word = str(asked).lower().removeprefix("cert_")
    if word not in _DEMANDS:
        raise ValueError(f"ssl_cert_reqs: expected one of {', '.join(_DEMANDS)}")
    return _DEMANDS[word]
