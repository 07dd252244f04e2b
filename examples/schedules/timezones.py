"""The same hour of the day in several places, and the nights when clocks change.

    beatd next --config examples/schedules/timezones.py \\
        --at '2027-03-27 12:00' --until '2027-03-28 12:00'
"""

from beatd.schedules import crontab, every

# Where an entry names no zone of its own.
timezone = "Europe/Berlin"
include = ["tasks"]

OFFICES = ("America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe")

beat_schedule = {
    # Nine in the morning there, whatever the clocks do there.
    f"opening-{zone}": {
        "task": "tasks.report",
        "schedule": crontab(minute=0, hour=9, day_of_week="mon-fri"),
        "kwargs": {"kind": zone},
        "timezone": zone,
        "slot_argument": "day",
    }
    for zone in OFFICES
}

beat_schedule |= {
    "in-the-gap": {
        # On the last Sunday of March 02:30 does not exist: it runs at 03:00, once.
        # On the last Sunday of October 02:30 comes twice: it runs at the first.
        "task": "tasks.report",
        "schedule": crontab(minute=30, hour=2),
    },
    "through-the-night": {
        # A star follows the hands of the clock: it runs in both passes of the hour.
        "task": "tasks.tick",
        "schedule": crontab(minute="*/15"),
    },
    "by-elapsed-time": {
        # An interval does not look at the clock on the wall at all.
        "task": "tasks.tick",
        "schedule": every(hours=6),
    },
    "in-utc": {
        "task": "tasks.report",
        "schedule": crontab(minute=0, hour=0),
        "timezone": "UTC",
    },
}
