"""How fast many entries that are due at one instant are put on queues.

    python -m benchmarks.at_once [--entries 10000 --entries 100000] [--runs 5]
        [--beatd before=PYTHON] [--only WORD]

Into Redis and into SQLite, beside the peers and beside a bare loop (`limit`): a heap, a
template join, one Lua call for 1,000 messages; or for SQLite one transaction for 1,000
messages and rows, durable. That loop has no ledger, no policies, no lead, no history.

- messages a second, from the first arrival to the last
- seconds from the instant that is due to the last arrival (huey's minutes begin
  whenever it starts: nothing to compare)
- seconds of the scheduler's processor time for 1,000 messages, with all that follows
  within a second

One row is of a Celery app of which a receiver of `before_task_publish` has each message
made by a call. Celery and RedBeat are stopped after half a minute, with what they have
sent by then.
"""

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks import bare_loop
from benchmarks.harness import (
    Figures,
    Program,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)
from benchmarks.schedulers import Scheduler, beatd, beatd_calls, instant_for, peers

COLUMNS = {"messages/s": ",.0f", "to the last, s": ".3f", "CPU s for 1,000": ".4f"}
ENOUGH = 30
"""Seconds after which a slow scheduler has shown how fast it is."""


def burst(scheduler: Scheduler, entries: int) -> Figures:
    """Measure one burst of a scheduler."""
    with place() as here:
        ready = 5 + entries / 8_000
        at, named = instant_for(scheduler, ready)
        with scheduler.on(here, "at_once", entries=entries, **named) as program:
            count = scheduler.counter(here)
            before = 0.0
            if not scheduler.fires_at_start:
                time.sleep(max(0, at - 0.5 - time.time()))
                before = program.processor_time()
            first = program.until(lambda: count() > 0)
            if scheduler.fires_at_start:
                before = program.processor_time()
            began = count()
            arrived, last = watch(program, count, entries)
            time.sleep(1)
            taken = program.processor_time() - before
    figures = {
        "messages/s": (arrived - began) / max(last - first, 0.001),
        "CPU s for 1,000": taken / arrived * 1000,
    }
    if not scheduler.fires_at_start and arrived == entries:
        figures["to the last, s"] = last - at
    return figures


def watch(
    program: Program, count: Callable[[], int], entries: int
) -> tuple[int, float]:
    """Return how many messages arrived, and when the last of them did."""
    deadline = time.monotonic() + ENOUGH
    arrived, last = 0, time.time()
    while arrived < entries and time.monotonic() < deadline:
        if (now := count()) > arrived:
            arrived, last = now, time.time()
        time.sleep(0.001)
    return arrived, last


def limit(entries: int, *, sqlite: bool) -> Figures:
    """Measure the bare loop, in a process of its own as all others."""
    with place() as here:
        where = "bare.db" if sqlite else here.url
        script = str(bare_loop.__file__)
        with here.run(sys.executable, script, str(entries), where) as program:
            program.until(lambda: len(program.log.read_text().split()) == 2)
            rate, effort = map(float, program.log.read_text().split())
    return {"messages/s": rate, "CPU s for 1,000": effort}


def rows(entries: int, given: argparse.Namespace) -> list[Row]:
    """Return what is measured with so many entries."""
    schedulers = [
        *(beatd(one) for one in ours(given)),
        *(beatd(one, sqlite=True) for one in ours(given)),
        *(beatd_calls(one) for one in ours(given)),
        *(one for one in peers() if "at_once" in one.work),
    ]
    # For who takes minutes, 10,000 entries say it all.
    schedulers = [one for one in schedulers if one.most > 100 or entries <= 10_000]
    found = [
        Row(one.name, lambda one=one: burst(one, entries), one.most)  # type: ignore[misc]
        for one in schedulers
    ]
    bare = [
        Row(name, lambda file=file: limit(entries, sqlite=file))  # type: ignore[misc]
        for name, file in (("bare loop", False), ("bare loop, SQLite", True))
    ]
    return chosen([*found, *bare], given)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, action="append", default=[])
    given = parser.parse_args()
    with session("at_once") as tables:
        for entries in given.entries or [10_000, 100_000]:
            table = Table(f"{entries:,} entries due at once", COLUMNS)
            tables.append(table)
            table.measure(rows(entries, given), given.runs)


if __name__ == "__main__":
    main()
