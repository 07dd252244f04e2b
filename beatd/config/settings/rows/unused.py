"""Settings of Celery that beatd accepts and does nothing with, each with its reason."""
# ruff: noqa: RUF009  (each row of the table is made by a function)

from dataclasses import dataclass

from beatd.config.settings.kinds import (
    Anything,
    Count,
    Flag,
    Number,
    Options,
    Seconds,
    Text,
)
from beatd.config.settings.notes import unused
from beatd.config.switches import Switch

AMQP = "only AMQP has it"
RABBIT = "only RabbitMQ has it"
BEAT = "only AMQP has them: there two in `beat_lock_timeout`, and never none"
NO_TIMER = "they wait in the broker, which gives them out at their time"
MONITORS = "it is for programs that listen to events, and beatd only sends them"
OTHER_STORE = "beatd keeps results in Redis or SQLite"
NO_SIGNING = "beatd does not sign messages"


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class UnusedRows:
    """Settings of Celery that beatd accepts and does nothing with."""

    beat_sync_every: Count = unused(
        0,
        "Emissions after which the schedule file is written.",
        "the schedule file is written after every tick",
    )
    beat_enable_remote_control: Flag = unused(
        False,
        "Whether the scheduler answers `inspect ping`.",
        "`systemctl status` and the log say whether it is well",
    )
    beat_remote_control_max_tick_age: Seconds | None = unused(
        None,
        "Age of the last tick from which on it does not answer.",
        "goes with `beat_enable_remote_control`",
    )
    broker_connection_retry: Flag = unused(
        True,
        "Whether to connect again when a connection was lost.",
        "beatd always does",
    )
    broker_connection_retry_on_startup: Flag | None = unused(
        None, "The same for the first connection.", "beatd always does"
    )
    broker_connection_max_retries: Count | None = unused(
        100,
        "Attempts to connect before giving up.",
        "no fault of the broker ends beatd",
    )
    broker_channel_error_retry: Flag = unused(
        False, "Whether to connect again on channel errors.", AMQP
    )
    broker_heartbeat: Seconds | None = unused(120, "Seconds between heartbeats.", BEAT)
    broker_heartbeat_checkrate: Number = unused(3.0, "Checks for each heartbeat.", BEAT)
    broker_login_method: Text | None = unused(None, "Method of login.", AMQP)
    broker_native_delayed_delivery_queue_type: Text = unused(
        "quorum", "Type of the queues for delayed messages.", RABBIT
    )
    result_persistent: Flag | None = unused(
        None,
        "Whether results outlive a restart of the broker, where they are messages.",
        "here they are none: Redis and SQLite keep them in any case",
    )
    result_exchange: Text = unused("celeryresults", "Exchange of results.", AMQP)
    result_exchange_type: Text = unused("direct", "Type of that exchange.", AMQP)
    result_chord_retry_interval: Seconds = unused(
        1.0,
        "Seconds between looks at a chord.",
        "the parts of a chord are counted as they end, and nobody looks in between",
    )
    redis_socket_keepalive: Flag = unused(
        False, "TCP keep-alive on sockets to Redis.", "beatd always sets it"
    )
    redis_retry_on_timeout: Flag = unused(
        False,
        "Try again after a time-out.",
        "beatd always does, by requests that may be repeated",
    )
    worker_enable_soft_shutdown_on_idle: Flag = unused(
        False,
        "Have a cold shutdown wait even when nothing runs.",
        "in Celery it gives messages with an eta time to go back to their queue; here"
        " they wait in the broker, and the worker ends when all that it held is given"
        " back",
    )
    worker_enable_gossip: Flag = unused(
        True,
        "Listen to other workers' events.",
        "no worker of beatd's needs to know another",
        old="CELERY_WORKER_ENABLE_GOSSIP",
        switch=Switch(
            ("--without-gossip",), "Accepted; no worker needs others.", says=False
        ),
    )
    worker_eta_task_limit: Count | None = unused(
        None,
        "Most messages with an eta that a worker holds.",
        "a worker holds none: they wait in the broker, outside of the prefetch",
    )
    worker_enable_prefetch_count_reduction: Flag = unused(
        True,
        "Hold fewer messages after a new connection, as long as old tasks run.",
        "it is always so: a task that still runs keeps its place in the prefetch,"
        " whatever became of the connection",
    )
    worker_detect_quorum_queues: Flag = unused(True, "Detect quorum queues.", RABBIT)
    worker_lost_wait: Seconds = unused(
        10.0,
        "Seconds to wait for the result of a process that died.",
        "in Celery all processes answer through one queue, in which it may still lie;"
        " here each has its own, which is read to its end first",
        old="CELERYD_WORKER_LOST_WAIT",
    )
    worker_pool_putlocks: Flag = unused(
        True,
        "Give the pool a task only when a process is free.",
        "it is always so: no task waits in the pool behind one that takes its time",
    )
    worker_agent: Anything = unused(
        None,
        "Class that runs actors of the package `cell` beside the worker.",
        "beatd runs tasks alone",
    )
    worker_autoscaler: Anything = unused(
        "celery.worker.autoscale:Autoscaler",
        "Class that decides the pool's size.",
        "one written for Celery steers Celery's pools; `--autoscale` and"
        " `--autoscale-keepalive` steer beatd's",
    )
    worker_consumer: Anything = unused(
        "celery.worker.consumer:Consumer",
        "Class that takes messages from the broker.",
        "one written for Celery takes them through kombu, and beatd reads Redis and"
        " SQLite itself",
    )
    worker_timer: Anything = unused(
        None, "Class of the timer that starts tasks with an eta.", NO_TIMER
    )
    worker_timer_precision: Seconds = unused(
        1.0,
        "Longest time that tasks with an eta start late because that timer sleeps.",
        NO_TIMER,
    )
    control_queue_ttl: Seconds = unused(
        300.0,
        "How long control messages live.",
        "a command is received at once or not at all, and the queue of its answers"
        " expires as a whole: `control_queue_expires`",
    )
    control_queue_exclusive: Flag = unused(
        True, "Whether control queues are exclusive.", AMQP
    )
    control_queue_durable: Flag = unused(
        False, "Whether control queues are durable.", AMQP
    )
    event_queue_prefix: Text = unused("celeryev", "Prefix of event queues.", MONITORS)
    event_queue_ttl: Seconds = unused(5.0, "How long events live.", MONITORS)
    event_queue_expires: Seconds = unused(60.0, "How long event queues live.", MONITORS)
    event_queue_exclusive: Flag = unused(
        True, "Whether event queues are exclusive.", MONITORS
    )
    event_queue_durable: Flag = unused(
        False, "Whether event queues are durable.", MONITORS
    )
    cache_backend: Text | None = unused(
        None, "Address of a cache for results.", OTHER_STORE
    )
    cache_backend_options: Options = unused({}, "Its options.", OTHER_STORE)
    security_certificate: Text | None = unused(
        None, "Path of a certificate.", NO_SIGNING
    )
    security_cert_store: Text | None = unused(
        None, "Path of known certificates.", NO_SIGNING
    )
    security_key: Text | None = unused(None, "Path of the private key.", NO_SIGNING)
    security_key_password: Anything = unused(None, "Its pass-phrase.", NO_SIGNING)
    security_digest: Text = unused("sha256", "Digest of signatures.", NO_SIGNING)
    database_url: Text | None = unused(
        None,
        "Address of a database for results.",
        OTHER_STORE,
        old="CELERY_RESULT_DBURI",
    )
    database_engine_options: Options | None = unused(
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "Options of SQLAlchemy.",
        OTHER_STORE,
        old="CELERY_RESULT_ENGINE_OPTIONS",
    )
    database_engine_callback: Anything = unused(
        None, "Hook of SQLAlchemy.", OTHER_STORE, old="DATABASE_ENGINE_CALLBACK"
    )
    database_short_lived_sessions: Flag = unused(
        False,
        "A session for each operation.",
        OTHER_STORE,
        old="CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
    )
    database_table_schemas: Options | None = unused(
        None, "Schemas of its tables.", OTHER_STORE, old="DATABASE_TABLE_SCHEMAS"
    )
    database_table_names: Options | None = unused(
        None, "Names of its tables.", OTHER_STORE, old="CELERY_RESULT_DB_TABLENAMES"
    )
    database_create_tables_at_setup: Flag = unused(
        True, "When they are made.", OTHER_STORE, old="DATABASE_CREATE_TABLES_AT_SETUP"
    )
