"""`python -m tests.simulation`: simulate many hours, on all cores; see --help."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count, islice
from typing import Any

from beatd.instant import HOUR, SECOND, Span
from tests.simulation.faults import GAPS, Kind
from tests.simulation.mutations import MUTATIONS, without
from tests.simulation.replay import simulate_and_replay
from tests.simulation.run import ALL, Result, simulate


def main(arguments: Sequence[str]) -> int:
    """Simulate as the arguments say; return 1 if any seed broke the promise."""
    options = _options(arguments)
    span = round(options.span * HOUR)
    number = len(options.seeds) or max(1, round(options.hours / options.span))
    seeds = options.seeds or list(islice(count(options.first), number))
    one = partial(
        _simulate,
        mutation=options.mutation,
        replay=options.replay,
        span=span,
        kinds=options.kinds,
        gaps=options.gaps,
        verbose=options.verbose,
    )
    began = time.monotonic()
    results = []
    for result in _results(one, seeds, options.jobs):
        results.append(result)
        if result.verdict.wrong:
            print(result, flush=True)
    print(_summary(results, time.monotonic() - began))
    return int(any(result.verdict.wrong for result in results))


def _simulate(seed: int, mutation: str, replay: bool, **options: Any) -> Result:
    with without(mutation):
        return (simulate_and_replay if replay else simulate)(seed, **options)


def _results(
    one: "partial[Result]", seeds: Sequence[int], jobs: int
) -> Iterator[Result]:
    if len(seeds) == 1 or jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(one, seeds, chunksize=min(10, 1 + len(seeds) // jobs))


def _summary(results: Sequence[Result], seconds: float) -> str:
    verdicts = [result.verdict for result in results]
    drawn = sum((result.drawn for result in results), Counter[str]())
    hours = sum(result.span for result in results) / HOUR
    faults = ", ".join(f"{kind} {number}" for kind, number in sorted(drawn.items()))
    return (
        f"{len(results)} seeds, {hours:g} hours in {seconds:.0f} s,"
        f" {sum(one.slots for one in verdicts)} slots\n"
        f"faults: {faults}\n"
        f"lost {sum(len(one.lost) for one in verdicts)},"
        f" doubled {sum(len(one.doubled) for one in verdicts)},"
        f" foreign {sum(len(one.foreign) for one in verdicts)},"
        f" late {sum(len(one.late) for one in verdicts)},"
        f" uncertain {sum(len(one.uncertain) for one in verdicts)},"
        f" unknowable {sum(len(one.unknowable) for one in verdicts)}\n"
        f"{sum(one.runs for one in verdicts)} runs by workers:"
        f" not run {sum(len(one.unrun) for one in verdicts)},"
        f" run again {sum(len(one.rerun) for one in verdicts)},"
        f" done to another message {sum(len(one.mistaken) for one in verdicts)},"
        f" followed wrongly {sum(len(one.following) for one in verdicts)},"
        f" together {sum(len(one.together) for one in verdicts)},"
        f" held for ever {sum(len(one.held) for one in verdicts)},"
        f" run by another one after a loss {sum(one.again for one in verdicts)},"
        f" gone with the broker's data {sum(one.gone for one in verdicts)},"
        f" cut by a worker's end {sum(one.cut for one in verdicts)}"
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__
    )
    parser.add_argument("--hours", type=float, default=20, help="simulated, in all")
    parser.add_argument("--span", type=float, default=1, help="hours of one seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--seeds", type=_seeds, default=[], help="1,2,10-20: these only"
    )
    words = "faults: a,b; those of workers bring workers, which take most of the time"
    parser.add_argument("--kinds", type=_kinds, default=ALL, help=words)
    words = "seconds between two faults, on average: a seed draws one of these"
    parser.add_argument("--gaps", type=_gaps, default=GAPS, help=words)
    parser.add_argument(
        "--mutation", choices=MUTATIONS, default="", help="take this part out of beatd"
    )
    parser.add_argument(
        "--replay", action="store_true", help="make all calls to Redis and SQLite, too"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true", help="show the log")
    return parser.parse_args(arguments)


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _gaps(text: str) -> tuple[Span, ...]:
    return tuple(round(float(part) * SECOND) for part in text.split(","))


def _kinds(text: str) -> frozenset[Kind]:
    if text == "all":
        return ALL
    return frozenset(Kind(part) for part in text.split(",") if part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
