"""Settings of the scheduler, and those that all processes share."""
# ruff: noqa: RUF009  (each row of the table is made by a function)

from dataclasses import dataclass

from beatd.config import switches
from beatd.config.settings.alerts import Alerts
from beatd.config.settings.kinds import (
    Count,
    Flag,
    LostWrites,
    Overlap,
    Positive,
    Schedule,
    Scheduler,
    Seconds,
    SomeSeconds,
    Text,
    Texts,
    Zone,
)
from beatd.config.settings.notes import own, works


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class SchedulerRows:
    """Settings of the scheduler, and those that all processes share."""

    accept_content: Texts = works(
        ("json",),
        "Content types, or names of serializers, that a process decodes. Others go to"
        " the dead-letter queue. `pickle` is never implied.",
    )
    enable_utc: Flag = works(
        True,
        "Whether times in messages are written in UTC.",
        old="ENABLE_UTC",
        differs="Always UTC, though messages of protocol 1 carry the flag. Off, and"
        " without a `timezone`, schedules are read in local time, as in Celery.",
    )
    timezone: Zone | None = works(
        None,
        "Time zone in which schedules are read and times shown; unset means Django's"
        " `TIME_ZONE` if that is set, else UTC.",
        differs="A change keeps the ledger; schedules count on from the change.",
    )
    imports: Texts = works((), "Modules imported at start, so that tasks register.")
    include: Texts = works(
        (), "More of them, imported after `imports`; `-I` adds to it."
    )
    beat_schedule: Schedule = works(
        {},
        "The entries: name to `task`, `schedule`, `args`, `kwargs`, `options`,"
        " `relative` and beatd's policies.",
    )
    beat_scheduler: Scheduler = works(
        switches.SCHEDULER_CLASS,
        "The scheduler class.",
        differs="Celery's own mean beatd; any other class is an error.",
        switch=switches.SCHEDULER,
    )
    beat_schedule_filename: Text = works(
        switches.SCHEDULE_FILE,
        "Path of the schedule file.",
        differs="An SQLite file, not a shelve; a shelve is refused and left as it is.",
        switch=switches.SCHEDULE_FILENAME,
    )
    beat_max_loop_interval: Seconds = works(
        0,
        "Longest sleep between two looks at the schedule; 0 lets beatd choose.",
        differs="Never more than one second: a look costs next to nothing.",
        switch=switches.MAX_INTERVAL,
    )
    beat_cron_starting_deadline: Seconds | None = works(
        None,
        "Slots of cron entries that are older than this many seconds are dropped."
        " `beat_misfire_grace_time` says the same for all entries.",
    )
    beat_misfire_grace_time: Seconds | None = own(
        None,
        "Slots that are found later than this many seconds are dropped; unset means"
        " that no slot is too old. An entry's `misfire_grace_time` wins.",
    )
    beat_coalesce: Flag = own(
        True,
        "Of several slots of one entry that are overdue together only the latest is"
        " emitted. An entry's `coalesce` wins.",
    )
    beat_max_catchup: Positive = own(
        1000,
        "Without coalescing: the most overdue slots of one entry that are emitted."
        " An entry's `max_catchup` wins.",
    )
    beat_overlap: Overlap = own(
        "allow",
        "What to do with a slot while the entry's previous run goes on: `allow`,"
        " `skip` or `queue_one`. An entry's `overlap` wins.",
    )
    beat_overlap_timeout: Seconds | None = own(
        None,
        "With `beat_overlap` other than `allow`: a run that is older than this many"
        " seconds counts as ended; unset means that none is too old. An entry's"
        " `overlap_timeout` wins.",
    )
    beat_run_on_start: Flag = own(
        False,
        "Whether each entry runs once when a scheduler first sees it, and not only"
        " at its next slot; a restart is no first time. An entry's `run_on_start`"
        " wins.",
    )
    beat_jitter: Seconds = own(
        0,
        "Each entry is shifted by its own fixed share of this many seconds. An entry's"
        " `jitter` wins.",
    )
    beat_slot_argument: Text | None = own(
        None,
        "Keyword argument in which each run gets its slot, as ISO 8601 text. An"
        " entry's `slot_argument` wins.",
    )
    beat_min_interval: SomeSeconds = own(
        0.1, "The shortest interval that an entry may have."
    )
    beat_namespace: Text = own(
        "default",
        "Name of the ledger in the broker. Schedulers with one namespace share its"
        " entries, one of them leading; give each schedule its own.",
    )
    beat_lock_timeout: SomeSeconds = own(
        5, "Seconds after which a leader that fell silent may be replaced."
    )
    beat_max_late: SomeSeconds = own(
        10,
        "Seconds after which a slot that is due, and not emitted, makes the scheduler"
        " unhealthy: for `beatd status` and `/readyz`.",
    )
    beat_alerts: Alerts = own(
        {},
        "What is told of entries, and to whom: rules by name or glob of entries, in"
        " the form of an entry's `alerts`, which wins. See `docs/alerts.md`.",
    )
    beat_alert_timeout: SomeSeconds = own(
        10,
        "Seconds after which a ping, a command or a function is given up that hangs.",
    )
    beat_pause_after_failures: Positive | None = own(
        None,
        "After so many failed runs in a row an entry is paused, until `beatd resume`."
        " An entry's `pause_after_failures` wins. Unset: never.",
    )
    beat_http: Text | None = own(
        None,
        "Address at which the scheduler answers questions over HTTP: `/livez`,"
        " `/readyz`, `/status`, `/metrics`. A port alone is one of 127.0.0.1; another"
        " host has to be written in full (`0.0.0.0:9540`). Unset: only at its socket.",
        switch=switches.HTTP,
    )
    beat_lost_writes: LostWrites = own(
        "keep",
        "What to do with slots that were emitted and that the broker lost, as its data"
        " were set back: it is uncertain whether they ran. `keep` names and counts"
        " them; `resend` also sends them again, under the same ids.",
    )
    beat_min_replicas: Count = own(
        0,
        "So many replicas of Redis have to have an emission (`WAIT`) before it counts"
        " as done. While fewer acknowledge, it is sent again and again, which queues"
        " nothing twice, and nothing else is emitted. 0: none is waited for.",
    )
    beat_history_per_entry: Count = own(
        100,
        "The most records that the history keeps of one entry: what became of its last"
        " slots. 0: no history is kept.",
    )
    beat_history_bytes: Count = own(
        2_000_000,
        "The most bytes that the history has in the broker, of all entries together;"
        " the longest ones are shortened first. 0: no bound.",
    )
    beat_sentry_monitors: Flag = own(
        True,
        "Whether Sentry, where its `CeleryIntegration` is set up, is told of each"
        " emission of a Celery app as Celery's beat tells it: each has a trace of its"
        " own, and with `monitor_beat_tasks=True` a check-in of its cron monitor.",
    )
    beat_logfile: Text | None = works(
        None, "Default of the scheduler's `--logfile`.", old="CELERY_BEAT_LOGFILE"
    )
    beat_pidfile: Text | None = works(
        None, "Default of the scheduler's `--pidfile`.", old="CELERY_BEAT_PIDFILE"
    )
    beat_uid: Text | Count | None = works(
        None, "Default of the scheduler's `--uid`.", old="CELERY_BEAT_UID"
    )
    beat_gid: Text | Count | None = works(
        None, "Default of the scheduler's `--gid`.", old="CELERY_BEAT_GID"
    )
    beat_umask: Text | Count | None = works(
        None, "Default of the scheduler's `--umask`.", old="CELERY_BEAT_UMASK"
    )
    beat_executable: Text | None = works(
        None, "Default of the scheduler's `--executable`.", old="CELERY_BEAT_EXECUTABLE"
    )
