"""The workers that are measured: a task that does nothing, and how each is started.

The task leaves a stamp of its time in one journal, so that all are measured alike.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
class Worker:
    """A worker of two processes: the module with its task, and how it is started.

    `project` is formatted with `url` and `results`; it has `send`, and `send_many` if
    there is a way to send many at once.
    """

    name: str
    module: str
    """What it is known by to Python."""
    project: str
    command: str
    times: int = 1
    """How often it is started, for those that run in one process only."""
    python: str = str(PEERS)
    stores: bool = True
    """Whether it keeps results in the server."""
    most: int = 1_000
    """The most runs of it, as it is slow."""
    file: bool = False
    """Whether it works with a file, without the server."""

    def prepare(self, place: Place, *, results: bool) -> None:
        project = self.project.format(url=place.url, results=results)
        place.write({"project.py": project, "journal.py": JOURNAL})

    @contextmanager
    def on(self, place: Place) -> Iterator[list[Program]]:
        """Run it for the block's time."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    place.run(
                        self.python,
                        "-m",
                        *self.command.format(n=number).split(),
                        name=self.name,
                    )
                )
                for number in range(self.times)
            ]


JOURNAL = """
import os
import struct
import time

file = os.open("journal", os.O_RDWR | os.O_APPEND | os.O_CREAT)


def stamp(*_, **__):
    # One write of a few bytes to the end of a file is whole: no stamps mix.
    os.write(file, struct.pack("d", time.monotonic()))
    return True


async def astamp(*_, **__):
    return stamp()


def number():
    return os.fstat(file).st_size // 8
"""

BEATD = """
from beatd import Beatd
from journal import stamp

app = Beatd("project", broker=BROKER, backend={url!r} if {results} else None)
task = app.task(stamp, name="stamp")
send = task.delay


def send_many(number):
    task.send_many([()] * number)
"""

CELERY = """
from celery import Celery
from journal import stamp

app = Celery("project", broker={url!r}, backend={url!r} if {results} else None)
send = app.task(stamp, name="stamp").delay
"""

HUEY = """
from huey import RedisExpireHuey, SqliteHuey
from journal import stamp

app = HUEY
send = app.task(name="stamp")(stamp)
"""

DRAMATIQ = """
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from journal import stamp

broker = RedisBroker(url={url!r})
broker.add_middleware(Results(backend=RedisBackend(url={url!r})))
dramatiq.set_broker(broker)
send = dramatiq.actor(stamp, store_results={results}).send
"""

TASKIQ = """
import asyncio

from journal import stamp
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

app = ListQueueBroker(url={url!r})
if {results}:
    app = app.with_result_backend(RedisAsyncResultBackend({url!r}))
runner = asyncio.Runner()
task = app.task(task_name="stamp")(stamp)


def send():
    runner.run(task.kiq())
"""

ARQ = """
import asyncio

from arq import create_pool
from arq.connections import RedisSettings
from journal import astamp

settings = RedisSettings.from_dsn({url!r})


class WorkerSettings:
    functions = [astamp]
    redis_settings = settings
    keep_result = 3600 if {results} else 0


runner = asyncio.Runner()
pools = []


def send():
    if not pools:
        pools.append(runner.run(create_pool(settings)))
    runner.run(pools[0].enqueue_job("astamp"))
"""

SAQ = """
import asyncio

from journal import astamp
from saq import Queue

queue = Queue.from_url({url!r}, name="default")
settings = {{"queue": queue, "functions": [astamp]}}
runner = asyncio.Runner()


def send():
    runner.run(queue.enqueue("astamp", ttl=600 if {results} else -1))
"""

RQ = """
from journal import stamp
from redis import Redis
from rq import Queue

queue = Queue(connection=Redis.from_url({url!r}))


def send():
    queue.enqueue(stamp, result_ttl=500 if {results} else 0)
"""


def beatd(ours: Ours) -> list[Worker]:
    """Return the workers of one beatd: pools and brokers."""
    name, python = ours.name, ours.python
    redis = BEATD.replace("BROKER", "{url!r}")
    file = BEATD.replace("BROKER", "'sqlite:///broker.db'")
    prefork = "beatd worker -A project -c 2"
    solo = "beatd worker -A project -P solo -n {n}@%h"
    return [
        Worker(f"{name}, prefork", "beatd", redis, prefork, python=python),
        Worker(f"{name}, solo x2", "beatd", redis, solo, 2, python=python),
        Worker(
            f"{name}, SQLite",
            "beatd",
            file,
            prefork,
            python=python,
            stores=False,
            file=True,
        ),
    ]


def peers() -> list[Worker]:
    """Return the peers that are installed; the others are named on the way."""
    consumer = "huey.bin.huey_consumer project.app -w 2 -k process -q"
    huey = HUEY.replace(
        "HUEY", "RedisExpireHuey('project', url={url!r}, results={results})"
    )
    huey_file = HUEY.replace(
        "HUEY", "SqliteHuey('project', filename='huey.db', results={results})"
    )
    known = [
        Worker(
            "celery, prefork", "celery", CELERY, "celery -A project worker -c 2", most=2
        ),
        Worker(
            "celery, solo x2",
            "celery",
            CELERY,
            "celery -A project worker -P solo -n {n}@%h",
            2,
            most=2,
        ),
        Worker("huey", "huey", huey, consumer),
        Worker("huey, SQLite", "huey", huey_file, consumer, stores=False, file=True),
        Worker("dramatiq", "dramatiq", DRAMATIQ, "dramatiq project -p 2"),
        Worker(
            "taskiq",
            "taskiq_redis",
            TASKIQ,
            "taskiq worker project:app -w 2 --log-level WARNING",
        ),
        Worker(
            "arq x2",
            "arq",
            ARQ,
            "arq project.WorkerSettings",
            2,
            python=str(OLDER_PEERS),
            most=2,
        ),
        Worker(
            "saq x2",
            "saq",
            SAQ,
            "saq project.settings",
            2,
            python=str(OLDER_PEERS),
            most=2,
        ),
    ]
    return [one for one in known if has(one.python, one.module)]


def rq() -> list[Worker]:
    """Return RQ, of which only sending is measured: it forks for each task."""
    known = [Worker("RQ", "rq", RQ, "rq.cli worker")]
    return [one for one in known if has(one.python, one.module)]
