"""What history and metrics cost the scheduler.

    python -m benchmarks.overhead [--due 30000] [--runs 5]

Two schedulers, one with a history and a /metrics that is read every five seconds, the
other with neither, emit as many entries at once in turn, each in its half of a minute,
with all that follows. Prints the processor time of each pair, and the median of what
the first took more.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from urllib.request import urlopen

from benchmarks.harness import Place, Program, free_port, ours, place, surroundings
from benchmarks.schedulers import Scheduler, beatd

EACH_MINUTE = """
from beatd import every

broker_url = {url!r}
beat_history_per_entry = {history}
beat_http = {http}
beat_schedule = {{
    f"entry-{{n}}": {{
        "task": "tasks.run",
        "schedule": every(60, offset={offset}),
        "args": (n,),
    }}
    for n in range({entries})
}}
"""

HALF = 30
"""Seconds that each of the two has for a burst and all that follows from it."""


@contextmanager
def scraped(port: int) -> Iterator[None]:
    """Read /metrics every five seconds for the block's time, as a Prometheus does."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(5):
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def burst(
    here: Place, program: Program, slot: float, entries: int
) -> tuple[float, float]:
    """Return the processor time of a burst, and that with what follows in its half."""
    here.client.delete("celery")
    time.sleep(max(0, slot - time.time() - 1))
    before = program.processor_time()
    program.until(lambda: int(here.client.llen("celery")) >= entries)
    emitted = program.processor_time()
    time.sleep(max(0, slot + HALF - 2 - time.time()))
    return emitted - before, program.processor_time() - before


def overhead(scheduler: Scheduler, entries: int, pairs: int) -> None:
    """Print what history and metrics cost, by bursts of two schedulers in turn."""
    port = free_port()
    with ExitStack() as stack:
        on, off = (stack.enter_context(place()) for _ in range(2))
        asked = {"history": 100, "http": f"'{port}'", "offset": 0, "entries": entries}
        first = stack.enter_context(scheduler.on(on, "each_minute", **asked))
        asked |= {"history": 0, "http": None, "offset": HALF}
        second = stack.enter_context(scheduler.on(off, "each_minute", **asked))
        for here, program in ((on, first), (off, second)):
            # The first burst of each is not counted.
            count = scheduler.counter(here)
            program.until(lambda count=count: count() >= entries)  # type: ignore[misc]
        stack.enter_context(scraped(port))
        slot = (int(time.time()) // 60 + 1) * 60
        found = []
        for _ in range(pairs):
            with_both = burst(on, first, slot, entries)
            without = burst(off, second, slot + HALF, entries)
            found.append(tuple(zip(with_both, without, strict=True)))
            times = " and ".join(
                f"{on:.2f} s, without {off:.2f} s" for on, off in found[-1]
            )
            print(f"  with {times}", flush=True)
            slot += 60
    print(f"{entries} entries due at once, history and metrics by processor time,")
    print(f"  median of {pairs} pairs:")
    words = "emission", f"with all that follows in {HALF} s"
    for name, both in zip(words, zip(*found, strict=True), strict=True):
        more = statistics.median(100 * (on / off - 1) for on, off in both)
        cost = statistics.median(on - off for on, off in both)
        print(f"  {name:32} {more:+8.1f} %, {cost:+.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--due", type=int, default=30_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    print(surroundings())
    this = argparse.Namespace(beatd=[])
    scheduler = replace(beatd(ours(this)[0]), work={"each_minute": EACH_MINUTE})
    overhead(scheduler, given.due, given.runs)


if __name__ == "__main__":
    main()
