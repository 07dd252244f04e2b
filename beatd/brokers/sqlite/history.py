"""The history in SQLite: pages that emissions add, rows by entry, and notes."""

import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path

from beatd.brokers.items import MOST_PAGES, Term
from beatd.brokers.sqlite.file import BrokerFile
from beatd.brokers.sqlite.statements import SQL
from beatd.clock import Clock
from beatd.timetable.pages import Page


class SQLiteHistory(BrokerFile):
    """The ports HistoryKeeper and NoteKeeper."""

    def __init__(
        self, path: Path, namespace: str, busy_timeout: float, clock: Clock
    ) -> None:
        super().__init__(path, busy_timeout, clock)
        self._namespace = namespace

    def read_history(self) -> tuple[dict[str, bytes], list[Page]]:
        with self._connection() as db:
            db.execute("BEGIN")
            rows = db.execute(SQL["history"], (self._namespace,)).fetchall()
            pages = self._pages(db, MOST_PAGES)
            db.execute("COMMIT")
        found = {str(entry, "utf-8", "replace"): row for entry, row in rows}
        return found, pages

    def read_pages(self, limit: int) -> list[Page]:
        with self._connection() as db:
            return self._pages(db, limit)

    def fold_pages(
        self, term: Term, upto: int, rows: Mapping[str, bytes], gone: Collection[str]
    ) -> None:
        with self._transaction() as db:
            self._check_term(db, term)
            # Without a page, a later request has folded more by now.
            if db.execute(SQL["remove_pages"], (self._namespace, upto)).rowcount:
                removed = [(self._namespace, entry) for entry in gone]
                db.executemany(SQL["forget_history"], removed)
                kept = [(self._namespace, *row) for row in rows.items()]
                db.executemany(SQL["keep_history"], kept)

    def read_notes(self, book: str) -> dict[str, bytes]:
        if not self._is_there():
            return {}
        with self._connection() as db:
            rows = db.execute(SQL["notes"], (self._namespace, book)).fetchall()
        return {str(name, "utf-8", "replace"): note for name, note in rows}

    def write_notes(
        self,
        book: str,
        notes: Mapping[str, bytes],
        gone: Collection[str] = (),
        term: Term | None = None,
    ) -> None:
        with self._transaction() as db:
            if term is not None:
                self._check_term(db, term)
            removed = [(self._namespace, book, name) for name in gone]
            db.executemany(SQL["forget_note"], removed)
            kept = [(self._namespace, book, *note) for note in notes.items()]
            db.executemany(SQL["keep_note"], kept)

    def _add_page(self, db: sqlite3.Connection, stored: bytes) -> None:
        db.execute(SQL["count_page"], (self._namespace,))
        db.execute(SQL["add_page"], (stored, self._namespace))
        db.execute(SQL["drop_pages"], (self._namespace, MOST_PAGES, self._namespace))

    def _pages(self, db: sqlite3.Connection, limit: int) -> list[Page]:
        rows = db.execute(SQL["pages"], (self._namespace, limit))
        return [Page(*row) for row in rows]

    def _check_term(self, db: sqlite3.Connection, term: Term) -> None:
        """Raise TermOver unless the lead is held under this term."""
        raise NotImplementedError("SQLiteLedger has the term")
