"""How fast workers run tasks that do nothing.

    python -m benchmarks.worker [--messages 10000] [--idle 200] [--runs 5]
        [--beatd before=PYTHON] [--only WORD]

Two processes of each worker, with its defaults, before Redis or a file of SQLite:

- tasks a second, from the first task to the last of those that waited when the worker
  started; with results until the last result is in the server
- microseconds of Redis's processor time for a task, and the commands that it was sent
  or has called in scripts, without results
- latency on an idle worker: from before a task is sent until it has run
- memory of all its processes after that, shared pages divided (PSS)
"""

import argparse
import statistics
import struct
import subprocess
import time
from pathlib import Path

from benchmarks.harness import (
    PATIENCE,
    Figures,
    GivenUp,
    Place,
    Program,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)
from benchmarks.workers import Worker, beatd, peers

COLUMNS = {
    "tasks/s": ",.0f",
    "+ results": ",.0f",
    "Redis us/task": ".1f",
    "commands/task": ".2f",
    "p50, ms": ".2f",
    "p99, ms": ".2f",
    "PSS, MB": ".0f",
}

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


def send(worker: Worker, here: Place, what: str, number: int) -> list[float]:
    """Send so many tasks: "fill" all at once, "idle" each after the last ran.

    Returns the latencies of the latter in seconds.
    """
    here.write({"sender.py": SENDER})
    with (here.directory / "log").open("ab") as log:
        sender = subprocess.run(
            [worker.python, "sender.py", what, str(number)],
            cwd=here.directory,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=PATIENCE,
        )
    if sender.returncode:
        log_text = (here.directory / "log").read_text(errors="replace")[-2000:]
        raise GivenUp(f"{worker.name}: could not send\n{log_text}")
    return [float(line) for line in sender.stdout.split()]


def until_ran(program: Program, journal: Path, number: int) -> list[float]:
    """Wait until so many tasks ran; return the moments."""
    program.until(
        lambda: journal.exists() and journal.stat().st_size >= 8 * number, step=0.005
    )
    return [moment for (moment,) in struct.iter_unpack("d", journal.read_bytes())]


def without_results(worker: Worker, messages: int, idle: int) -> dict[str, float]:
    with place() as here:
        worker.prepare(here, results=False)
        send(worker, here, "fill", messages)
        effort, calls = here.server_time(), here.calls()
        with worker.on(here) as programs:
            moments = until_ran(programs[0], here.directory / "journal", messages)
            time.sleep(1)  # until nothing is left to do
            effort, calls = here.server_time() - effort, here.calls() - calls
            latencies = send(worker, here, "idle", idle)
            memory = sum(program.proportional() for program in programs)
    cuts = statistics.quantiles(latencies, n=100)
    figures = {
        "tasks/s": messages / (max(moments) - min(moments)),
        "p50, ms": 1000 * cuts[49],
        "p99, ms": 1000 * cuts[98],
        "PSS, MB": memory / 1e6,
    }
    if not worker.file:
        figures["Redis us/task"] = effort / messages * 1e6
        figures["commands/task"] = calls / messages
    return figures


def with_results(worker: Worker, messages: int) -> float:
    """Return tasks a second, each with its result stored.

    Each is a key; the handful of other keys ends this a few results early.
    """
    with place() as here:
        worker.prepare(here, results=True)
        send(worker, here, "fill", messages)
        with worker.on(here) as programs:
            moments = until_ran(programs[0], here.directory / "journal", messages)
            programs[0].until(lambda: int(here.client.dbsize()) >= messages)
            stored = time.monotonic()
    return messages / (stored - min(moments))


def measure(worker: Worker, messages: int, idle: int) -> Figures:
    figures = without_results(worker, messages, idle)
    if worker.stores:
        figures["+ results"] = with_results(worker, messages)
    return figures


def rows(given: argparse.Namespace) -> list[Row]:
    workers = [*(one for each in ours(given) for one in beatd(each)), *peers()]
    return chosen(
        [
            Row(
                one.name,
                lambda one=one: measure(one, given.messages, given.idle),  # type: ignore[misc]
                one.most,
            )
            for one in workers
        ],
        given,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--idle", type=int, default=200)
    given = parser.parse_args()
    with session("worker") as tables:
        table = Table(f"{given.messages:,} tasks", COLUMNS)
        tables.append(table)
        table.measure(rows(given), given.runs)


if __name__ == "__main__":
    main()
