"""What is to be written into the schedule file, and the file, open for its writer."""

import logging
import sqlite3
from collections.abc import (
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from sqlitedict import SqliteDict

from beatd.brokers.items import idle
from beatd.parts import in_parts
from beatd.scheduler.file_view import (
    META,
    TABLES,
    Pair,
    View,
    encode,
    encoded_rows,
    ledger_rows,
)
from beatd.timetable.ledger import Mark

# It logs each failed statement, with a stack; beatd logs once what is wrong.
logging.getLogger("sqlitedict").setLevel(logging.CRITICAL)

_ROWS = 250
"""Rows in one statement: sqlitedict hands statements to its thread one by one."""

_BUSY_TIMEOUT = 200
"""Milliseconds to wait for another process that is writing: the scheduler waits too."""


@dataclass
class Changes:
    """What the next transaction writes, with the newest mark of each entry."""

    marks: dict[str, Mark] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Entries to remove before `marks` are written."""
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    """By entry and reason: numbers to add to the counts in the file."""
    meta: dict[str, object] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.marks or self.gone or self.dropped or self.meta)

    def record(self, marks: Mapping[str, Mark]) -> None:
        self.marks.update(marks)

    def forget(self, gone: Collection[str]) -> None:
        self.gone.update(gone)
        for entry in gone:
            self.marks.pop(entry, None)
            self.dropped.pop(entry, None)

    def count(self, dropped: Mapping[tuple[str, str], int]) -> None:
        for (entry, reason), number in dropped.items():
            counts = self.dropped.setdefault(entry, {})
            counts[reason] = counts.get(reason, 0) + number

    def add(self, later: "Changes") -> None:
        """Add changes that come after these."""
        self.forget(later.gone)
        self.record(later.marks)
        for entry, counts in later.dropped.items():
            self.count({(entry, reason): n for reason, n in counts.items()})
        self.meta |= later.meta

    def put_under(self, old: View) -> None:
        """Add what `old` says where these changes say nothing."""
        kept = old.marks.keys() - self.gone
        self.marks = {name: old.marks[name] for name in kept} | self.marks
        for entry, counts in old.dropped.items():
            if entry not in self.gone:
                self.count({(entry, reason): n for reason, n in counts.items()})
        for name in META.keys() - self.meta.keys():
            self.meta[name] = getattr(old, name)


class Tables:
    """The file, open for its only writer.

    All tables go through one connection of sqlitedict, so that a transaction spans
    them. BEGIN and COMMIT are run as plain statements: an error in sqlitedict's own
    commit() (a full disk) ends its thread, and the caller would wait for ever.
    """

    def __init__(
        self,
        open_dict: Callable[..., SqliteDict],
        path: Path,
        dropped: Mapping[str, Mapping[str, int]],
    ) -> None:
        """Open a file that has all tables; `dropped` are the counts in it."""
        self._ledger = open_dict(
            str(path),
            tablename="ledger",
            journal_mode="WAL",
            encode=encode,
            decode=msgspec.json.decode,
            outer_stack=False,
        )
        self._dropped = dict(dropped)
        self._identity = _identity(path)
        # sqlitedict turns this off: a power cut could leave a damaged file.
        self._run("PRAGMA synchronous = NORMAL")
        # sqlitedict's time-out is as long as a lead lives.
        self._run(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")

    def is_at(self, path: Path) -> bool:
        """Return whether the path still names this file."""
        return _identity(path) == self._identity

    def write(self, changes: Changes, on_part: Callable[[], object] = idle) -> None:
        """Write all changes, or none of them and raise sqlite3.Error.

        `on_part` is called again and again; nothing is written if it raises, either.
        """
        dropped = {
            entry: _sum(self._dropped.get(entry, {}), counts)
            for entry, counts in changes.dropped.items()
        }
        self._run("BEGIN IMMEDIATE")
        try:
            for table in ("ledger", "dropped"):
                for keys in in_parts(changes.gone, _ROWS):
                    on_part()
                    self._delete(table, keys)
            for marks in in_parts(changes.marks.items(), _ROWS):
                on_part()
                self._replace("ledger", ledger_rows(dict(marks)))
            for counts in in_parts(dropped.items(), _ROWS):
                on_part()
                self._replace("dropped", encoded_rows(dict(counts)))
            self._replace("meta", encoded_rows(changes.meta))
            self._run("COMMIT")
        except BaseException:  # whatever it is, it goes on up
            with suppress(sqlite3.Error):
                self._run("ROLLBACK")
            raise
        for entry in changes.gone:
            self._dropped.pop(entry, None)
        self._dropped |= dropped

    def read(self) -> dict[str, list[Pair]]:
        """Return all rows, even of a file that was deleted while it was open."""
        select = "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM {}"
        return {
            name: list(self._ledger.conn.select(select.format(name))) for name in TABLES
        }

    def close(self) -> None:
        with suppress(sqlite3.Error):
            # Empties the WAL: left behind with rows, it could spoil a later file.
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(sqlite3.Error):
            self._ledger.close()

    def _delete(self, table: str, keys: Sequence[str]) -> None:
        marks = ", ".join("?" * len(keys))
        self._run(f"DELETE FROM {table} WHERE key IN ({marks})", keys)

    def _replace(self, table: str, rows: Sequence[tuple[str, str]]) -> None:
        if rows:
            values = ", ".join(["(?, ?)"] * len(rows))
            self._run(
                f"REPLACE INTO {table} (key, value) VALUES {values}",
                [text for row in rows for text in row],
            )

    def _run(self, sql: str, values: Sequence[str] = ()) -> None:
        """Run one statement in sqlitedict's thread and wait until it is done."""
        self._ledger.conn.select_one(sql, values)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {
        key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()
    }


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file that the path names just now, if any."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
