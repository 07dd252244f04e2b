"""A host's disk: the real schedule file, and what a crash or a power cut leaves of it.

The file lies in a directory of its own for each start of the process, filled with what
the disk had kept. So the connections of a process that died disturb nobody.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beatd.clock import Clock
from beatd.instant import MINUTE, Instant
from beatd.scheduler.schedule_file import ScheduleFile
from tests.simulation.world import Process

_NAME = "celery.db"


class Disk:
    """What one host has kept of its schedule file, now and at earlier flushes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._starts = 0
        self._saved_at: Instant = 0
        self.file: ScheduleFile | None = None
        self.kept: list[Mapping[str, bytes]] = [{}]
        """Contents by name, the oldest first: what backups and power cuts leave."""
        self.uncertain: set[tuple[str, Instant]] = set()
        """Entries and slots that were noted as uncertain."""

    @property
    def _directory(self) -> Path:
        return self._root / str(self._starts)

    def open(
        self, contents: Mapping[str, bytes], process: Process, clock: Clock
    ) -> "DiskFile":
        """Return the schedule file of a process that starts with these contents."""
        self._starts += 1
        self._directory.mkdir(parents=True)
        for name, data in contents.items():
            (self._directory / name).write_bytes(data)
        path = self._directory / _NAME
        self.file = ScheduleFile(
            path,
            namespace="sim",
            timezone="UTC",
            clock=clock,
            open_dict=RowsAtOnce,
        )
        return DiskFile(self.file, self, process)

    def save(self, now: Instant) -> None:
        """Keep the present contents for a later power cut, at most once a minute."""
        if now >= self._saved_at + MINUTE:
            self._saved_at = now
            self.kept.append(self.contents())

    def contents(self) -> Mapping[str, bytes]:
        """Return what the operating system has of the file, flushed or not."""
        found = [self._directory / f"{_NAME}{end}" for end in ("", "-wal")]
        return {one.name: one.read_bytes() for one in found if one.exists()}

    def close(self) -> None:
        """Release what a process that died had open."""
        if self.file is not None:
            self.file.unlock()
            self.file = None


class RowsAtOnce:
    """What the schedule file asks of sqlitedict, done in the thread that asks.

    Handing each statement to a thread and back takes most of a simulation's time.
    """

    def __init__(self, filename: str, *, journal_mode: str, **_: object) -> None:
        self.conn = self
        self._connection = sqlite3.connect(filename)
        self.select_one(f"PRAGMA journal_mode = {journal_mode}")
        # A disk is copied whole, and often: its log stays short.
        self.select_one("PRAGMA wal_autocheckpoint = 50")

    def select(self, sql: str, values: Sequence[str] = ()) -> Iterator[Any]:
        return self._connection.execute(sql, values)

    def select_one(self, sql: str, values: Sequence[str] = ()) -> Any:
        return next(self.select(sql, values), None)

    def close(self) -> None:
        self._connection.close()


class DiskFile:
    """The real schedule file; whoever waits for the disk lets others go on."""

    def __init__(self, file: ScheduleFile, disk: Disk, process: Process) -> None:
        self._file = file
        self._disk = disk
        self._process = process
        self._term: int | None = None

    def highest_term(self) -> int:
        # Nobody else writes this host's file: asking it anew would only take long.
        if self._term is None:
            self._term = self._file.highest_term()
        return self._term

    def flush(self) -> None:
        self._process.sleep(self._process.world.below(3))
        self._file.flush()
        self._disk.save(self._process.world.now)

    def note_uncertain(self, slots: Mapping[str, Sequence[Instant]]) -> None:
        self._process.check()
        self._file.note_uncertain(slots)
        self._disk.uncertain |= {(name, one) for name in slots for one in slots[name]}

    def __getattr__(self, name: str) -> Any:
        self._process.check()
        if name == "rewrite":
            self._term = None
        return getattr(self._file, name)
