"""A command that starts others, and whether they are gone."""

from pathlib import Path

from tests.servers import eventually

FAMILY = """\
sleep 600 & echo $! >> pids
sh -c 'sleep 600 & echo $! >> pids; wait' & echo $! >> pids
echo $$ >> pids
"""
"""A shell that leaves the ids of all that it has started, and its own."""

FAMILY_DONE = "until [ $(wc -l < pids) = 4 ]; do sleep 0.1; done"
"""Waits until all of them are there."""


def pids(folder: Path, number: int = 4) -> list[int]:
    """Return the ids that are left in a folder, when so many are there."""
    path = folder / "pids"

    def look() -> bool:
        return path.exists() and len(path.read_text().splitlines()) == number

    eventually(look, f"{number} processes")
    return [int(line) for line in path.read_text().splitlines()]


def gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state.rpartition(")")[2].split()[0] == "Z"
