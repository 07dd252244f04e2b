"""Simulate histories:  python -m tests.simulation [--hours 50] [--seeds 1-20]

Prints a line for each seed that fails, with what is wrong and the command that runs it
again, and at the end what was done. All cores are used. Exit status: 1 if one failed.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.plan import Fault, Run
from tests.simulation.verdict import Verdict, verdict_of


@dataclass(frozen=True)
class Outcome:
    """What became of one seed."""

    seed: int
    verdict: Verdict
    drawn: Counter[str]
    command: str


def simulate(
    seed: int, hours: float, faults: Sequence[Fault] = tuple(Fault)
) -> Outcome:
    """Simulate one history and judge it."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        run = Run(seed, Path(folder), hours, faults)
        run.go()
        drawn = Counter({fault.value: n for fault, n in run.drawn.items()})
        drawn.update({f"request {f.value}": n for f, n in run.network.met.items()})
        names = ",".join(fault.name for fault in faults)
        command = (
            f"python -m tests.simulation --hours {hours:g} --seeds {seed}"
            f" --faults {names}"
        )
        return Outcome(seed, verdict_of(run), drawn, command)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=50, help="of each seed")
    parser.add_argument("--seeds", type=_seeds, default=range(1, 21))
    parser.add_argument(
        "--faults",
        type=lambda text: [Fault[name] for name in text.split(",")],
        default=list(Fault),
        help="names of Fault, with commas; default: all",
    )
    given = parser.parse_args()
    # What the schedulers say of all that is done to them is of no use here.
    logging.getLogger("beatd").addHandler(logging.NullHandler())
    began, slots, failed = time.monotonic(), 0, 0
    drawn: Counter[str] = Counter()
    with ProcessPoolExecutor() as pool:
        waiting = [
            pool.submit(simulate, seed, given.hours, given.faults)
            for seed in given.seeds
        ]
        for one in waiting:
            outcome = one.result()
            slots += outcome.verdict.slots
            drawn += outcome.drawn
            if not outcome.verdict.is_good:
                failed += 1
                print(f"seed {outcome.seed}: {outcome.verdict}\n  {outcome.command}")
    print(
        f"{len(given.seeds)} seeds of {given.hours:g} h: {slots} slots, {failed} seeds"
        f" failed, {time.monotonic() - began:.0f} s\n{dict(drawn)}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
