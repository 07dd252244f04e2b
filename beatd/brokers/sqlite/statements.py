"""The statements of statements.sql, by their names."""

import re
from pathlib import Path


def _statements() -> dict[str, str]:
    text = Path(__file__).with_suffix(".sql").read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SQL = _statements()
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

TABLES = [sql for name, sql in SQL.items() if name.startswith("make_")]
