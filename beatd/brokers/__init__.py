"""Brokers by their URL: the only place that knows them all."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from beatd.brokers.base import Broker, SendingBroker
from beatd.config.settings import Failover, Settings, file_of_url, mask_url
from beatd.errors import ConfigError
from beatd.instant import SECOND, Span, span_of
from beatd.routing import steps_of

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel")
AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")


def of_settings(
    settings: Settings, urls: Sequence[str], options: Mapping[str, Any] | None = None
) -> SendingBroker:
    """Return the broker at `urls`, with the options that the settings have for it.

    Of several Redis servers, the next one is used when one cannot be reached. Values
    of `broker_transport_options` win over `options`.
    """
    return connect(
        urls,
        namespace=settings.beat_namespace,
        options={
            "socket_connect_timeout": settings.broker_connection_timeout,
            **(options or {}),
            **settings.broker_transport_options,
        },
        tls=settings.broker_use_ssl,
        failover=settings.broker_failover_strategy,
        min_replicas=settings.beat_min_replicas,
        lead_life=span_of(settings.beat_lock_timeout),
    )


def for_workers(settings: Settings, urls: Sequence[str]) -> Broker:
    """Return the broker at `urls` for somebody who takes messages from it.

    Raises ConfigError for a broker to which beatd only sends.
    """
    broker = of_settings(settings, urls)
    if isinstance(broker, Broker):
        return broker
    broker.close()
    raise ConfigError(
        f"broker {mask_url(urls[0])}",
        [
            "beatd's worker does not take messages from RabbitMQ yet, and keeps no dead"
            " letters there: start Celery's workers (celery -A app worker), and beatd"
            " as their scheduler"
        ],
    )


def connect(
    url: str | Sequence[str],
    *,
    namespace: str,
    options: Mapping[str, Any] | None = None,
    tls: bool | Mapping[str, Any] = False,
    failover: Failover | None = None,
    min_replicas: int = 0,
    lead_life: Span = 5 * SECOND,
) -> SendingBroker:
    """Return the broker at `url`; no server is connected to before the first call.

    `lead_life` is how long a leader that is silent may lead on. `options` and `tls` are
    `broker_transport_options` and `broker_use_ssl`. A path in
    `sqlite:///relative.db` is relative, one in `sqlite:////var/lib/x.db` is not.

    Raises ConfigError when there is no broker of ours for the URL, or for one of them.
    """
    urls = [url] if isinstance(url, str) else list(url)
    schemes = [urlsplit(one).scheme for one in urls]
    if all(scheme in REDIS_SCHEMES for scheme in schemes):
        from beatd.brokers.redis import RedisBroker

        return RedisBroker(
            urls,
            namespace=namespace,
            options=options,
            tls=tls,
            failover=failover,
            min_replicas=min_replicas,
        )
    if unknown := [
        one
        for one, scheme in zip(urls, schemes, strict=True)
        if scheme not in (*REDIS_SCHEMES, *AMQP_SCHEMES, "sqlite", "memory")
    ]:
        raise ConfigError(
            "broker_url",
            [
                f"{mask_url(one)!r}: beatd speaks redis://, rediss://, redis+socket://,"
                " unix://, sentinel://, amqp://, amqps://, pyamqp://, sqlite:// and"
                " memory://"
                for one in unknown
            ],
        )
    if min_replicas:
        raise ConfigError("beat_min_replicas", ["only Redis has replicas"])
    if len(urls) > 1:
        raise ConfigError("broker_url", ["only Redis may have several addresses"])
    if schemes[0] in AMQP_SCHEMES:
        try:
            from beatd.brokers.amqp import AMQPBroker
        except ModuleNotFoundError as error:
            raise ConfigError(
                "broker_url", ["RabbitMQ needs a package: pip install 'beatd[amqp]'"]
            ) from error
        return AMQPBroker(
            urls[0], namespace=namespace, options=options, tls=tls, lead_life=lead_life
        )
    if path := file_of_url(urls[0]):
        from beatd.brokers.sqlite import SQLiteBroker

        steps = steps_of(options or {})
        return SQLiteBroker(path, namespace=namespace, priority_steps=steps)
    from beatd.brokers.memory import MemoryBroker

    return MemoryBroker()
