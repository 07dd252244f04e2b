"""The shortest useful config.

    beatd check --config examples/schedules/basic.py
    beatd worker -B --config examples/schedules/basic.py -l INFO

No broker is named: messages, results and the schedule file are SQLite files in the
working directory. With `broker_url = "redis://..."` they are shared by many hosts.
"""

from beatd.schedules import crontab

timezone = "Europe/Berlin"
include = ["tasks"]

beat_schedule = {
    "tick": {"task": "tasks.tick", "schedule": 1},
    "every-minute": {
        "task": "tasks.add",
        "schedule": crontab(),
        "args": (2, 3),
    },
    "nightly-report": {
        "task": "tasks.report",
        "schedule": crontab(minute=30, hour=2),
        "kwargs": {"kind": "sales"},
        # A worker that was down for a week finds one report, not seven.
        "options": {"expires": "next"},
    },
}
