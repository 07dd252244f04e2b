"""How late schedulers are: intervals of 1 to 60 s, over a minute.

    python -m benchmarks.lateness [--entries 1000 --entries 10000] [--runs 1]
        [--seconds 60] [--beatd before=PYTHON] [--only WORD]

Entry n is due every n % 60 + 1 seconds. Each arrival is held against the grid of its
entry. That of beatd is the wall clock's: multiples of the interval since the epoch, so
many entries are due at the same instant. Others count from when they started: for
them the grid lies where their own earliest arrival puts it, which favours them, and
spreads what is due. APScheduler has nothing to send to: its jobs note that they ran.

- lateness in milliseconds: median, 99th percentile, most
- drift in milliseconds: what the median of the last ten seconds is more than that of
  the first ten
- the percentage that came of all that should have
- seconds of the scheduler's processor time for 1,000 emissions
"""

import argparse
import base64
import json
import math
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from benchmarks.harness import (
    Figures,
    GivenUp,
    Place,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)
from benchmarks.schedulers import Scheduler, beatd, peers

COLUMNS = {
    "p50, ms": ".1f",
    "p99, ms": ".1f",
    "most, ms": ".1f",
    "drift, ms": ".1f",
    "arrived, %": ".1f",
    "CPU s for 1,000": ".4f",
}

Arrival: TypeAlias = tuple[float, int]
"""When, in seconds since the epoch, and the number of the entry."""


def collect(here: Place, queue: str, seconds: float) -> list[tuple[float, bytes]]:
    """Take what arrives for so many seconds, and note when."""
    found: list[tuple[float, bytes]] = []
    take, end = here.client.blmpop, time.time() + seconds
    while time.time() < end:
        answer: Any = take(0.2, 1, queue, direction="RIGHT", count=1000)
        moment = time.time()
        if answer:
            found += [(moment, message) for message in answer[1]]
    return found


def celery_number(_: Place, message: bytes) -> int:
    number: int = json.loads(base64.b64decode(json.loads(message)["body"]))[0][0]
    return number


def taskiq_number(_: Place, message: bytes) -> int:
    number: int = json.loads(message)["args"][0]
    return number


def rq_number(here: Place, message: bytes) -> int:
    description: Any = here.client.hget(f"rq:job:{message.decode()}", "description")
    return int(description.decode().partition("(")[2].rstrip(")"))


NUMBERS: dict[str, Callable[[Place, bytes], int]] = {
    "celery": celery_number,
    "taskiq": taskiq_number,
    "rq:queue:default": rq_number,
}


def measure(scheduler: Scheduler, entries: int, seconds: float) -> Figures:
    with place() as here, scheduler.on(here, "intervals", entries=entries) as program:
        journal, queue = here.directory / "journal", scheduler.queue
        count = scheduler.counter(here)
        program.until(lambda: count() > 0)
        time.sleep(5)
        here.client.delete(queue)
        began, before = time.time(), program.processor_time()
        if queue == "journal":
            time.sleep(seconds)
            stamps = struct.iter_unpack("di", journal.read_bytes())
            arrivals = [(when, number) for when, number in stamps if when >= began]
            taken = program.processor_time() - before
        else:
            messages = collect(here, queue, seconds)
            taken = program.processor_time() - before
            number_of = NUMBERS[queue]
            arrivals = [(when, number_of(here, message)) for when, message in messages]
    if len(arrivals) < 10:
        raise GivenUp(f"{scheduler.name}: {len(arrivals)} arrivals in {seconds} s")
    late = [
        *lateness(arrivals, by_clock=scheduler.module == "beatd"),
    ]
    expected = sum(seconds / (number % 60 + 1) for number in range(entries))
    return {
        **percentiles([1000 * value for _, value in late]),
        "drift, ms": 1000 * drift(late, began, seconds),
        "arrived, %": 100 * len(arrivals) / expected,
        "CPU s for 1,000": 1000 * taken / len(arrivals),
    }


def lateness(
    arrivals: Sequence[Arrival], *, by_clock: bool
) -> list[tuple[float, float]]:
    """Return each arrival's moment, and by how many seconds it is behind its grid."""
    by_entry = defaultdict(list)
    for when, number in arrivals:
        by_entry[number].append(when)
    found = []
    for number, moments in by_entry.items():
        interval = number % 60 + 1
        if by_clock:
            found += [(when, when % interval) for when in moments]
        else:
            phases = [when - at * interval for at, when in enumerate(moments)]
            first = min(phases)
            found += [
                (when, phase - first)
                for when, phase in zip(moments, phases, strict=True)
            ]
    return found


def percentiles(late: Sequence[float]) -> Figures:
    ordered = sorted(late)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return {
        "p50, ms": statistics.median(ordered),
        "p99, ms": p99,
        "most, ms": ordered[-1],
    }


def drift(late: Sequence[tuple[float, float]], began: float, seconds: float) -> float:
    """Return by how much the last ten seconds are later than the first."""
    first = [value for when, value in late if when < began + 10]
    last = [value for when, value in late if when > began + seconds - 10]
    if not first or not last:
        return 0.0
    return statistics.median(last) - statistics.median(first)


def rows(entries: int, given: argparse.Namespace) -> list[Row]:
    schedulers = [
        *(beatd(one) for one in ours(given)),
        *(one for one in peers() if "intervals" in one.work),
    ]
    return chosen(
        [
            Row(
                one.name,
                lambda one=one: measure(one, entries, given.seconds),  # type: ignore[misc]
            )
            for one in schedulers
        ],
        given,
    )


def main() -> None:
    parser = options(__doc__, runs=1)
    parser.add_argument("--entries", type=int, action="append", default=[])
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with session("lateness") as tables:
        for entries in given.entries or [1_000, 10_000]:
            table = Table(f"lateness of {entries:,} entries", COLUMNS)
            tables.append(table)
            table.measure(rows(entries, given), given.runs)


if __name__ == "__main__":
    main()
