"""Connections to Redis: from a URL and options to sockets that never hang."""

import inspect
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beatd.bounds import LARGEST, TooLarge, seconds_of
from beatd.config.settings import did_you_mean, mask, mask_url, safe_value
from beatd.config.tls import options_of, requirement
from beatd.errors import ConfigError
from beatd.instant import SECOND

LONGEST_WAIT = LARGEST // SECOND
"""Seconds that a socket waits at most: its milliseconds have 32 bits."""


def _seconds(value: Any) -> float | None:
    seconds = seconds_of(float(value) if isinstance(value, str) else value)
    if seconds > LONGEST_WAIT:
        raise TooLarge(f"expected at most {LONGEST_WAIT} seconds for a socket")
    return seconds or None  # 0 stands for no time-out


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
"""Those of kombu's options that concern connections; `timeout` is how long to wait for
one of `max_connections`."""


class Address:
    """Where a server is, and connections to it."""

    def __init__(
        self, url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
    ) -> None:
        """Raises ConfigError; does not connect."""
        self.url = url
        self.name = mask_url(url)
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
        # Any: the types of its answers are too vague to be of use.
        self.client: Any = redis.Redis(connection_pool=self.pool)

    @property
    def user(self) -> str:
        """The name of our user on the server."""
        return str(self.pool.connection_kwargs.get("username") or "default")

    def connect(self) -> Any:
        """Return a connection that no one else uses; the caller disconnects it."""
        # A message for a listener would be taken for the answer to a health check.
        own = {"health_check_interval": 0}
        connection = self.pool.connection_class(**self.pool.connection_kwargs | own)
        connection.connect()
        return connection


def _arguments(
    url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the kind of connection, and redis-py's arguments for it.

    Values in the URL win over the options. Raises ValueError for values with which no
    server can be reached.
    """
    kind, address, query = _address(url)
    arguments: dict[str, Any] = {
        "socket_timeout": 3.0,
        "socket_connect_timeout": 3.0,
        "socket_keepalive": True,
        "max_connections": None,
        # After a lost answer only the caller knows which requests may be made again.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **address,
        **_read(options),
        **_read(query),
    }
    if kind is redis.UnixDomainSocketConnection:
        if tls:
            raise ValueError("broker_use_ssl: a unix socket has no TLS")
        del arguments["socket_keepalive"]
        arguments.pop("socket_keepalive_options", None)
    elif tls or kind is redis.SSLConnection:
        kind = redis.SSLConnection
        arguments |= _tls(options_of(query, tls))
    return kind, arguments


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that concern connections and are set, as their types."""
    found = {}
    for name, read in _OPTIONS.items():
        if options.get(name) is None:
            continue
        try:
            value = read(options[name])
        except TooLarge as error:
            raise ValueError(f"{name}: {error}") from None
        except (TypeError, ValueError):
            value = safe_value(name, options[name])
            raise ValueError(f"{name}: cannot be {value}") from None
        if value is not None:
            found[name] = value
    return found


def _address(url: str) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """Return the connection's kind, its address and the URL's query.

    Celery's forms of URLs are understood, and redis-py's.
    """
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
        address["port"] = _port(parts)
        kind = redis.SSLConnection if parts.scheme == "rediss" else redis.Connection
        database = query.get("db") or unquote(parts.path)
    database = database.strip("/")
    if database and not database.isdecimal():
        # The whole address lies in the path when the slashes of its scheme are missing.
        raise ValueError(f"expected the number of a database, got {mask(database)!r}")
    address["db"] = int(database or 0)
    return kind, address, query


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or 6379
    except ValueError:  # its text shows what may be a password
        raise ValueError("the port is not a number up to 65535") from None


def _tls(tls: dict[str, Any]) -> dict[str, Any]:
    """Return TLS options with their values as redis-py wants them."""
    known = inspect.signature(redis.SSLConnection).parameters
    for name in tls:
        if name not in known:
            hint = did_you_mean(name, [one for one in known if one.startswith("ssl_")])
            raise ValueError("; ".join(filter(None, [f"no TLS option {name!r}", hint])))
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = _flag(tls["ssl_check_hostname"])
    if "ssl_cert_reqs" in tls:
        tls["ssl_cert_reqs"] = requirement(tls["ssl_cert_reqs"])
    if tls.get("ssl_cert_reqs") != ssl.CERT_NONE:
        # A certificate for another host proves nothing: redis-py before 6 let it pass.
        tls.setdefault("ssl_check_hostname", True)
    return tls
