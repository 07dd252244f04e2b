"""Settings of the worker, of remote control and of events."""
# ruff: noqa: RUF009  (each row of the table is made by a function)

from dataclasses import dataclass

from beatd.config import switches
from beatd.config.settings.kinds import (
    Auto,
    BuiltinTasks,
    Count,
    Flag,
    Pool,
    Positive,
    Seconds,
    Serializer,
    SomeSeconds,
    StartMethod,
    Text,
)
from beatd.config.settings.notes import own, works
from beatd.config.switches import Switch


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class WorkerRows:
    """Settings of the worker, of remote control and of events."""

    worker_concurrency: Count | Auto | None = works(
        None,
        "Runs at the same time; unset, 0 and `auto` mean one for each processor.",
        switch=Switch(
            ("-c", "--concurrency"),
            "Size of the pool.  [default: auto, the number of processors]",
            metavar="N|auto",
        ),
    )
    worker_pool: Pool = works(
        "prefork",
        "`prefork`, `threads`, `solo`, `asyncio`, `gevent` or `eventlet`.",
        switch=Switch(
            ("-P", "--pool"),
            "What runs the tasks.  [default: {default}, also called processes]",
        ),
    )
    worker_prefetch_multiplier: Count | None = works(
        None,
        "Messages that a worker holds for each run at the same time; 0: any number."
        " Unset: as many as run within some 50 ms, 1000 at most, by what its pool got"
        " through; what waits longer behind long tasks goes back to its queue.",
        switch=Switch(
            ("--prefetch-multiplier",),
            "Messages held for each run at the same time.  [default: as needed]",
            metavar="N",
        ),
    )
    worker_max_tasks_per_child: Positive | None = works(
        None,
        "Runs after which a process is replaced; unset: never.",
        switch=Switch(
            ("--max-tasks-per-child", "--maxtasksperchild"),
            "Replace a child after N tasks.",
            metavar="N",
        ),
    )
    worker_max_memory_per_child: Positive | None = works(
        None,
        "KiB of resident memory from which on a process is replaced after its run.",
        switch=Switch(
            ("--max-memory-per-child", "--maxmemperchild"),
            "Replace a child that grew beyond.",
            metavar="KIB",
        ),
    )
    worker_lease_timeout: SomeSeconds = own(
        6,
        "Seconds of silence after which a worker counts as dead and its messages are"
        " given back.",
    )
    worker_http: Text | None = own(
        None,
        "Address at which a worker answers questions over HTTP: `/livez`, `/readyz`,"
        " `/metrics`. As `beat_http`'s; with `-B` the scheduler's answers have the"
        " worker's metrics, too, at both addresses.",
        switch=switches.HTTP,
    )
    builtin_tasks: BuiltinTasks = own(
        (),
        "Built-in tasks that the worker has: `beatd.run` (commands), `beatd.http`"
        " (requests). Whoever can write to the broker can have it do these.",
    )
    worker_remote_shutdown: Flag = own(False, "Whether a message may stop the worker.")
    worker_enable_remote_control: Flag = works(
        True,
        "Answer `inspect` and `control`.",
        old="CELERY_ENABLE_REMOTE_CONTROL",
        differs="Only on Redis; `shutdown` needs `worker_remote_shutdown`.",
    )
    worker_state_db: Text | None = works(
        None,
        "File in which revoked ids outlive a restart; `%h`, `%n`, `%d` expand.",
        differs="An SQLite file, not a shelve; a shelve is refused and left as it is.",
        switch=Switch(
            ("-S", "--statedb"),
            "Remember there what was revoked; %n, %h, %d expand.",
            metavar="FILE",
        ),
    )
    worker_log_format: Text | None = works(
        None,
        "Format of log lines; unset: what suits a terminal, a file or the journal.",
    )
    worker_log_datefmt: Text | None = works(None, "Format of the time in log lines.")
    worker_log_color: Flag | None = works(None, "Coloured logs; unset: on a terminal.")
    worker_task_log_format: Text | None = works(
        None,
        "Format of what tasks log through `get_task_logger`, with `%(task_name)s` and"
        " `%(task_id)s`; unset: as `worker_log_format`'s, with both.",
    )
    worker_task_log_datefmt: Text | None = works(
        None, "Format of the time in what tasks log through `get_task_logger`."
    )
    worker_hijack_root_logger: Flag = works(
        True, "Replace the handlers of the root logger."
    )
    worker_redirect_stdouts: Flag = works(
        True,
        "Send what tasks print to the log.",
        old="CELERY_REDIRECT_STDOUTS",
        differs="By lines, and not by what `write` is called with.",
    )
    worker_redirect_stdouts_level: Text | Count = works(
        "WARNING",
        "Level at which what tasks print is logged.",
        old="CELERY_REDIRECT_STDOUTS_LEVEL",
    )
    worker_soft_shutdown_timeout: Seconds = works(
        0.0,
        "Seconds that a cold shutdown leaves running tasks to end.",
        differs="A second SIGQUIT, or a third SIGINT, ends them at once.",
    )
    worker_send_task_events: Flag = works(
        False,
        "Send events of tasks.",
        old="CELERY_SEND_EVENTS",
        differs="Only on Redis.",
        switch=Switch(
            ("-E", "--task-events", "--events"), "Send events of tasks.", says=True
        ),
    )
    worker_enable_mingle: Flag = works(
        True,
        "Ask other workers for revoked ids at start.",
        old="CELERY_WORKER_ENABLE_MINGLE",
        differs="Only on Redis.",
        switch=Switch(
            ("--without-mingle",), "Do not ask others what was revoked.", says=False
        ),
    )
    worker_enable_heartbeat: Flag = works(
        True,
        "Send heartbeats as events.",
        old="CELERY_WORKER_ENABLE_HEARTBEAT",
        differs="Only on Redis.",
        switch=Switch(("--without-heartbeat",), "No events of the worker.", says=False),
    )
    worker_direct: Flag = works(
        False,
        "Take from the worker's own queue, too: `<node>.dq2`. `worker_direct(node)`, of"
        " Celery or of `beatd.routing`, returns that queue.",
        old="CELERY_WORKER_DIRECT",
    )
    worker_disable_prefetch: Flag = works(
        False,
        "Take a message only when a run can begin.",
        switch=Switch(
            ("--disable-prefetch",),
            "Take a message only when a run can begin.",
            says=True,
        ),
    )
    worker_disable_rate_limits: Flag = works(
        False, "Ignore rate limits.", old="CELERY_DISABLE_RATE_LIMITS"
    )
    worker_deduplicate_successful_tasks: Flag = works(
        False, "Do not run a message again whose state is SUCCESS."
    )
    worker_cancel_long_running_tasks_on_connection_loss: Flag = works(
        False,
        "End late-acknowledged runs, in prefork, when the connection to the broker is"
        " lost.",
        differs="When it is lost for longer than `worker_lease_timeout`: before that no"
        " other worker has them.",
    )
    worker_proc_alive_timeout: SomeSeconds = works(
        4.0,
        "Seconds that a new process has to start, what `worker_process_init` takes"
        " included; then it is killed and another one takes its place.",
    )
    worker_pool_start_method: StartMethod = works(
        "fork",
        "What the pool's processes are copies of: `fork`, the worker's own process;"
        " `spawn`, a new interpreter.",
        differs="One new interpreter imports the modules, and all are forked from it.",
        switch=Switch(
            ("--pool-start-method",),
            "Fork children from the worker's process, or from a new one."
            "  [default: {default}]",
        ),
    )
    worker_pool_restarts: Flag = works(
        False,
        "Allow `pool_restart`.",
        differs="In prefork only; with `modules` or `reload` a new interpreter imports"
        " all modules as they are now.",
    )
    worker_logfile: Text | None = works(
        None, "Default of the worker's `--logfile`.", old="CELERY_WORKER_LOGFILE"
    )
    worker_pidfile: Text | None = works(
        None, "Default of the worker's `--pidfile`.", old="CELERY_WORKER_PIDFILE"
    )
    worker_uid: Text | Count | None = works(
        None, "Default of the worker's `--uid`.", old="CELERY_WORKER_UID"
    )
    worker_gid: Text | Count | None = works(
        None, "Default of the worker's `--gid`.", old="CELERY_WORKER_GID"
    )
    worker_umask: Text | Count | None = works(
        None, "Default of the worker's `--umask`.", old="CELERY_WORKER_UMASK"
    )
    worker_executable: Text | None = works(
        None, "Default of the worker's `--executable`.", old="CELERY_WORKER_EXECUTABLE"
    )
    control_exchange: Text = works(
        "celery", "Exchange of remote control: `<name>.pidbox`."
    )
    control_queue_expires: Seconds = works(
        10.0, "Seconds that unused control queues live."
    )
    event_exchange: Text = works("celeryev", "Exchange of events.")
    event_serializer: Serializer = works("json", "How events are encoded.")
