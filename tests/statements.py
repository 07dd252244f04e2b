"""Counts what is asked of SQLite."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from beatd.brokers.sqlite import SQLiteBroker
from beatd.results.base import Lifetime
from beatd.results.encoding import Encoding
from beatd.results.sqlite import SQLiteResults


@dataclass
class Asked:
    """Statements that were executed, each as often as it was; comments left out."""

    statements: list[str] = field(default_factory=list)
    steps: int = 0
    """Instructions of SQLite's own machine that these took: rows that were looked at
    and left are among them."""

    def __len__(self) -> int:
        return len(self.statements)

    def beginning(self, *starts: str) -> int:
        """Return how many began with one of these words."""
        return sum(one.startswith(starts) for one in self.statements)

    @property
    def writes(self) -> int:
        """Transactions that were committed: with synchronous FULL, a sync for each.

        Those that have written nothing are among them.
        """
        return self.beginning("COMMIT")

    def clear(self) -> None:
        self.statements.clear()
        self.steps = 0

    def count_step(self) -> None:
        self.steps += 1

    def add(self, statement: str) -> None:
        lines = (line for line in statement.splitlines() if line[:2] != "--")
        if text := "\n".join(lines):
            self.statements.append(text)


class CountedResults(SQLiteResults):
    """Results that tell what they ask of SQLite."""

    def __init__(self, path: Path) -> None:
        self.asked = Asked()
        super().__init__(path, encoding=Encoding(), lifetime=Lifetime())

    def _connect(self) -> sqlite3.Connection:
        db = super()._connect()
        db.set_trace_callback(self.asked.add)
        return db


class CountedBroker(SQLiteBroker):
    """A broker that tells what it asks of SQLite."""

    def __init__(self, path: Path) -> None:
        self.asked = Asked()
        super().__init__(path, namespace="test")

    def _connect(self) -> sqlite3.Connection:
        db = super()._connect()
        db.set_trace_callback(self.asked.add)
        db.set_progress_handler(self.asked.count_step, 1)
        return db
