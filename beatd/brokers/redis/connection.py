"""Connections to Redis: from a URL and options to sockets that never hang."""

import inspect
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beatd.bounds import LARGEST, TooLarge, seconds_of
from beatd.brokers.redis.sentinel import (
    PATIENCE,
    PORT,
    MasterConnection,
    MasterSSLConnection,
    Place,
    Sentinels,
)
from beatd.config.settings import (
    addresses_in,
    did_you_mean,
    mask,
    mask_url,
    safe_value,
)
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
    """Where a server is, and connections to it.

    The address of sentinels (`sentinel://a;sentinel://b`) leads to whichever server
    they say is the master.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any], tls: bool | Mapping[str, Any]
    ) -> None:
        """Raises ConfigError; does not connect."""
        self.url = url
        self._masked = mask_url(url)
        try:
            kind, arguments = _arguments(url, options, tls)
        except ValueError as error:
            raise ConfigError(self._masked, [str(error)]) from error
        self._sentinels: Sentinels | None = arguments.get("sentinels")
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
    def name(self) -> str:
        """Where the server is, for people."""
        if self._sentinels is None or self._sentinels.master is None:
            return self._masked
        master, group = self._sentinels.master, self._sentinels.group
        return f"{master}/{self.db} (master of {group!r})"

    @property
    def sentinels(self) -> int | None:
        """How many sentinels watch the master, as far as known; None without any."""
        return self._sentinels.number if self._sentinels else None

    @property
    def moves(self) -> int:
        """How many times another server has taken the place of the one before it."""
        return self._sentinels.moves if self._sentinels else 0

    def fail(self) -> None:
        """Let the next request begin on a fresh connection, at a master asked for."""
        self.pool.disconnect(inuse_connections=False)
        if self._sentinels:
            self._sentinels.doubt()

    def ask_again(self) -> None:
        """Before the next request, have sentinels say which server is the master."""
        if self._sentinels:
            self._sentinels.ask_again()

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self.pool.disconnect()
        if self._sentinels:
            self._sentinels.close()

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
    urls = addresses_in(url) if url.startswith("sentinel://") else [url]
    kind, address, query = _address(urls[0])
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
        kind = _WITH_TLS[kind]
        arguments |= _tls(options_of(query, tls))
    if issubclass(kind, MasterConnection):
        arguments["sentinels"] = _sentinels(urls, options)
    return kind, arguments


_WITH_TLS: dict[Any, Any] = {
    redis.Connection: redis.SSLConnection,
    redis.SSLConnection: redis.SSLConnection,
    MasterConnection: MasterSSLConnection,
}


def _sentinels(urls: Sequence[str], options: Mapping[str, Any]) -> Sentinels:
    """Return the sentinels at these addresses, by kombu's options for them."""
    group = options.get("master_name")
    if not group or not isinstance(group, str):
        raise ValueError(
            "sentinels have to be asked for a master by its name: set 'master_name' in"
            " broker_transport_options (for results in result_backend_transport_options"
            "), to 'mymaster', say"
        )
    places = []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme != "sentinel":
            raise ValueError("beside sentinels there can only be sentinels")
        host = unquote(parts.hostname or "localhost")
        places.append(Place(host, _port(parts, PORT)))
    others = options.get("min_other_sentinels") or 0
    if not isinstance(others, int):
        raise ValueError("min_other_sentinels: expected a number")
    return Sentinels(places, group, _of_sentinels(options), others=others)


def _of_sentinels(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return redis-py's arguments for connections to sentinels.

    The time-outs of the servers' connections are theirs, too, where they are shorter.
    """
    given = options.get("sentinel_kwargs") or {}
    if not isinstance(given, Mapping):
        raise ValueError("sentinel_kwargs: expected a dict")
    known = inspect.signature(redis.Redis).parameters
    for name in given:
        if name not in known:
            hint = did_you_mean(str(name), list(known))
            words = f"sentinel_kwargs: no option {name!r}"
            raise ValueError("; ".join(filter(None, [words, hint])))
    own = {name: given[name] for name in given if name not in _NOT_OF_SENTINELS}
    timeouts = {
        name: min(PATIENCE, value)
        for name, value in _read(options).items()
        if name in ("socket_timeout", "socket_connect_timeout")
    }
    return {
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        "socket_keepalive": True,
        **timeouts,
        **own,
        **_read(given),
        **(_tls(options_of({}, _tls_in(given))) if given.get("ssl") else {}),
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }


_NOT_OF_SENTINELS = (
    *("host", "port", "db", "connection_pool", "unix_socket_path", "protocol"),
    *("retry", "retry_on_timeout", "retry_on_error", "decode_responses", "timeout"),
    *("encoding", "encoding_errors", "single_connection_client"),
)
"""What beatd itself decides about connections to sentinels."""


def _tls_in(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in options if name.startswith("ssl_")}


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
        if parts.scheme == "sentinel":
            kind = MasterConnection
        else:
            address["host"] = unquote(parts.hostname or "localhost")
            address["port"] = _port(parts, 6379)
            kind = redis.SSLConnection if parts.scheme == "rediss" else redis.Connection
        database = query.get("db") or unquote(parts.path)
    database = database.strip("/")
    if database and not database.isdecimal():
        # The whole address lies in the path when the slashes of its scheme are missing.
        raise ValueError(f"expected the number of a database, got {mask(database)!r}")
    address["db"] = int(database or 0)
    return kind, address, query


def _port(parts: SplitResult, usual: int) -> int:
    try:
        return parts.port or usual
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
