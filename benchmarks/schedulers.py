"""The schedulers that are measured, and how each is told what to do.

Three pieces of work: `at_once`, all entries due at one instant; `intervals`, entry n
every n % 60 + 1 seconds; `spread`, entries over many schedules of which none is due
soon, and one more that is due at once. Each entry hands its number to its task.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks.harness import (
    OLDER_PEERS,
    PEERS,
    Ours,
    Place,
    Program,
    has,
)


@dataclass(frozen=True)
class Scheduler:
    """A scheduler: its files for each piece of work, and how it is started.

    The texts are formatted with `url`, `entries`, and what the work needs: `minute`,
    `hour` and `second` of the instant; `schedules` and `month`.
    """

    name: str
    module: str
    """What it is known by to Python."""
    command: str
    work: Mapping[str, str]
    """By piece of work, the text of project.py."""
    queue: str = "celery"
    """What tells how much was sent: a list in Redis, or the query of a file; "journal"
    is that of functions that are called; empty: nothing does."""
    file: str = ""
    """The SQLite file in which it puts messages; empty: Redis."""
    python: str = str(PEERS)
    by_seconds: bool = False
    """Whether an entry can be due at any second, not only at the minute's first."""
    fires_at_start: bool = False
    """Whether its minutes begin when it starts, wherever the clock is."""
    most: int = 1_000
    """The most runs of it, as it is slow."""

    def files(self, work: str, place: Place, **values: object) -> dict[str, str]:
        text = self.work[work].format(url=place.url, **values)
        return {"project.py": text, "tasks.py": TASKS, "journal.py": JOURNAL}

    @contextmanager
    def on(self, place: Place, work: str, **values: object) -> Iterator[Program]:
        """Run it on a piece of work, for the block's time."""
        place.write(self.files(work, place, **values))
        command = self.command.format(url=place.url).split()
        with place.run(self.python, *command, name=self.name) as program:
            yield program

    def counter(self, place: Place) -> Callable[[], int]:
        """Return what tells how many messages it has sent: it asks little."""
        if self.queue == "journal":
            journal = place.directory / "journal"
            return lambda: journal.stat().st_size // 12 if journal.exists() else 0
        if not self.file:
            return lambda: int(place.client.llen(self.queue))
        address = f"file:{place.directory / self.file}?mode=ro"
        opened: list[sqlite3.Connection] = []

        def count() -> int:
            with suppress(sqlite3.Error):
                if not opened:
                    opened.append(sqlite3.connect(address, uri=True, timeout=0))
                return int(opened[0].execute(self.queue).fetchone()[0] or 0)
            return 0

        return count


TASKS = """
def run(*_, **__): ...
def first(*_, **__): ...
"""

JOURNAL = """
import os
import struct
import time

file = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def arrive(number):
    os.write(file, struct.pack("di", time.time(), number))
"""

# beatd

BEATD = {
    "at_once": """
from beatd import cron

broker_url = {broker!r}
due = cron("{minute} {hour} * * * {second}")
beat_schedule = {{
    f"entry-{{n}}": {{"task": "tasks.run", "schedule": due, "args": (n,)}}
    for n in range({entries})
}}
""",
    "intervals": """
from beatd import every

broker_url = {broker!r}
beat_schedule = {{
    f"entry-{{n}}": {{"task": "tasks.run", "schedule": every(n % 60 + 1), "args": (n,)}}
    for n in range({entries})
}}
""",
    "spread": """
from beatd import crontab, every

broker_url = {broker!r}
beat_schedule = {{
    f"entry-{{n}}": {{
        "task": "tasks.run",
        "schedule": crontab(
            minute=n % {schedules} % 60, hour=n % {schedules} // 60 % 24,
            day_of_month=n % {schedules} // 1440 + 1, month_of_year={month},
        ),
        "args": (n,),
    }}
    for n in range({entries})
}}
beat_schedule["first"] = {{"task": "tasks.first", "schedule": every(0.1)}}
""",
}


BEATD["idle"] = BEATD["spread"].rpartition("beat_schedule[")[0]


def _broker(work: Mapping[str, str], written: str) -> dict[str, str]:
    return {name: text.replace("{broker!r}", written) for name, text in work.items()}


def beatd(ours: Ours, *, sqlite: bool = False) -> Scheduler:
    """Return a beatd on Redis, or on a file of SQLite with everything durable."""
    return Scheduler(
        f"{ours.name}, SQLite" if sqlite else ours.name,
        "beatd",
        "-m beatd --config project.py -s schedule.db",
        _broker(BEATD, "None" if sqlite else "{url!r}"),
        queue="SELECT max(id) FROM messages" if sqlite else "celery",
        file="broker.db" if sqlite else "",
        python=ours.python,
        by_seconds=True,
    )


CALLED = """
from celery import Celery, signals
from celery.schedules import crontab
from beatd import cron

app = Celery("project", broker={url!r})
due = cron("{minute} {hour} * * * {second}")
app.conf.beat_schedule = {{
    f"entry-{{n}}": {{"task": "run", "schedule": due, "args": (n,)}}
    for n in range({entries})
}}


@app.task(name="run")
def run(*_, **__): ...


@signals.before_task_publish.connect
def listen(headers, **_):
    headers["trace"] = "1"
"""


def beatd_calls(ours: Ours) -> Scheduler:
    """Return a beatd on an app of Celery's whose messages a call has to make."""
    return Scheduler(
        f"{ours.name}, app that listens",
        "beatd",
        "-m beatd -A project -b {url} -s schedule.db",
        {"at_once": CALLED},
        python=ours.python,
        by_seconds=True,
        most=5,
    )


# Celery

CELERY = """
from celery import Celery
from celery.schedules import crontab

app = Celery("project", broker={url!r})
app.conf.beat_schedule = {{
    f"entry-{{n}}": {{"task": "tasks.run", "schedule": SCHEDULE, "args": (n,)}}
    for n in range({entries})
}}
"""
CELERY_SPREAD = """crontab(
        minute=n % {schedules} % 60, hour=n % {schedules} // 60 % 24,
        day_of_month=n % {schedules} // 1440 + 1, month_of_year={month},
    )"""
CELERY_FIRST = """
app.conf.beat_schedule["first"] = {{"task": "tasks.first", "schedule": 1.0}}
"""
CELERY_WORK = {
    "at_once": CELERY.replace("SCHEDULE", 'crontab(minute="{minute}", hour="{hour}")'),
    "intervals": CELERY.replace("SCHEDULE", "n % 60 + 1"),
    "spread": CELERY.replace("SCHEDULE", CELERY_SPREAD) + CELERY_FIRST,
}

# RQ

RQ = """
from rq import cron
from tasks import first, run

for n in range({entries}):
    cron.register(run, queue_name="default", args=(n,), SCHEDULE)
"""
RQ_SPREAD = (
    'cron=f"{{n % {schedules} % 60}} {{n % {schedules} // 60 % 24}}'
    ' {{n % {schedules} // 1440 + 1}} {month} *"'
)
RQ_FIRST = """
cron.register(first, queue_name="default", interval=1)
"""

# huey: what it has no worker for stays in its queue

HUEY = """
from huey import RedisHuey, SqliteHuey, crontab
from tasks import run, first

huey = {huey}
for n in range({entries}):
    huey.periodic_task(SCHEDULE, name=f"run_{{n}}")(run)
"""
HUEY_MAIN = """
if __name__ == "__main__":
    from huey.consumer import Consumer

    Consumer(huey, workers=0).run()
"""
HUEY_SPREAD = """crontab(
        minute=str(n % {schedules} % 60), hour=str(n % {schedules} // 60 % 24),
        day=str(n % {schedules} // 1440 + 1), month="{month}",
    )"""
HUEY_FIRST = """
huey.periodic_task(crontab(minute="*"), name="first")(first)
"""
HUEY_WORK = {
    "at_once": HUEY.replace("SCHEDULE", 'crontab(minute="*")') + HUEY_MAIN,
    "spread": HUEY.replace("SCHEDULE", HUEY_SPREAD) + HUEY_FIRST + HUEY_MAIN,
}


def _huey(written: str) -> dict[str, str]:
    return {name: text.replace("{huey}", written) for name, text in HUEY_WORK.items()}


# APScheduler: its jobs are functions that it calls; they note when they are called

APSCHEDULER = """
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger
from journal import arrive

scheduler = BlockingScheduler()
for n in range({entries}):
    scheduler.add_job(arrive, SCHEDULE, args=(n,))
"""
APSCHEDULER_SPREAD = """CronTrigger(
        minute=n % {schedules} % 60, hour=n % {schedules} // 60 % 24,
        day=n % {schedules} // 1440 + 1, month={month},
    )"""
APSCHEDULER_FIRST = """
from datetime import datetime

now = datetime.now()
scheduler.add_job(arrive, "interval", seconds=1, args=(0,), next_run_time=now)
"""
START = """
scheduler.start()
"""
APSCHEDULER_WORK = {
    "intervals": APSCHEDULER.replace("SCHEDULE", '"interval", seconds=n % 60 + 1')
    + START,
    "spread": APSCHEDULER.replace("SCHEDULE", APSCHEDULER_SPREAD)
    + APSCHEDULER_FIRST
    + START,
}

# taskiq

TASKIQ = """
from taskiq import TaskiqScheduler
from taskiq.schedule_sources import LabelScheduleSource
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(url={url!r})
schedule = [{{"interval": n % 60 + 1, "args": [n]}} for n in range({entries})]


@broker.task(task_name="run", schedule=schedule)
async def run(*_): ...


scheduler = TaskiqScheduler(broker, [LabelScheduleSource(broker)])
"""

# saq: a worker that has nothing but cron jobs

SAQ = """
from saq import CronJob, Queue


async def run(*_, **__): ...


async def first(*_, **__): ...


def cron(n):
    return (
        f"{{n % {schedules} % 60}} {{n % {schedules} // 60 % 24}}"
        f" {{n % {schedules} // 1440 + 1}} {month} *"
    )


queue = Queue.from_url({url!r}, name="default")
jobs = [CronJob(run, cron=cron(n), kwargs={{"n": n}}) for n in range({entries})]
settings = {{
    "queue": queue,
    "functions": [run, first],
    "cron_jobs": jobs,
}}
"""


def peers() -> list[Scheduler]:
    """Return the peers that are installed; the others are named on the way."""
    known = [
        Scheduler(
            "celery",
            "celery",
            "-m celery -A project beat -s beat.db",
            CELERY_WORK,
            most=1,
        ),
        Scheduler(
            "RedBeat",
            "redbeat",
            "-m celery -A project beat -S redbeat.RedBeatScheduler",
            {name: CELERY_WORK[name] for name in ("at_once", "intervals")},
            most=1,
        ),
        Scheduler(
            "RQ cron",
            "rq",
            "-m rq.cli cron project.py --url {url}",
            {
                "at_once": RQ.replace("SCHEDULE", 'cron="{minute} {hour} * * *"'),
                "intervals": RQ.replace("SCHEDULE", "interval=n % 60 + 1"),
                "spread": RQ.replace("SCHEDULE", RQ_SPREAD) + RQ_FIRST,
            },
            queue="rq:queue:default",
            most=2,
        ),
        Scheduler(
            "huey",
            "huey",
            "project.py",
            _huey("RedisHuey('bench', url={url!r})"),
            queue="huey.redis.bench",
            fires_at_start=True,
        ),
        Scheduler(
            "huey, SQLite (OFF)",
            "huey",
            "project.py",
            _huey("SqliteHuey('bench', filename='huey.db', fsync=False)"),
            queue="SELECT max(id) FROM task",
            file="huey.db",
            fires_at_start=True,
        ),
        Scheduler(
            "APScheduler",
            "apscheduler",
            "project.py",
            APSCHEDULER_WORK,
            queue="journal",
        ),
        Scheduler(
            "taskiq",
            "taskiq_redis",
            "-m taskiq scheduler project:scheduler --log-level WARNING",
            {"intervals": TASKIQ},
            queue="taskiq",
        ),
        Scheduler(
            "saq",
            "saq",
            "-m saq project.settings",
            {"spread": SAQ},
            queue="",
            python=str(OLDER_PEERS),
        ),
    ]
    return [one for one in known if has(one.python, one.module)]


def instant_for(scheduler: Scheduler, ready: float) -> tuple[float, dict[str, int]]:
    """Return an instant that is due in `ready` seconds or soon after, and its parts."""
    at = int(time.time() + ready) + 1
    if not scheduler.by_seconds:
        at = -(-at // 60) * 60
    then = time.gmtime(at)
    named = {"minute": then.tm_min, "hour": then.tm_hour, "second": then.tm_sec}
    return at, named


def far_month() -> int:
    """Return the month that just passed: the one that is farthest away."""
    return (time.gmtime().tm_mon - 2) % 12 + 1
