"""Brokers by their URL: the only place that knows them all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from beatd.brokers.base import Broker
from beatd.errors import ConfigError
from beatd.settings import mask

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix")


def connect(
    url: str,
    *,
    namespace: str,
    options: Mapping[str, Any] | None = None,
    tls: bool | Mapping[str, Any] = False,
) -> Broker:
    """Give the broker at `url`; Redis is first asked for anything by the first call.

    `options` and `tls` are `broker_transport_options` and `broker_use_ssl`. A path in
    `sqlite:///relative.db` is relative, one in `sqlite:////var/lib/x.db` is not.

    Raises ConfigError when there is no broker of ours for the URL.
    """
    parts = urlsplit(url)
    if parts.scheme in REDIS_SCHEMES:
        from beatd.brokers.redis import RedisBroker

        return RedisBroker(url, namespace=namespace, options=options, tls=tls)
    if parts.scheme == "sqlite":
        from beatd.brokers.sqlite import SQLiteBroker

        return SQLiteBroker(Path(unquote(parts.path[1:])), namespace=namespace)
    if parts.scheme == "memory":
        from beatd.brokers.memory import MemoryBroker

        return MemoryBroker()
    raise ConfigError(
        "broker_url",
        [
            f"{mask(url)!r}: beatd speaks redis://, rediss://, redis+socket://,"
            " unix://, sqlite:// and memory://"
        ],
    )
