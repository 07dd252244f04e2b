"""Connections to Redis: from a URL and options to sockets that never hang."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.settings import mask

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

_SECONDS = ("socket_timeout", "socket_connect_timeout", "health_check_interval")
_PASSED_ON = ("socket_keepalive", "client_name", "max_connections")


class Server:
    """One Redis server as beatd uses it: where it is, and connections to it."""

    def __init__(
        self, url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
    ) -> None:
        """Raises ConfigError; does not connect."""
        self.name = mask(url)
        kind, address = _address(url)
        arguments: dict[str, Any] = {
            "socket_timeout": 3.0,
            "socket_connect_timeout": 3.0,
            "socket_keepalive": True,
            # After a lost answer only the caller knows what may be asked again.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **address,
        }
        for name in _SECONDS:
            if options.get(name) is not None:
                arguments[name] = float(options[name])
        for name in _PASSED_ON:
            if options.get(name) is not None:
                arguments[name] = options[name]
        if kind is redis.UnixDomainSocketConnection:
            if tls:
                raise ConfigError("broker_use_ssl", ["a unix socket has no TLS"])
            del arguments["socket_keepalive"]
        if tls or kind is redis.SSLConnection:
            kind = redis.SSLConnection
            arguments.update(_tls(arguments, tls if isinstance(tls, Mapping) else {}))
        self.db = int(arguments.get("db", 0))
        limited = arguments.get("max_connections") is not None
        pool = redis.BlockingConnectionPool if limited else redis.ConnectionPool
        if limited:
            arguments["timeout"] = arguments["socket_timeout"]
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

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn redis-py's errors into ours, and mend the pool after a fault."""
        try:
            yield
        except _REFUSALS as error:
            raise self._refused(error) from error
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            # One socket is dead: the idle ones beside it are likely dead too, and
            # each would cost a time-out. The failed one is closed by redis-py.
            self.pool.disconnect(inuse_connections=False)
            raise BrokerUnavailable(f"{self.name}: {error}") from error

    def check_version(self) -> str:
        """Say who answers. Raises BrokerRefused if the server is too old."""
        with self.answering():
            try:
                info = self.client.info("server")
            except redis.exceptions.NoPermissionError:
                self.client.ping()
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

    def _refused(self, error: redis.RedisError) -> BrokerRefused:
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
        return BrokerRefused(f"{self.name} refuses: {words}")


def _address(url: str) -> tuple[Any, dict[str, Any]]:
    """Read where the server is, in Celery's forms of URLs and redis-py's."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    address: dict[str, Any] = {}
    if parts.username:
        address["username"] = unquote(parts.username)
    if parts.password:
        address["password"] = unquote(parts.password)
    if parts.scheme in ("redis+socket", "unix"):
        address["path"] = unquote(parts.path)
        kind: Any = redis.UnixDomainSocketConnection
        database = query.pop("virtual_host", "") or query.pop("db", "")
    else:
        address["host"] = unquote(parts.hostname or "localhost")
        address["port"] = parts.port or 6379
        kind = redis.SSLConnection if parts.scheme == "rediss" else redis.Connection
        database = query.pop("db", "") or unquote(parts.path)
    database = database.strip("/")
    if database and not database.isdecimal():
        raise ConfigError(
            "broker_url", [f"expected the number of a database, got {database!r}"]
        )
    address["db"] = int(database or 0)
    for name, value in query.items():
        if name in _SECONDS:
            address[name] = float(value)
        elif name in ("client_name", "password", "username") or name.startswith("ssl_"):
            address[name] = value
    return kind, address


def _tls(arguments: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Give TLS options as redis-py names them; Celery also says `CERT_REQUIRED`."""
    tls = {n: v for n, v in arguments.items() if n.startswith("ssl_")}
    tls.update((n if n.startswith("ssl_") else f"ssl_{n}", options[n]) for n in options)
    demand = tls.get("ssl_cert_reqs")
    if isinstance(demand, str):
        tls["ssl_cert_reqs"] = demand.lower().removeprefix("cert_")
    elif isinstance(demand, int) and not isinstance(demand, ssl.VerifyMode):
        tls["ssl_cert_reqs"] = ssl.VerifyMode(demand)
    return tls
