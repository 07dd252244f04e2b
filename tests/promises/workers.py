"""Real workers to hurt, and a reader of what their tasks did.

The reader shares no code with the worker: each task leaves a line when it begins and
one when it has ended, in a file that outlives every process.
"""

import os
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from beatd.app import Beatd as App
from tests.promises.harness import Beatd
from tests.servers import PATIENCE, eventually

TASKS = """
import os
import time
from pathlib import Path

from beatd import Beatd

app = Beatd("shop", broker={broker!r}, backend={backend!r})
JOURNAL = os.open(Path(__file__).with_name("journal"), os.O_WRONLY | os.O_APPEND)


def note(word, name):
    line = f"{{word}} {{name}} {{os.getpid()}} {{time.monotonic()}}\\n"
    os.write(JOURNAL, line.encode())


@app.task
def work(name, seconds=0, until=None):
    note("begin", name)
    time.sleep(seconds)
    while until and not Path(__file__).with_name(until).exists():
        time.sleep(0.01)
    note("end", name)
    return name
"""


SOON = 3.0
"""Seconds within which an end is acknowledged, on a busy machine too."""


class Run(NamedTuple):
    """One run of one task, by the machine's monotonic clock."""

    pid: int
    begin: float
    end: float | None
    """None: it has not ended, or never will."""


@dataclass
class Shop:
    """A project whose tasks keep a journal, and its workers, with default settings."""

    folder: Path
    broker: str
    backend: str
    through: str = ""
    """Where its workers find the broker, if not where clients do."""
    workers: list[Beatd] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "journal").touch()
        tasks = TASKS.format(broker=self.through or self.broker, backend=self.backend)
        (self.folder / "shop.py").write_text(tasks)
        self.app = App(
            "client", broker=self.broker, backend=self.backend, set_as_current=False
        )

    def worker(self, *options: str) -> Beatd:
        """Start one more worker, and wait until it takes tasks."""
        number = len(self.workers)
        arguments = ["worker", "-A", "shop", "-n", f"w{number}@%h", *options]
        log = self.folder / f"worker-{number}.log"
        worker = Beatd(arguments, self.folder, log).start()
        self.workers.append(worker)
        worker.until("is ready")
        return worker

    def send(self, names: Sequence[str], seconds: float = 0, until: str = "") -> None:
        """Have a run of `work` for each of these; it ends when `until` is there."""
        for name in names:
            self.app.send_task("shop.work", [name, seconds, until], task_id=name)

    def release(self, name: str) -> None:
        """Let all runs end that wait for this."""
        (self.folder / name).touch()

    def runs(self) -> dict[str, list[Run]]:
        """Read the journal: all runs of each task, in the order of their beginnings."""
        runs: dict[str, list[Run]] = defaultdict(list)
        for line in (self.folder / "journal").read_text().splitlines():
            word, name, pid, at = line.split()
            if word == "begin":
                runs[name].append(Run(int(pid), float(at), None))
            else:
                index = max(i for i, r in enumerate(runs[name]) if r.pid == int(pid))
                runs[name][index] = runs[name][index]._replace(end=float(at))
        return runs

    def until_running(self, worker: Beatd, number: int = 1) -> list[int]:
        """Wait until so many tasks run in children of the worker; give their ids."""

        def running() -> list[int]:
            family = descendants(worker.pid)
            pids = [run.pid for of in self.runs().values() for run in of if not run.end]
            found = [pid for pid in pids if pid in family]
            return found if len(found) >= number else []

        return eventually(running, f"{number} tasks that run")

    def until_ended(self, names: Sequence[str], patience: float = PATIENCE) -> None:
        """Wait until each of these has ended at least once."""

        def all_ended() -> bool:
            runs = self.runs()
            return all(any(run.end for run in runs[name]) for name in names)

        eventually(all_ended, "every task to end", patience=patience)

    def check(self, deaths: Sequence[float] = (), within: float = 10) -> None:
        """Fail for runs cut short and not begun again in time, and for needless ones.

        `deaths` are the moments at which processes were killed. A run that ended just
        before, `SOON`, may not have been acknowledged, and may come again.
        """
        late = {}
        needless = {}
        for name, runs in self.runs().items():
            for run, following in zip_longest(runs, runs[1:]):
                after = [at for at in deaths if at >= (run.end or run.begin)]
                if run.end:
                    if following and not (after and after[0] < run.end + SOON):
                        needless[name] = runs
                elif not (after and following and following.begin < after[0] + within):
                    late[name] = runs
        assert late == {}, f"not begun again in time after {deaths}"
        assert needless == {}, f"run again though it had ended, deaths {deaths}"

    def close(self) -> None:
        """End all workers, by force; the order is that in which they were started."""
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.kill()
        self.app.close()


@contextmanager
def shop(folder: Path, broker: str, backend: str, through: str = "") -> Iterator[Shop]:
    """Lend a shop for the block's time."""
    made = Shop(folder, broker, backend, through)
    try:
        yield made
    finally:
        made.close()


def descendants(pid: int) -> set[int]:
    """Return all processes that a process has started, and those that they have."""
    children = defaultdict(set)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it is gone
            # After the name in brackets, whatever that has: state, parent.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children[parent].add(int(path.parent.name))
    found: set[int] = set()
    new = {pid}
    while new := set().union(*(children[one] for one in new)) - found:
        found |= new
    return found


def kill_family(worker: Beatd) -> None:
    """Kill a worker and all of its children, at the same time."""
    family = descendants(worker.pid)
    for pid in (worker.pid, *family):
        os.kill(pid, signal.SIGKILL)
    worker.wait()
