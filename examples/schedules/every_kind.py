"""Every kind of schedule, and every policy, once.

beatd next --config examples/schedules/every_kind.py
"""

from datetime import UTC, datetime, timedelta

from beatd.schedules import cron, crontab, every, once, rrule, solar

timezone = "Europe/Berlin"
include = ["tasks"]

# What entries that say nothing else do.
beat_misfire_grace_time = timedelta(hours=12)
beat_max_catchup = 100

SCHEDULES = {
    # Intervals are counted from 1970, so that all processes agree on them.
    "seconds": 10,
    "a-timedelta": timedelta(minutes=1, seconds=30),
    "every": every(minutes=5),
    "every-with-offset": every(hours=1, offset=timedelta(minutes=20)),
    "since-the-last-run": every(45, align=False),
    # Celery's crontab: day of week, day of month and month must all match.
    "crontab": crontab(minute="*/15", hour="8-18", day_of_week="mon-fri"),
    "first-monday": crontab(minute=0, hour=9, day_of_week="mon", day_of_month="1-7"),
    # Cron expressions; a text alone is one too.
    "text": "30 6 * * 1-5",
    "alias": "@daily",
    "with-seconds": cron("0 0 12 * * *", seconds="first"),
    "last-day-of-month": cron("0 18 L * *"),
    "third-friday": cron("0 16 * * fri#3"),
    # A minute drawn from the entry's name: many such entries spread over the hour.
    "hashed": cron("H * * * *"),
    # Single moments, the sun, and the rules of calendars.
    "once": once("2099-12-31T23:59:59"),
    "sunset": solar("sunset", 52.52, 13.40),
    "every-other-friday": rrule("FREQ=WEEKLY;INTERVAL=2;BYDAY=FR", "2026-01-02T16:00"),
}

beat_schedule = {
    f"kind-{name}": {"task": "tasks.tick", "schedule": schedule}
    for name, schedule in SCHEDULES.items()
}

beat_schedule |= {
    "relative": {
        # Celery's rounding: on the hour, three hours after the last run.
        "task": "tasks.tick",
        "schedule": timedelta(hours=3),
        "relative": True,
    },
    "misfire": {
        "task": "tasks.tick",
        "schedule": 60,
        "misfire_grace_time": 30,
        "description": "not worth sending when it is half a minute late",
    },
    "catch-up": {
        "task": "tasks.report",
        "schedule": "@hourly",
        "coalesce": False,
        "max_catchup": 24,
        "slot_argument": "day",
        "description": "after a downtime each missed hour gets its own report",
    },
    "no-overlap": {
        "task": "tasks.slow",
        "schedule": 2,
        "overlap": "skip",
        "overlap_timeout": 3600,
        "description": "left out while the run before it goes on, for an hour at most",
    },
    "one-behind": {
        "task": "tasks.slow",
        "schedule": 2,
        "overlap": "queue_one",
        "description": "held until the run before it has ended",
    },
    "spread": {
        "task": "tasks.fetch",
        "schedule": "*/5 * * * *",
        "args": ("https://example.com/",),
        "jitter": 30,
        "description": "up to half a minute after the full minute, always the same",
    },
    "bounded": {
        "task": "tasks.tick",
        "schedule": every(days=1),
        "start_time": datetime(2026, 1, 1, tzinfo=UTC),
        "end_time": datetime(2099, 1, 1, tzinfo=UTC),
        "max_runs": 10_000,
    },
    "paused": {"task": "tasks.tick", "schedule": 60, "enabled": False},
    # Its worker: beatd worker -Q reports --config examples/schedules/every_kind.py
    "with-options": {
        "task": "tasks.add",
        "schedule": 30,
        "args": (2,),
        "kwargs": {"y": 3},
        "options": {
            "queue": "reports",
            "priority": 3,
            "expires": "next",
            "headers": {"source": "every_kind"},
            "time_limit": 20,
        },
    },
}
