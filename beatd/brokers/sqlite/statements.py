"""The statements of statements.sql, by their names."""

import re
import sqlite3
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = tuple[Any, ...]

AT_ONCE = 20
"""Rows of one statement: with more of them, nothing is won."""


def _statements() -> dict[str, str]:
    text = Path(__file__).with_suffix(".sql").read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SQL = _statements()
_SEVERAL = {
    name: SQL[name].replace("VALUES (?)", f"VALUES {', '.join(['(?)'] * AT_ONCE)}")
    for name in ("advance", "push")
}
LATER_COLUMNS = {
    ("lead", "lineage"): "TEXT NOT NULL DEFAULT ''",
    ("lead", "version"): "INTEGER NOT NULL DEFAULT 0",
    ("lead", "terms"): "TEXT NOT NULL DEFAULT ''",
    ("lead", "pages"): "INTEGER NOT NULL DEFAULT 0",
    ("ledger", "high"): "INTEGER",
    ("workers", "took"): "INTEGER NOT NULL DEFAULT 0",
    ("workers", "ended"): "TEXT NOT NULL DEFAULT ''",
    ("workers", "queues"): "TEXT NOT NULL DEFAULT ''",
}
"""Columns that files of earlier builds lack; to those builds they do no harm."""

LATER_TABLES = [
    SQL[f"make_{name}"] for name in ("configs", "standbys", "pages", "history", "notes")
]
"""Tables that files of earlier builds lack."""


def write_rows(
    db: sqlite3.Connection, name: str, rows: Iterable[tuple[Row, Any]]
) -> int:
    """Execute `advance` or `push` for each row, in order; return how many changed.

    A row is given as the columns that it may share with its neighbours, which are then
    bound once for all of them, and its own last column.
    """
    changed = 0
    alone: list[Row] = []
    for shared, group in groupby(rows, key=itemgetter(0)):
        own = [row[1] for row in group]
        whole = len(own) - len(own) % AT_ONCE
        if whole:
            changed += _execute(db, SQL[name], alone)
            alone = []
            parts = [
                (*shared, *own[at : at + AT_ONCE]) for at in range(0, whole, AT_ONCE)
            ]
            changed += _execute(db, _SEVERAL[name], parts)
        alone += [(*shared, one) for one in own[whole:]]
    return changed + _execute(db, SQL[name], alone)


def _execute(db: sqlite3.Connection, sql: str, rows: list[Row]) -> int:
    return db.executemany(sql, rows).rowcount if rows else 0


TABLES = [sql for name, sql in SQL.items() if name.startswith("make_")]
