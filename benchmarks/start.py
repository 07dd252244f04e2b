"""How long schedulers take to start, and what an entry costs in memory.

    python -m benchmarks.start [--entries 100000] [--schedules 500] [--runs 5]
        [--beatd before=PYTHON] [--only WORD]

Of so many entries over so many schedules none is due, but for one that is at once:

- seconds from the start of the process to its first emission, cold (no schedule file,
  an empty server) and warm (both are there)
- resident memory at that moment for each entry: what it is more than with ten entries
- resident memory in all, and the percentage of a core that is taken while nothing is
  due

`--entries 1000000 --schedules 5000 --runs 1 --only beatd` is the million.
"""

import argparse
import time

from benchmarks.harness import (
    Figures,
    Place,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)
from benchmarks.schedulers import Scheduler, beatd, far_month, peers

COLUMNS = {
    "cold, s": ".2f",
    "warm, s": ".2f",
    "bytes/entry": ",.0f",
    "resident, MB": ",.0f",
    "idle, % of a core": ".2f",
}
IDLE = 10
"""Seconds of idleness that are looked at."""


def start(
    scheduler: Scheduler, here: Place, entries: int, schedules: int
) -> tuple[float, int]:
    """Return the seconds from the start to the first emission, and the memory then."""
    here.client.delete(scheduler.queue)
    began = time.time()
    values = {"entries": entries, "schedules": schedules, "month": far_month()}
    with scheduler.on(here, "spread", **values) as program:
        if not scheduler.queue:
            program.until_quiet()
            return float("nan"), program.resident()
        count = scheduler.counter(here)
        before = count()
        seconds = program.until(lambda: count() > before) - began
        return seconds, program.resident()


def idle(
    scheduler: Scheduler, here: Place, entries: int, schedules: int
) -> tuple[float, int]:
    """Return the percentage of a core, and the memory, with nothing due for a while."""
    values = {"entries": entries, "schedules": schedules, "month": far_month()}
    with scheduler.on(here, "idle", **values) as program:
        program.until_quiet()
        before = program.processor_time()
        time.sleep(IDLE)
        taken = program.processor_time() - before
        return 100 * taken / IDLE, program.resident()


def measure(scheduler: Scheduler, entries: int, schedules: int) -> Figures:
    figures = {}
    with place() as here:
        cold, memory = start(scheduler, here, entries, schedules)
        if scheduler.queue:
            figures["cold, s"] = cold
        if "idle" in scheduler.work:
            figures["warm, s"], _ = start(scheduler, here, entries, schedules)
            percent, resident = idle(scheduler, here, entries, schedules)
            figures["idle, % of a core"] = percent
            figures["resident, MB"] = resident / 1e6
    with place() as here:
        _, little = start(scheduler, here, 10, 10)
    figures["bytes/entry"] = (memory - little) / entries
    return figures


def rows(given: argparse.Namespace) -> list[Row]:
    schedulers = [
        *(beatd(one) for one in ours(given)),
        *(one for one in peers() if "spread" in one.work),
    ]
    return chosen(
        [
            Row(
                one.name,
                lambda one=one: measure(one, given.entries, given.schedules),  # type: ignore[misc]
            )
            for one in schedulers
            if not one.file
        ],
        given,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--schedules", type=int, default=500)
    given = parser.parse_args()
    name = "million" if given.entries >= 1_000_000 else "start"
    title = f"{given.entries:,} entries over {given.schedules:,} schedules"
    with session(name, "start") as tables:
        table = Table(title, COLUMNS)
        tables.append(table)
        table.measure(rows(given), given.runs)


if __name__ == "__main__":
    main()
