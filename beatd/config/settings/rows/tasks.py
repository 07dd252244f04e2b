"""Settings of tasks, of their messages and of the queues that take these."""
# ruff: noqa: RUF009  (each row of the table is made by a function)

from dataclasses import dataclass

from beatd.config.settings.kinds import (
    Annotations,
    Anything,
    Count,
    DeliveryMode,
    ExchangeType,
    Flag,
    Options,
    Positive,
    Protocol,
    QueueType,
    Rate,
    Serializer,
    SomeSeconds,
    Text,
)
from beatd.config.settings.notes import own, works
from beatd.config.switches import Switch


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class TaskRows:
    """Settings of tasks, of their messages and of the queues that take these."""

    task_serializer: Serializer = works(
        "json", "How arguments are encoded.", old="CELERY_TASK_SERIALIZER"
    )
    task_compression: Text | None = works(
        None, "How messages are compressed.", old="CELERY_MESSAGE_COMPRESSION"
    )
    task_protocol: Protocol = works(
        2, "Version of the message protocol.", old="CELERY_TASK_PROTOCOL"
    )
    task_default_queue: Text = works("celery", "The queue when none is named.")
    task_default_exchange: Text | None = works(
        None, "Exchange of the default queue; unset: its name."
    )
    task_default_exchange_type: ExchangeType = works(
        "direct", "`direct`, `topic` or `fanout`."
    )
    task_default_routing_key: Text | None = works(
        None, "Routing key of the default queue; unset: its name."
    )
    task_default_priority: Count | None = works(
        None, "Priority of messages that name none. On Redis 0 comes first."
    )
    task_default_delivery_mode: DeliveryMode = works(
        2, "2 persistent, 1 transient (AMQP)."
    )
    task_queues: Anything = works(
        None,
        "Declared queues: a list of kombu's or beatd's `Queue`, or a dict by name.",
    )
    task_routes: Anything = works(
        None,
        "Routes by task name: a dict (globs allowed), a list of pairs, a function.",
    )
    task_create_missing_queues: Flag = works(
        True, "Whether a queue may be named that `task_queues` does not declare."
    )
    task_acks_late: Flag = works(
        True,
        "Whether a message is acknowledged after its run (at least once) or before"
        " (at most once).",
        differs="True unless set, Celery: False; leases give a dead worker's tasks"
        " back within seconds.",
    )
    task_acks_on_failure_or_timeout: Flag = works(
        True, "With late acknowledgement: also when the run failed or timed out."
    )
    task_acks_on_failure: Flag | None = works(None, "The same for failures alone.")
    task_acks_on_timeout: Flag | None = works(None, "The same for time-outs alone.")
    task_reject_on_worker_lost: Flag | None = works(
        None, "With late acknowledgement: give the message back when its process dies."
    )
    task_max_deliveries: Positive = own(
        3,
        "Deliveries that may end in a dead process, or with `Reject(requeue=True)`,"
        " before the message goes to the dead-letter queue.",
    )
    task_ignore_result: Flag = works(
        False, "Keep neither states nor results; a task's own `ignore_result` wins."
    )
    task_store_errors_even_if_ignored: Flag = works(False, "But keep failures.")
    task_track_started: Flag = works(False, "Keep the state STARTED when a run begins.")
    task_time_limit: SomeSeconds | None = works(
        None,
        "Seconds after which a run is ended by force.",
        old="CELERYD_TASK_TIME_LIMIT",
        switch=Switch(("--time-limit",), "End a run by force.", metavar="SECONDS"),
    )
    task_soft_time_limit: SomeSeconds | None = works(
        None,
        "Seconds after which SoftTimeLimitExceeded is raised in the task.",
        old="CELERYD_TASK_SOFT_TIME_LIMIT",
        switch=Switch(
            ("--soft-time-limit",), "Raise inside the task.", metavar="SECONDS"
        ),
    )
    task_publish_retry: Flag = works(
        True, "Try again when a call cannot be sent.", old="CELERY_TASK_PUBLISH_RETRY"
    )
    task_publish_retry_policy: Options = works(
        {
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        "How: `max_retries`, `interval_start`, `interval_step`, `interval_max`.",
        old="CELERY_TASK_PUBLISH_RETRY_POLICY",
    )
    task_always_eager: Flag = works(False, "Run calls at once, in the calling process.")
    task_eager_propagates: Flag = works(
        False, "And let their errors through.", old="CELERY_EAGER_PROPAGATES_EXCEPTIONS"
    )
    task_store_eager_result: Flag = works(False, "And keep their results.")
    task_annotations: Annotations | None = works(
        None,
        "Changes attributes and methods of tasks: a dict of them by task name, `*` for"
        " all; an object with `annotate(task)`; or a list of these.",
        differs="A `shared_task` is one task for all apps of a process, and has the"
        " changes of each.",
    )
    task_default_rate_limit: Rate | None = works(
        None,
        "Rate for each task and worker, such as `10/m`; the task's own goes before.",
    )
    task_create_missing_queue_exchange_type: ExchangeType | None = works(
        None, "Type of the exchanges of new queues: `direct`, `topic` or `fanout`."
    )
    task_default_queue_type: QueueType = works(
        "classic", "Type of the default queue in RabbitMQ: `classic` or `quorum`."
    )
    task_create_missing_queue_type: QueueType = works(
        "classic", "Type of new queues in RabbitMQ: `classic` or `quorum`."
    )
    task_queue_max_priority: Count | None = works(
        None,
        "`x-max-priority` of queues in RabbitMQ that have none of their own. High"
        " numbers go first there.",
    )
    task_inherit_parent_priority: Flag = works(
        False, "Calls made by a task take its priority."
    )
    task_retry_on_worker_lost: Flag = works(
        False,
        "Retry a task whose process died, as often as its `max_retries` says and after"
        " its `default_retry_delay`; it fails then. Goes before"
        " `task_reject_on_worker_lost`.",
        differs="`on_retry` and `task_retry` are not called: there is no process left"
        " in which the task runs.",
    )
    task_remote_tracebacks: Flag = works(
        False,
        "Show where a run failed with the exception that `get` raises.",
        differs="As the exception's cause, and without `tblib`.",
    )
    task_repr_maxlevels: Count = works(
        3, "Levels of arguments that are shown in logs and events; 0: all."
    )
    task_send_sent_event: Flag = works(
        False,
        "Send an event, `task-sent`, for each call, also for those that workers and the"
        " scheduler send.",
        old="CELERY_SEND_TASK_SENT_EVENT",
        differs="Only on Redis.",
    )
    task_allow_error_cb_on_chord_header: Flag = works(
        False, "Errbacks that `link_error` adds to a chord are for its header, too."
    )
