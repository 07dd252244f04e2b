"""Brokers by their URL: the only place that knows them all."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from beatd.brokers.base import Broker
from beatd.errors import ConfigError
from beatd.settings import Settings, mask

logger = logging.getLogger(__name__)

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix")


def of_settings(settings: Settings, urls: Sequence[str]) -> Broker:
    """Give the broker at the first of `urls`, with what the settings say of it."""
    if len(urls) > 1:
        logger.warning(
            "of %d broker addresses only the first is used: %s",
            len(urls),
            mask(urls[0]),
            extra={"event": "broker.addresses"},
        )
    return connect(
        urls[0],
        namespace=settings.beat_namespace,
        options={
            "socket_connect_timeout": settings.broker_connection_timeout,
            **settings.broker_transport_options,
        },
        tls=settings.broker_use_ssl,
    )


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
