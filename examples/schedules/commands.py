"""Commands and addresses as entries: no module of tasks is needed.

    beatd check --config examples/schedules/commands.py
    beatd worker -B --config examples/schedules/commands.py -l INFO

docs/entries.md lists all arguments of both tasks.
"""

# Off unless named: whoever can write to the broker can then run any command here.
builtin_tasks = ["beatd.run", "beatd.http"]

beat_schedule = {
    "disk-space": {
        "task": "beatd.run",
        "schedule": 5,
        "kwargs": {"command": ["df", "-h", "/"]},
        "options": {"expires": "next"},
    },
    "tidy-up": {
        "task": "beatd.run",
        "schedule": "17 4 * * *",
        "kwargs": {
            # A pipe needs a shell; $BEATD_SLOT is the slot that the run is for.
            "command": "find /tmp/beatd-example -mtime +7 | xargs -r rm -f"
            " && echo tidied up for $BEATD_SLOT",
            "shell": True,
            "timeout": 600,
            "cwd": "/tmp",
            "env": {"LC_ALL": "C"},
        },
        "overlap": "skip",
    },
    "health": {
        "task": "beatd.http",
        "schedule": "*/15 * * * *",
        "kwargs": {
            "url": "http://127.0.0.1:8080/health",
            "timeout": 5,
            "expected_status": [200, 204],
        },
    },
}
