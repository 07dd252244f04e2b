"""Settings of the broker and of the connections to it."""
# ruff: noqa: RUF009  (each row of the table is made by a function)

from dataclasses import dataclass

from beatd.config import switches
from beatd.config.settings.kinds import (
    Count,
    Failover,
    Flag,
    Options,
    Seconds,
    Text,
    Urls,
)
from beatd.config.settings.notes import works


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class BrokerRows:
    """Settings of the broker and of the connections to it."""

    broker_url: Urls | None = works(
        None,
        "Address of the broker. The environment's `CELERY_BROKER_URL` wins.",
        differs="Unset means an SQLite file beside the schedule file. Of several"
        " addresses of Redis servers, in a list or with `;` between them, workers and"
        " clients go on to the next when one cannot be reached; messages at the address"
        " that was left wait there. The scheduler stays with the first: to queue each"
        " slot once it needs one ledger. Several of sentinels (`sentinel://`) name one"
        " server, the master, for all of them. RabbitMQ (`amqp://`, `amqps://`,"
        " `pyamqp://`) is for the scheduler and for clients, before Celery's workers,"
        " and has each slot at least once: `docs/brokers.md`.",
        switch=switches.BROKER,
    )
    broker_read_url: Urls | None = works(
        None,
        "Another address to consume from. The environment's"
        " `CELERY_BROKER_READ_URL` wins.",
    )
    broker_write_url: Urls | None = works(
        None,
        "Another address to publish to. The environment's"
        " `CELERY_BROKER_WRITE_URL` wins.",
        differs="Messages that a worker itself sends (retries, calls that follow from a"
        " run, events) go to the address that it consumes from: they are sent in the"
        " step that settles the delivery.",
    )
    broker_transport: Text | None = works(
        None, "The scheme, when the address is given in parts."
    )
    broker_host: Text | None = works(None, "A part of the address.")
    broker_port: Count | None = works(None, "A part of the address.")
    broker_user: Text | None = works(None, "A part of the address.")
    broker_password: Text | None = works(None, "A part of the address.")
    broker_vhost: Text | Count | None = works(
        None, "A part of the address; for Redis the number of the database."
    )
    broker_transport_options: Options = works(
        {},
        "Options of the broker: `global_keyprefix`, `priority_steps`, `sep`,"
        " `fanout_prefix`, `fanout_patterns`, `queue_order_strategy` (`round_robin`,"
        " `sorted`, `priority`), `max_connections`, `socket_timeout`,"
        " `socket_connect_timeout`, `socket_keepalive`, `socket_keepalive_options`,"
        " `health_check_interval`, `client_name`, for sentinels `master_name`,"
        " `sentinel_kwargs` (their password, their TLS) and `min_other_sentinels`;"
        " `visibility_timeout` and `unacked_…`, which say when what Celery's workers"
        " hold is given to others.",
        differs="The time-outs are 3 seconds and keep-alive is on unless set;"
        " connections are not bounded or checked unless set (Celery: 10, every 25 s)."
        " `visibility_timeout` says nothing of beatd's own workers, which renew their"
        " leases. These have no effect: `ack_emulation` and `unacked_restore_limit`,"
        " since workers' own keys hold what they have, and all that is due is restored;"
        " `retry_on_timeout`, since only the caller knows whether to ask again.",
    )
    broker_use_ssl: Flag | Options = works(
        False,
        "True, or options of TLS: `ssl_cert_reqs`, `ssl_ca_certs`, `ssl_certfile`,"
        " `ssl_keyfile`.",
        differs="The server's certificate is checked unless `ssl_cert_reqs` is"
        " `CERT_NONE`, for `rediss://` too.",
    )
    broker_connection_timeout: Seconds = works(
        3,
        "Seconds until one attempt to connect fails.",
        differs="3 unless set, Celery: 4.",
    )
    broker_failover_strategy: Failover | None = works(
        None,
        "Order in which further addresses are tried: `round-robin` (also when unset),"
        " `shuffle`, or a callable that gets the list of addresses and gives an"
        " iterator over them.",
    )
    broker_pool_limit: Count | None = works(
        10,
        "Connections by which one process sends at the same time; 0 or None: any"
        " number.",
        differs="`max_connections` in `broker_transport_options` wins. Workers and"
        " schedulers open those that they need.",
    )
    broker_pool_acquire_timeout: Seconds | None = works(
        None,
        "Seconds to wait for one of these connections.",
        differs="Unset means `socket_timeout`, 3 seconds by itself.",
    )
