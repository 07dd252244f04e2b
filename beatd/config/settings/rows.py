"""The table of settings: one row for each, and nothing else.

A row is the name, the kinds of values that it takes, whether it works (`notes.py`),
Celery's old name, the default and the meaning. The reader, the hints, the docs page and
the tests follow it. After a change: `python -m beatd.config.settings >
docs/settings.md`, and `python -m beatd.cli.worker_options > docs/worker-options.md`.
"""
# ruff: noqa: RUF009  (each row of the table is made by a function)

import math
from dataclasses import dataclass

from beatd.config.settings.kinds import (
    Annotations,
    Anything,
    Auto,
    Count,
    DeliveryMode,
    ExchangeType,
    Failover,
    Flag,
    Index,
    Number,
    Options,
    Overlap,
    Pool,
    Positive,
    Protocol,
    Schedule,
    Scheduler,
    Seconds,
    Serializer,
    SomeSeconds,
    StartMethod,
    Text,
    Texts,
    Urls,
    Zone,
)
from beatd.config.settings.notes import own, unused, works

_AMQP = "only AMQP has it"
_RABBIT = "only RabbitMQ has it"
_NO_TIMER = "they wait in the broker, which gives them out at their time"
_MONITORS = "it is for those who listen to events, and beatd only sends them"
_BY_SENDERS = "it is for those who send chords, and beatd only runs them"
_OTHER_STORE = "beatd keeps results in Redis or SQLite"
_NO_SIGNING = "beatd does not sign messages"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Rows:
    """A field for each setting; `Settings` in `values.py` is what others use."""

    accept_content: Texts = works(
        "CELERY_ACCEPT_CONTENT",
        ("json",),
        "Content types, or names of serializers, that a process decodes. Others go to"
        " the dead-letter queue. `pickle` is never implied.",
    )
    enable_utc: Flag = works(
        "ENABLE_UTC",
        True,
        "Whether times in messages are written in UTC.",
        differs="Always UTC, though messages of protocol 1 carry the flag; a schedule"
        " is read in `timezone` whatever this says.",
    )
    timezone: Zone | None = works(
        "CELERY_TIMEZONE",
        None,
        "Time zone in which schedules are read and times shown; unset means UTC.",
        differs="A change keeps the ledger; schedules count on from the change.",
    )
    imports: Texts = works(
        "CELERY_IMPORTS", (), "Modules imported at start, so that tasks register."
    )
    include: Texts = works(
        "CELERY_INCLUDE", (), "More of them, imported after `imports`; `-I` adds to it."
    )

    beat_schedule: Schedule = works(
        "CELERYBEAT_SCHEDULE",
        {},
        "The entries: name to `task`, `schedule`, `args`, `kwargs`, `options`,"
        " `relative` and beatd's policies.",
    )
    beat_scheduler: Scheduler = works(
        "CELERYBEAT_SCHEDULER",
        "celery.beat:PersistentScheduler",
        "The scheduler class.",
        differs="Celery's own mean beatd; any other class is an error.",
    )
    beat_schedule_filename: Text = works(
        "CELERYBEAT_SCHEDULE_FILENAME",
        "celerybeat-schedule",
        "Path of the schedule file.",
        differs="An SQLite file, not a shelve; a shelve is refused and left as it is.",
    )
    beat_max_loop_interval: Seconds = works(
        "CELERYBEAT_MAX_LOOP_INTERVAL",
        0,
        "Longest sleep between two looks at the schedule; 0 lets beatd choose.",
        differs="Never more than one second: a look costs next to nothing.",
    )
    beat_cron_starting_deadline: Seconds | None = works(
        "CELERYBEAT_CRON_STARTING_DEADLINE",
        None,
        "Slots of cron entries that are older than this many seconds are dropped."
        " `beat_misfire_grace_time` says the same for all entries.",
    )
    beat_sync_every: Count = unused(
        "CELERYBEAT_SYNC_EVERY",
        0,
        "Emissions after which the schedule file is written.",
        "the schedule file is written after every tick",
    )
    beat_enable_remote_control: Flag = unused(
        "CELERYBEAT_ENABLE_REMOTE_CONTROL",
        False,
        "Whether the scheduler answers `inspect ping`.",
        "`systemctl status` and the log say whether it is well",
    )
    beat_remote_control_max_tick_age: Seconds | None = unused(
        "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
        None,
        "Age of the last tick from which on it does not answer.",
        "goes with `beat_enable_remote_control`",
    )
    beat_misfire_grace_time: Seconds | None = own(
        "CELERYBEAT_MISFIRE_GRACE_TIME",
        None,
        "Slots that are found later than this many seconds are dropped; unset means"
        " that no slot is too old. An entry's `misfire_grace_time` wins.",
    )
    beat_coalesce: Flag = own(
        "CELERYBEAT_COALESCE",
        True,
        "Of several slots of one entry that are overdue together only the latest is"
        " emitted. An entry's `coalesce` wins.",
    )
    beat_max_catchup: Positive = own(
        "CELERYBEAT_MAX_CATCHUP",
        1000,
        "Without coalescing: the most overdue slots of one entry that are emitted."
        " An entry's `max_catchup` wins.",
    )
    beat_overlap: Overlap = own(
        "CELERYBEAT_OVERLAP",
        "allow",
        "What a slot does whose entry still runs: `allow`, `skip` or `queue_one`."
        " An entry's `overlap` wins.",
    )
    beat_jitter: Seconds = own(
        "CELERYBEAT_JITTER",
        0,
        "Each entry is shifted by its own fixed share of this many seconds. An entry's"
        " `jitter` wins.",
    )
    beat_slot_argument: Text | None = own(
        "CELERYBEAT_SLOT_ARGUMENT",
        None,
        "Keyword argument in which each run gets its slot, as ISO 8601 text. An"
        " entry's `slot_argument` wins.",
    )
    beat_min_interval: SomeSeconds = own(
        "CELERYBEAT_MIN_INTERVAL",
        0.1,
        "The shortest interval that an entry may have.",
    )
    beat_namespace: Text = own(
        "CELERYBEAT_NAMESPACE",
        "default",
        "Name of the ledger in the broker. Schedulers with one namespace share its"
        " entries, one of them leading; give each schedule its own.",
    )
    beat_lock_timeout: SomeSeconds = own(
        "CELERYBEAT_LOCK_TIMEOUT",
        5,
        "Seconds after which a leader that fell silent may be replaced.",
    )
    beat_logfile: Text | None = works(
        "CELERY_BEAT_LOGFILE", None, "Default of the scheduler's `--logfile`."
    )
    beat_pidfile: Text | None = works(
        "CELERY_BEAT_PIDFILE", None, "Default of the scheduler's `--pidfile`."
    )
    beat_uid: Text | Count | None = works(
        "CELERY_BEAT_UID", None, "Default of the scheduler's `--uid`."
    )
    beat_gid: Text | Count | None = works(
        "CELERY_BEAT_GID", None, "Default of the scheduler's `--gid`."
    )
    beat_umask: Text | Count | None = works(
        "CELERY_BEAT_UMASK", None, "Default of the scheduler's `--umask`."
    )
    beat_executable: Text | None = works(
        "CELERY_BEAT_EXECUTABLE", None, "Default of the scheduler's `--executable`."
    )

    broker_url: Urls | None = works(
        "BROKER_URL",
        None,
        "Address of the broker. The environment's `CELERY_BROKER_URL` wins.",
        differs="Unset means an SQLite file beside the schedule file. Of several"
        " addresses of Redis servers, in a list or with `;` between them, workers and"
        " clients go on to the next when one cannot be reached; what lies at the one"
        " that was left waits there. The scheduler stays with the first: that each slot"
        " is queued once takes one ledger.",
    )
    broker_read_url: Urls | None = works(
        "BROKER_READ_URL",
        None,
        "Another address to consume from. The environment's"
        " `CELERY_BROKER_READ_URL` wins.",
    )
    broker_write_url: Urls | None = works(
        "BROKER_WRITE_URL",
        None,
        "Another address to publish to. The environment's"
        " `CELERY_BROKER_WRITE_URL` wins.",
        differs="What a worker itself sends (retries, what follows from a run, events)"
        " goes to the address that it consumes from: it is sent in the step that"
        " settles the delivery.",
    )
    broker_transport: Text | None = works(
        "BROKER_TRANSPORT", None, "The scheme, when the address is given in parts."
    )
    broker_host: Text | None = works("BROKER_HOST", None, "A part of the address.")
    broker_port: Count | None = works("BROKER_PORT", None, "A part of the address.")
    broker_user: Text | None = works("BROKER_USER", None, "A part of the address.")
    broker_password: Text | None = works(
        "BROKER_PASSWORD", None, "A part of the address."
    )
    broker_vhost: Text | Count | None = works(
        "BROKER_VHOST",
        None,
        "A part of the address; for Redis the number of the database.",
    )
    broker_transport_options: Options = works(
        "BROKER_TRANSPORT_OPTIONS",
        {},
        "Options of the broker: `global_keyprefix`, `priority_steps`, `sep`,"
        " `fanout_prefix`, `fanout_patterns`, `queue_order_strategy` (`round_robin`,"
        " `sorted`, `priority`), `max_connections`, `socket_timeout`,"
        " `socket_connect_timeout`, `socket_keepalive`, `socket_keepalive_options`,"
        " `health_check_interval`, `client_name`.",
        differs="The time-outs are 3 seconds and keep-alive is on unless set;"
        " connections are not bounded or checked unless set (Celery: 10, every 25 s)."
        " These have no effect: `visibility_timeout`, `ack_emulation` and `unacked_…`,"
        " since workers renew their leases and their own keys hold what they have;"
        " `retry_on_timeout`, since whoever asks knows whether to ask again;"
        " `master_name`, `sentinel_kwargs` and `min_other_sentinels`, since beatd does"
        " not speak to Sentinel.",
    )
    broker_use_ssl: Flag | Options = works(
        "BROKER_USE_SSL",
        False,
        "True, or options of TLS: `ssl_cert_reqs`, `ssl_ca_certs`, `ssl_certfile`,"
        " `ssl_keyfile`.",
        differs="The server's certificate is checked unless `ssl_cert_reqs` is"
        " `CERT_NONE`, for `rediss://` too.",
    )
    broker_connection_timeout: Seconds = works(
        "BROKER_CONNECTION_TIMEOUT",
        3,
        "Seconds until one attempt to connect fails.",
        differs="3 unless set, Celery: 4.",
    )
    broker_connection_retry: Flag = unused(
        "BROKER_CONNECTION_RETRY",
        True,
        "Whether to connect again when a connection was lost.",
        "beatd always does",
    )
    broker_connection_retry_on_startup: Flag | None = unused(
        "BROKER_CONNECTION_RETRY_ON_STARTUP",
        None,
        "The same for the first connection.",
        "beatd always does",
    )
    broker_connection_max_retries: Count | None = unused(
        "BROKER_CONNECTION_MAX_RETRIES",
        100,
        "Attempts to connect before giving up.",
        "no fault of the broker ends beatd",
    )
    broker_channel_error_retry: Flag = unused(
        "BROKER_CHANNEL_ERROR_RETRY", False, "Also on channel errors.", _AMQP
    )
    broker_failover_strategy: Failover | None = works(
        "BROKER_FAILOVER_STRATEGY",
        None,
        "Order in which further addresses are tried: `round-robin` (also when unset),"
        " `shuffle`, or a callable that gets the list of addresses and gives an"
        " iterator over them.",
    )
    broker_heartbeat: Seconds | None = unused(
        "BROKER_HEARTBEAT", 120, "Seconds between heartbeats.", _AMQP
    )
    broker_heartbeat_checkrate: Number = unused(
        "BROKER_HEARTBEAT_CHECKRATE", 3.0, "Checks for each heartbeat.", _AMQP
    )
    broker_login_method: Text | None = unused(
        "BROKER_LOGIN_METHOD", None, "Method of login.", _AMQP
    )
    broker_native_delayed_delivery_queue_type: Text = unused(
        "BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE",
        "quorum",
        "Type of the queues for delayed messages.",
        _RABBIT,
    )
    broker_pool_limit: Count | None = works(
        "BROKER_POOL_LIMIT",
        10,
        "Connections by which one process sends at the same time; 0 or None: any"
        " number.",
        differs="`max_connections` in `broker_transport_options` wins. Workers and"
        " schedulers open those that they need.",
    )
    broker_pool_acquire_timeout: Seconds | None = works(
        "BROKER_POOL_ACQUIRE_TIMEOUT",
        None,
        "Seconds to wait for one of them.",
        differs="Unset means `socket_timeout`, 3 seconds by itself.",
    )

    result_backend: Text | None = works(
        "CELERY_RESULT_BACKEND",
        None,
        "Where states and results are kept; unset means nowhere. The environment's"
        " `CELERY_RESULT_BACKEND` wins.",
        differs="`redis://`, `rediss://`, `redis+socket://` and `sqlite://`. Without"
        " a broker too, unset means an SQLite file beside the schedule file.",
    )
    result_expires: Seconds | None = works(
        "CELERY_TASK_RESULT_EXPIRES",
        86400,
        "Seconds, or a timedelta, for which a result is kept; 0 or None: for ever.",
        differs="After it the state of an id that beatd made reads EXPIRED.",
    )
    result_failure_expires: Seconds | None = works(
        "CELERY_RESULT_FAILURE_EXPIRES",
        None,
        "The same for failures; unset means `result_expires`.",
    )
    result_serializer: Serializer = works(
        "CELERY_RESULT_SERIALIZER", "json", "How results are encoded."
    )
    result_accept_content: Texts | None = works(
        "RESULT_ACCEPT_CONTENT",
        None,
        "Content types of results that are decoded; unset means `accept_content`.",
    )
    result_compression: Text | None = works(
        "CELERY_RESULT_COMPRESSION", None, "How results are compressed."
    )
    result_extended: Flag = works(
        "CELERY_RESULT_EXTENDED",
        False,
        "Keep name, arguments, worker, retries and queue with each result.",
    )
    result_persistent: Flag | None = unused(
        "CELERY_RESULT_PERSISTENT",
        None,
        "Whether results outlive a restart of the broker, where they are messages.",
        "here they are none: Redis and SQLite keep them in any case",
    )
    result_backend_transport_options: Options = works(
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS",
        {},
        "Options of the result backend: `global_keyprefix`, `result_chord_ordered`, and"
        " those of connections in `broker_transport_options`.",
    )
    result_cache_max: Index = works(
        "CELERY_MAX_CACHED_RESULTS",
        -1,
        "Results of successful runs that a client remembers; 0: all, -1: none.",
    )
    result_exchange: Text = unused(
        "CELERY_RESULT_EXCHANGE", "celeryresults", "Exchange of results.", _AMQP
    )
    result_exchange_type: Text = unused(
        "CELERY_RESULT_EXCHANGE_TYPE", "direct", "Its type.", _AMQP
    )
    result_chord_expires: Seconds | None = works(
        "CELERY_RESULT_CHORD_EXPIRES",
        None,
        "How long what is known of a chord is kept; unset: as long as results.",
    )
    result_chord_retry_interval: Seconds = unused(
        "CELERY_RESULT_CHORD_RETRY_INTERVAL",
        1.0,
        "Seconds between looks at a chord.",
        "the parts of a chord are counted as they end, and nobody looks in between",
    )
    result_chord_join_timeout: Seconds | None = works(
        "CELERY_RESULT_CHORD_JOIN_TIMEOUT",
        3.0,
        "A worker alone may send a chord's body for twice as many seconds, five at"
        " least.",
        "beatd waits for no parts: the last one finds all others there.",
    )
    result_backend_always_retry: Flag = works(
        "CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        False,
        "Ask for a result again when no answer came.",
        differs="Of clients; workers always try again, for ever.",
    )
    result_backend_max_retries: Number = works(
        "CELERY_RESULT_BACKEND_MAX_RETRIES",
        math.inf,
        "How often.",
        differs="Of clients.",
    )
    result_backend_base_sleep_between_retries_ms: Count = works(
        "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        10,
        "First pause between tries, in milliseconds, of clients and of workers.",
    )
    result_backend_max_sleep_between_retries_ms: Count = works(
        "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        1000,
        "Longest pause between them.",
        differs="1000 and not 10000 by default: what waits is kept as soon as the"
        " backend is back.",
    )

    redis_max_connections: Positive | None = works(
        "CELERY_REDIS_MAX_CONNECTIONS",
        None,
        "Most connections to the result backend. The broker's limit is"
        " `broker_transport_options['max_connections']`.",
    )
    redis_socket_timeout: SomeSeconds | None = works(
        "CELERY_REDIS_SOCKET_TIMEOUT",
        3.0,
        "Seconds for one read or write of the result backend.",
        differs="3 and not 120 by default: a dead connection is found in time.",
    )
    redis_socket_connect_timeout: SomeSeconds | None = works(
        "CELERY_REDIS_SOCKET_CONNECT_TIMEOUT", None, "Seconds for connecting to it."
    )
    redis_socket_keepalive: Flag = unused(
        "CELERY_REDIS_SOCKET_KEEPALIVE",
        False,
        "TCP keep-alive on its sockets.",
        "beatd always sets it",
    )
    redis_retry_on_timeout: Flag = unused(
        "CELERY_REDIS_RETRY_ON_TIMEOUT",
        False,
        "Try again after a time-out.",
        "beatd always does, by requests that may be repeated",
    )
    redis_backend_use_ssl: Flag | Options | None = works(
        "CELERY_REDIS_BACKEND_USE_SSL", None, "Options of TLS for the result backend."
    )
    redis_host: Text | None = works(
        "CELERY_REDIS_HOST", None, "A part of its address, when that is no URL."
    )
    redis_port: Count | None = works(
        "CELERY_REDIS_PORT", None, "A part of its address."
    )
    redis_db: Count | None = works("CELERY_REDIS_DB", None, "A part of its address.")
    redis_username: Text | None = works(
        "CELERY_REDIS_USERNAME", None, "A part of its address."
    )
    redis_password: Text | None = works(
        "CELERY_REDIS_PASSWORD", None, "A part of its address."
    )

    task_serializer: Serializer = works(
        "CELERY_TASK_SERIALIZER", "json", "How arguments are encoded."
    )
    task_compression: Text | None = works(
        "CELERY_MESSAGE_COMPRESSION", None, "How messages are compressed."
    )
    task_protocol: Protocol = works(
        "CELERY_TASK_PROTOCOL", 2, "Version of the message protocol."
    )
    task_default_queue: Text = works(
        "CELERY_DEFAULT_QUEUE", "celery", "The queue when none is named."
    )
    task_default_exchange: Text | None = works(
        "CELERY_DEFAULT_EXCHANGE",
        None,
        "Exchange of the default queue; unset: its name.",
    )
    task_default_exchange_type: ExchangeType = works(
        "CELERY_DEFAULT_EXCHANGE_TYPE", "direct", "`direct`, `topic` or `fanout`."
    )
    task_default_routing_key: Text | None = works(
        "CELERY_DEFAULT_ROUTING_KEY",
        None,
        "Routing key of the default queue; unset: its name.",
    )
    task_default_priority: Count | None = works(
        "CELERY_DEFAULT_PRIORITY",
        None,
        "Priority of messages that name none. On Redis 0 comes first.",
    )
    task_default_delivery_mode: DeliveryMode = works(
        "CELERY_DEFAULT_DELIVERY_MODE", 2, "2 persistent, 1 transient (AMQP)."
    )
    task_queues: Anything = works(
        "CELERY_QUEUES",
        None,
        "Declared queues: a list of kombu's or beatd's `Queue`, or a dict by name.",
    )
    task_routes: Anything = works(
        "CELERY_ROUTES",
        None,
        "Routes by task name: a dict (globs allowed), a list of pairs, a function.",
    )
    task_create_missing_queues: Flag = works(
        "CELERY_CREATE_MISSING_QUEUES",
        True,
        "Whether a queue may be named that `task_queues` does not declare.",
    )
    task_acks_late: Flag = works(
        "CELERY_ACKS_LATE",
        True,
        "Whether a message is acknowledged after its run (at least once) or before"
        " (at most once).",
        differs="True unless set, Celery: False; leases give a dead worker's tasks"
        " back within seconds.",
    )
    task_acks_on_failure_or_timeout: Flag = works(
        "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        True,
        "With late acknowledgement: also when the run failed or timed out.",
    )
    task_acks_on_failure: Flag | None = works(
        "CELERY_ACKS_ON_FAILURE", None, "The same for failures alone."
    )
    task_acks_on_timeout: Flag | None = works(
        "CELERY_ACKS_ON_TIMEOUT", None, "The same for time-outs alone."
    )
    task_reject_on_worker_lost: Flag | None = works(
        "CELERY_REJECT_ON_WORKER_LOST",
        None,
        "With late acknowledgement: give the message back when its process dies.",
    )
    task_max_deliveries: Positive = own(
        "CELERY_MAX_DELIVERIES",
        5,
        "Deliveries that may end in a dead process before the message goes to the"
        " dead-letter queue.",
    )
    task_ignore_result: Flag = works(
        "CELERY_IGNORE_RESULT",
        False,
        "Keep neither states nor results; a task's own `ignore_result` wins.",
    )
    task_store_errors_even_if_ignored: Flag = works(
        "CELERY_STORE_ERRORS_EVEN_IF_IGNORED", False, "But keep failures."
    )
    task_track_started: Flag = works(
        "CELERY_TRACK_STARTED", False, "Keep the state STARTED when a run begins."
    )
    task_time_limit: SomeSeconds | None = works(
        "CELERYD_TASK_TIME_LIMIT",
        None,
        "Seconds after which a run is ended by force.",
    )
    task_soft_time_limit: SomeSeconds | None = works(
        "CELERYD_TASK_SOFT_TIME_LIMIT",
        None,
        "Seconds after which SoftTimeLimitExceeded is raised in the task.",
    )
    task_publish_retry: Flag = works(
        "CELERY_TASK_PUBLISH_RETRY", True, "Try again when a call cannot be sent."
    )
    task_publish_retry_policy: Options = works(
        "CELERY_TASK_PUBLISH_RETRY_POLICY",
        {
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        "How: `max_retries`, `interval_start`, `interval_step`, `interval_max`.",
    )
    task_always_eager: Flag = works(
        "CELERY_ALWAYS_EAGER", False, "Run calls at once, in the calling process."
    )
    task_eager_propagates: Flag = works(
        "CELERY_EAGER_PROPAGATES_EXCEPTIONS", False, "And let their errors through."
    )
    task_store_eager_result: Flag = works(
        "CELERY_STORE_EAGER_RESULT", False, "And keep their results."
    )
    task_annotations: Annotations | None = works(
        "CELERY_ANNOTATIONS",
        None,
        "Changes attributes and methods of tasks: a dict of them by task name, `*` for"
        " all; an object with `annotate(task)`; or a list of these.",
        differs="A `shared_task` is one task for all apps of a process, and has the"
        " changes of each.",
    )
    task_default_rate_limit: Text | Number | None = works(
        "CELERY_DEFAULT_RATE_LIMIT",
        None,
        "Rate for each task and worker, such as `10/m`; the task's own goes before.",
    )
    task_default_queue_type: Text = unused(
        "CELERY_DEFAULT_QUEUE_TYPE", "classic", "Type of the queue.", _RABBIT
    )
    task_create_missing_queue_type: Text = unused(
        "CELERY_CREATE_MISSING_QUEUE_TYPE", "classic", "Type of new queues.", _RABBIT
    )
    task_create_missing_queue_exchange_type: ExchangeType | None = works(
        "CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE",
        None,
        "Type of the exchanges of new queues: `direct`, `topic` or `fanout`.",
    )
    task_queue_max_priority: Count | None = unused(
        "CELERY_QUEUE_MAX_PRIORITY", None, "`x-max-priority` of queues.", _RABBIT
    )
    task_inherit_parent_priority: Flag = works(
        "CELERY_INHERIT_PARENT_PRIORITY",
        False,
        "Calls made by a task take its priority.",
    )
    task_retry_on_worker_lost: Flag = works(
        "CELERY_RETRY_ON_WORKER_LOST",
        False,
        "Retry a task whose process died, as often as its `max_retries` says and after"
        " its `default_retry_delay`; it fails then. Goes before"
        " `task_reject_on_worker_lost`.",
        differs="`on_retry` and `task_retry` are not called: there is no process left"
        " in which the task runs.",
    )
    task_remote_tracebacks: Flag = works(
        "CELERY_REMOTE_TRACEBACKS",
        False,
        "Show where a run failed with the exception that `get` raises.",
        differs="As the exception's cause, and without `tblib`.",
    )
    task_repr_maxlevels: Count = works(
        "CELERY_REPR_MAXLEVELS",
        3,
        "Levels of arguments that are shown in logs and events; 0: all.",
    )
    task_send_sent_event: Flag = works(
        "CELERY_SEND_TASK_SENT_EVENT",
        False,
        "Send an event, `task-sent`, for each call, also for those that workers and the"
        " scheduler send.",
        differs="Only on Redis.",
    )
    task_allow_error_cb_on_chord_header: Flag = unused(
        "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
        False,
        "Call-backs for errors on the parts of chords.",
        _BY_SENDERS,
    )

    worker_concurrency: Count | Auto | None = works(
        "CELERYD_CONCURRENCY",
        None,
        "Runs at the same time; unset, 0 and `auto` mean one for each processor.",
    )
    worker_pool: Pool = works(
        "CELERYD_POOL",
        "prefork",
        "`prefork`, `threads`, `solo`, `asyncio`, `gevent` or `eventlet`.",
    )
    worker_prefetch_multiplier: Count = works(
        "CELERYD_PREFETCH_MULTIPLIER",
        4,
        "Messages that a worker holds for each run at the same time.",
    )
    worker_max_tasks_per_child: Positive | None = works(
        "CELERYD_MAX_TASKS_PER_CHILD",
        None,
        "Runs after which a process is replaced; unset: never.",
    )
    worker_max_memory_per_child: Positive | None = works(
        "CELERYD_MAX_MEMORY_PER_CHILD",
        None,
        "KiB of resident memory from which on a process is replaced after its run.",
    )
    worker_lease_timeout: SomeSeconds = own(
        "CELERYD_LEASE_TIMEOUT",
        6,
        "Seconds of silence after which a worker counts as dead and its messages are"
        " given back.",
    )
    worker_remote_shutdown: Flag = own(
        "CELERYD_REMOTE_SHUTDOWN",
        False,
        "Whether a message may stop the worker.",
    )
    worker_enable_remote_control: Flag = works(
        "CELERY_ENABLE_REMOTE_CONTROL",
        True,
        "Answer `inspect` and `control`.",
        differs="Only on Redis; `shutdown` needs `worker_remote_shutdown`.",
    )
    worker_state_db: Text | None = works(
        "CELERYD_STATE_DB",
        None,
        "File in which revoked ids outlive a restart; `%h`, `%n`, `%d` expand.",
        differs="An SQLite file, not a shelve; a shelve is refused and left as it is.",
    )
    worker_log_format: Text | None = works(
        "CELERYD_LOG_FORMAT",
        None,
        "Format of log lines; unset: what suits a terminal, a file or the journal.",
    )
    worker_log_datefmt: Text | None = works(
        "CELERYD_LOG_DATEFMT", None, "Format of the time in log lines."
    )
    worker_log_color: Flag | None = works(
        "CELERYD_LOG_COLOR", None, "Coloured logs; unset: on a terminal."
    )
    worker_task_log_format: Text | None = works(
        "CELERYD_TASK_LOG_FORMAT",
        None,
        "Format of what tasks log through `get_task_logger`, with `%(task_name)s` and"
        " `%(task_id)s`; unset: as `worker_log_format`'s, with both.",
    )
    worker_task_log_datefmt: Text | None = works(
        "CELERYD_TASK_LOG_DATEFMT", None, "Format of the time in them."
    )
    worker_hijack_root_logger: Flag = works(
        "CELERYD_HIJACK_ROOT_LOGGER", True, "Replace the handlers of the root logger."
    )
    worker_redirect_stdouts: Flag = works(
        "CELERY_REDIRECT_STDOUTS",
        True,
        "Send what tasks print to the log.",
        differs="By lines, and not by what `write` is called with.",
    )
    worker_redirect_stdouts_level: Text | Count = works(
        "CELERY_REDIRECT_STDOUTS_LEVEL", "WARNING", "At this level."
    )
    worker_soft_shutdown_timeout: Seconds = works(
        "CELERYD_SOFT_SHUTDOWN_TIMEOUT",
        0.0,
        "Seconds that a cold shutdown leaves running tasks to end.",
        differs="A second SIGQUIT, or a third SIGINT, ends them at once.",
    )
    worker_enable_soft_shutdown_on_idle: Flag = unused(
        "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        False,
        "Have a cold shutdown wait that long even when nothing runs.",
        "in Celery it gives messages with an eta time to go back to their queue; here"
        " they wait in the broker, and the worker ends when all that it held is given"
        " back",
    )
    worker_send_task_events: Flag = works(
        "CELERY_SEND_EVENTS",
        False,
        "Send events of tasks.",
        differs="Only on Redis.",
    )
    worker_enable_gossip: Flag = unused(
        "CELERY_WORKER_ENABLE_GOSSIP",
        True,
        "Listen to other workers' events.",
        "no worker of beatd's needs to know another",
    )
    worker_enable_mingle: Flag = works(
        "CELERY_WORKER_ENABLE_MINGLE",
        True,
        "Ask other workers for revoked ids at start.",
        differs="Only on Redis.",
    )
    worker_enable_heartbeat: Flag = works(
        "CELERY_WORKER_ENABLE_HEARTBEAT",
        True,
        "Send heartbeats as events.",
        differs="Only on Redis.",
    )
    worker_direct: Flag = works(
        "CELERY_WORKER_DIRECT",
        False,
        "Take from a queue of the worker alone, too: `<node>.dq2`. Celery's"
        " `worker_direct(node)`, or that of `beatd.routing`, is it.",
    )
    worker_disable_prefetch: Flag = works(
        "CELERYD_DISABLE_PREFETCH",
        False,
        "Take a message only when a run can begin.",
    )
    worker_disable_rate_limits: Flag = works(
        "CELERY_DISABLE_RATE_LIMITS", False, "Ignore rate limits."
    )
    worker_deduplicate_successful_tasks: Flag = works(
        "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
        False,
        "Do not run a message again whose state is SUCCESS.",
    )
    worker_cancel_long_running_tasks_on_connection_loss: Flag = works(
        "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        False,
        "End late-acknowledged runs, in prefork, when the connection to the broker is"
        " lost.",
        differs="When it is lost for longer than `worker_lease_timeout`: before that no"
        " other worker has them.",
    )
    worker_eta_task_limit: Count | None = unused(
        "CELERYD_ETA_TASK_LIMIT",
        None,
        "Most messages with an eta that a worker holds.",
        "a worker holds none: they wait in the broker, outside of the prefetch",
    )
    worker_enable_prefetch_count_reduction: Flag = unused(
        "CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION",
        True,
        "Hold fewer messages after a new connection, as long as old tasks run.",
        "it is always so: what still runs keeps its place in the prefetch, whatever"
        " became of the connection",
    )
    worker_detect_quorum_queues: Flag = unused(
        "CELERYD_DETECT_QUORUM_QUEUES", True, "Detect quorum queues.", _RABBIT
    )
    worker_proc_alive_timeout: SomeSeconds = works(
        "CELERYD_PROC_ALIVE_TIMEOUT",
        4.0,
        "Seconds that a new process has to start, what `worker_process_init` takes"
        " included; then it is killed and another one takes its place.",
    )
    worker_lost_wait: Seconds = unused(
        "CELERYD_WORKER_LOST_WAIT",
        10.0,
        "Seconds to wait for the result of a process that died.",
        "in Celery all processes answer through one queue, in which it may still lie;"
        " here each has its own, which is read to its end first",
    )
    worker_pool_start_method: StartMethod = works(
        "CELERYD_POOL_START_METHOD",
        "fork",
        "What the pool's processes are copies of: `fork`, the worker's own process;"
        " `spawn`, a new interpreter.",
        differs="One new interpreter imports the modules, and all are forked from it.",
    )
    worker_pool_putlocks: Flag = unused(
        "CELERYD_POOL_PUTLOCKS",
        True,
        "Give the pool a task only when a process is free.",
        "it is always so: no task waits in the pool behind one that takes its time",
    )
    worker_pool_restarts: Flag = works(
        "CELERYD_POOL_RESTARTS",
        False,
        "Allow `pool_restart`.",
        differs="In prefork only; with `modules` or `reload` a new interpreter imports"
        " all modules as they are now.",
    )
    worker_agent: Anything = unused(
        "CELERYD_AGENT",
        None,
        "Class that runs actors of the package `cell` beside the worker.",
        "beatd runs tasks alone",
    )
    worker_autoscaler: Anything = unused(
        "CELERYD_AUTOSCALER",
        "celery.worker.autoscale:Autoscaler",
        "Class that decides the pool's size.",
        "one written for Celery steers Celery's pools; `--autoscale` and"
        " `--autoscale-keepalive` steer beatd's",
    )
    worker_consumer: Anything = unused(
        "CELERYD_CONSUMER",
        "celery.worker.consumer:Consumer",
        "Class that takes messages from the broker.",
        "one written for Celery takes them through kombu, and beatd reads Redis and"
        " SQLite itself",
    )
    worker_timer: Anything = unused(
        "CELERYD_TIMER",
        None,
        "Class of the timer that starts tasks with an eta.",
        _NO_TIMER,
    )
    worker_timer_precision: Seconds = unused(
        "CELERYD_TIMER_PRECISION",
        1.0,
        "Longest time that tasks with an eta start late because that timer sleeps.",
        _NO_TIMER,
    )
    worker_logfile: Text | None = works(
        "CELERY_WORKER_LOGFILE", None, "Default of the worker's `--logfile`."
    )
    worker_pidfile: Text | None = works(
        "CELERY_WORKER_PIDFILE", None, "Default of the worker's `--pidfile`."
    )
    worker_uid: Text | Count | None = works(
        "CELERY_WORKER_UID", None, "Default of the worker's `--uid`."
    )
    worker_gid: Text | Count | None = works(
        "CELERY_WORKER_GID", None, "Default of the worker's `--gid`."
    )
    worker_umask: Text | Count | None = works(
        "CELERY_WORKER_UMASK", None, "Default of the worker's `--umask`."
    )
    worker_executable: Text | None = works(
        "CELERY_WORKER_EXECUTABLE", None, "Default of the worker's `--executable`."
    )

    control_exchange: Text = works(
        "CONTROL_EXCHANGE", "celery", "Exchange of remote control: `<name>.pidbox`."
    )
    control_queue_ttl: Seconds = unused(
        "CONTROL_QUEUE_TTL",
        300.0,
        "How long control messages live.",
        "a command is heard at once or not at all, and the queue of its answers goes"
        " as a whole: `control_queue_expires`",
    )
    control_queue_expires: Seconds = works(
        "CONTROL_QUEUE_EXPIRES", 10.0, "Seconds that unused control queues live."
    )
    control_queue_exclusive: Flag = unused(
        "CONTROL_QUEUE_EXCLUSIVE", True, "Whether they are exclusive.", _AMQP
    )
    control_queue_durable: Flag = unused(
        "CONTROL_QUEUE_DURABLE", False, "Whether they are durable.", _AMQP
    )

    event_exchange: Text = works(
        "CELERY_EVENT_EXCHANGE", "celeryev", "Exchange of events."
    )
    event_queue_prefix: Text = unused(
        "CELERY_EVENT_QUEUE_PREFIX", "celeryev", "Prefix of event queues.", _MONITORS
    )
    event_queue_ttl: Seconds = unused(
        "CELERY_EVENT_QUEUE_TTL", 5.0, "How long events live.", _MONITORS
    )
    event_queue_expires: Seconds = unused(
        "CELERY_EVENT_QUEUE_EXPIRES", 60.0, "How long event queues live.", _MONITORS
    )
    event_queue_exclusive: Flag = unused(
        "CELERY_EVENT_QUEUE_EXCLUSIVE", True, "Whether they are exclusive.", _MONITORS
    )
    event_queue_durable: Flag = unused(
        "CELERY_EVENT_QUEUE_DURABLE", False, "Whether they are durable.", _MONITORS
    )
    event_serializer: Serializer = works(
        "CELERY_EVENT_SERIALIZER", "json", "How events are encoded."
    )

    cache_backend: Text | None = unused(
        "CELERY_CACHE_BACKEND", None, "Address of a cache for results.", _OTHER_STORE
    )
    cache_backend_options: Options = unused(
        "CELERY_CACHE_BACKEND_OPTIONS", {}, "Its options.", _OTHER_STORE
    )
    security_certificate: Text | None = unused(
        "CELERY_SECURITY_CERTIFICATE", None, "Path of a certificate.", _NO_SIGNING
    )
    security_cert_store: Text | None = unused(
        "CELERY_SECURITY_CERT_STORE", None, "Path of known certificates.", _NO_SIGNING
    )
    security_key: Text | None = unused(
        "CELERY_SECURITY_KEY", None, "Path of the private key.", _NO_SIGNING
    )
    security_key_password: Anything = unused(
        "CELERY_SECURITY_KEY_PASSWORD", None, "Its pass-phrase.", _NO_SIGNING
    )
    security_digest: Text = unused(
        "CELERY_SECURITY_DIGEST", "sha256", "Digest of signatures.", _NO_SIGNING
    )
    database_url: Text | None = unused(
        "CELERY_RESULT_DBURI", None, "Address of a database for results.", _OTHER_STORE
    )
    database_engine_options: Options | None = unused(
        "CELERY_RESULT_ENGINE_OPTIONS",
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "Options of SQLAlchemy.",
        _OTHER_STORE,
    )
    database_engine_callback: Anything = unused(
        "DATABASE_ENGINE_CALLBACK", None, "Hook of SQLAlchemy.", _OTHER_STORE
    )
    database_short_lived_sessions: Flag = unused(
        "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
        False,
        "A session for each operation.",
        _OTHER_STORE,
    )
    database_table_schemas: Options | None = unused(
        "DATABASE_TABLE_SCHEMAS", None, "Schemas of its tables.", _OTHER_STORE
    )
    database_table_names: Options | None = unused(
        "CELERY_RESULT_DB_TABLENAMES", None, "Names of its tables.", _OTHER_STORE
    )
    database_create_tables_at_setup: Flag = unused(
        "DATABASE_CREATE_TABLES_AT_SETUP", True, "When they are made.", _OTHER_STORE
    )
