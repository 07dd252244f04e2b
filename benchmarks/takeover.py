"""How long nothing is emitted when the leader goes: by SIGTERM, and by SIGKILL.

    python -m benchmarks.takeover [--entries 100000] [--runs 5] [--beatd before=PYTHON]

Two schedulers with so many entries, of which one is due ten times a second. The longest
silence from the signal on, in seconds: up to 0.1 s of it is the wait for the next slot.
After SIGKILL the lead has to run out first: its time to live is 5 s.
"""

import argparse
import signal
import time
from collections.abc import Callable
from os import kill

from benchmarks.harness import (
    Figures,
    GivenUp,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)
from benchmarks.schedulers import Scheduler, beatd, far_month

COLUMNS = {"SIGTERM, s": ".3f", "SIGKILL, s": ".3f"}
WATCHED = 8
"""Seconds after the signal in which the standby has to begin."""


def take_over(scheduler: Scheduler, entries: int, by: signal.Signals) -> float:
    """Return the longest silence after the signal, in seconds."""
    values = {"entries": entries, "schedules": 500, "month": far_month()}
    with place() as here:
        (here.directory / "standby").mkdir()
        with scheduler.on(here, "spread", **values) as leader:
            count = scheduler.counter(here)
            leader.until(lambda: count() > 0)
            command = [
                "-m",
                "beatd",
                "--config",
                "project.py",
                "-s",
                "standby/schedule.db",
            ]
            with here.run(scheduler.python, *command, name="standby") as standby:
                standby.until_quiet()
                kill(leader.pid, by)
                return longest_silence(count, time.time())


def longest_silence(count: Callable[[], int], began: float) -> float:
    """Return the longest silence from `began` on, in seconds."""
    known, heard, longest = count(), began, 0.0
    while (now := time.time()) < began + WATCHED:
        if count() > known:
            known = count()
            longest, heard = max(longest, now - heard), now
        time.sleep(0.001)
    if time.time() - heard > longest:
        raise GivenUp(f"nothing was emitted {WATCHED} s after the signal")
    return longest


def measure(scheduler: Scheduler, entries: int) -> Figures:
    return {
        "SIGTERM, s": take_over(scheduler, entries, signal.SIGTERM),
        "SIGKILL, s": take_over(scheduler, entries, signal.SIGKILL),
    }


def rows(given: argparse.Namespace) -> list[Row]:
    return chosen(
        [
            Row(
                one.name,
                lambda one=one: measure(one, given.entries),  # type: ignore[misc]
            )
            for one in map(beatd, ours(given))
        ],
        given,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    given = parser.parse_args()
    with session("takeover") as tables:
        table = Table(f"take-over with {given.entries:,} entries", COLUMNS)
        tables.append(table)
        table.measure(rows(given), given.runs)


if __name__ == "__main__":
    main()
