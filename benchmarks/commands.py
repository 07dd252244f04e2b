"""How long commands take: `--help`, `list` and `next` over many entries.

    python -m benchmarks.commands [--entries 10000] [--runs 5] [--beatd before=PYTHON]

Seconds, and seconds of processor time, from the start of the process to its end. The
entries are due hourly to every eight hours, in a config module; no server is asked.
"""

import argparse
import resource
import subprocess
import time
from pathlib import Path

from benchmarks.harness import (
    Figures,
    GivenUp,
    Ours,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)

COLUMNS = {"seconds": ".3f", "CPU s": ".3f"}

CONFIG = """
from beatd import crontab

beat_schedule = {{
    f"entry-{{n}}": {{
        "task": "tasks.run",
        "schedule": crontab(minute=n % 60, hour=f"*/{{n // 60 % 8 + 1}}"),
        "args": (n,),
    }}
    for n in range({entries})
}}
"""


def measure(one: Ours, command: str, entries: int) -> Figures:
    with place() as here:
        here.write({"celeryconfig.py": CONFIG.format(entries=entries)})
        return run(one.python, command.split(), here.directory)


def run(python: str, command: list[str], directory: Path) -> Figures:
    began, effort = time.perf_counter(), children()
    done = subprocess.run(
        [python, "-m", "beatd", *command], cwd=directory, capture_output=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise GivenUp(f"{' '.join(command)}: {done.stderr.decode()[-500:]}")
    return {"seconds": seconds, "CPU s": children() - effort}


def children() -> float:
    """Return the seconds of processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(given: argparse.Namespace) -> list[Row]:
    week = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 7 * 86_400))
    commands = ["--help", "list", f"next --until {week} --json"]
    return chosen(
        [
            Row(
                f"{one.name} {command.partition(' --j')[0]}",
                lambda one=one, command=command: measure(one, command, given.entries),  # type: ignore[misc]
            )
            for command in commands
            for one in ours(given)
        ],
        given,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    given = parser.parse_args()
    with session("commands") as tables:
        table = Table(f"commands over {given.entries:,} entries", COLUMNS)
        tables.append(table)
        table.measure(rows(given), given.runs)


if __name__ == "__main__":
    main()
