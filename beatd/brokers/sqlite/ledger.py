"""The ledger in SQLite: one step queues messages and moves the ledger on."""

import json
import sqlite3
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from operator import attrgetter
from pathlib import Path
from typing import Any

from beatd.brokers.current_runs import run_of
from beatd.brokers.items import (
    Emission,
    Emitted,
    Outcome,
    Refused,
    Term,
    idle,
    ledger_moved,
    stored_page,
)
from beatd.brokers.leases import LeaseWatch, WorkerLease
from beatd.brokers.oddities import Oddities
from beatd.brokers.sqlite.file import UNDONE, PartKnown, text, texts_as_bytes
from beatd.brokers.sqlite.history import SQLiteHistory
from beatd.brokers.sqlite.routes import Ways
from beatd.brokers.sqlite.statements import SQL, Row, write_rows
from beatd.clock import Clock
from beatd.errors import TermOver
from beatd.instant import Span
from beatd.storage.sqlite_file import ROW_REFUSALS
from beatd.timetable.ledger import (
    ERA_UNKNOWN,
    NO_EDITION,
    Edition,
    LedgerCopy,
    Mark,
    edition_of,
    is_count,
    mark_of,
    without_run,
)

_PARTS = attrgetter("entry", "mark", "route", "message", "run")


class SQLiteLedger(SQLiteHistory):
    """The port Emitter."""

    def __init__(
        self,
        path: Path,
        namespace: str,
        priority_steps: Sequence[int],
        busy_timeout: float,
        clock: Clock,
    ) -> None:
        super().__init__(path, namespace, busy_timeout, clock)
        self._leases = LeaseWatch()
        self._steps = sorted(priority_steps)
        self._oddities = Oddities()

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        with self._transaction() as db:
            self._check_term(db, term)
            if edition is not None:
                found = self._edition(db)
                if edition not in (found, found.following):
                    raise ledger_moved(edition)
                db.execute(SQL["set_edition"], (*edition, self._namespace))
            outcomes: list[Emitted]
            try:
                with self._savepoint(db):
                    outcomes = [*self._emit_all(db, batch)]
            except UNDONE:
                # Something in it is refused, or part of it known: each stands alone.
                outcomes = self._emit_each(db, batch)
            if stored := stored_page(outcomes, page):
                self._add_page(db, stored)
        self._rest.call()
        return outcomes

    def _emit_all(
        self, db: sqlite3.Connection, batch: Sequence[Emission]
    ) -> list[Outcome]:
        """Do all of them, or none when all are known.

        Raises PartKnown, to be undone, when only some of them are known.
        """
        ways = Ways(db, self._steps)
        outcomes: list[Outcome] = []
        marks: list[tuple[Row, str]] = []
        messages: list[tuple[Row, bytes]] = []
        runs: list[Row] = []
        advanced = 0
        last, row = None, ()
        for entry, mark, route, message, run in map(_PARTS, batch):
            places = ways.of(route) if route else ()
            if route and not places:
                # Its row says on what the rows before it, in this batch too, have said.
                advanced += write_rows(db, "advance", marks)
                marks = []
                mark = without_run(mark, self._mark_of(db, entry))
            if mark is not last:
                last, row = mark, (self._namespace, *mark)
            marks.append((row, entry))
            messages += [(place, message) for place in places]
            outcomes.append(Outcome.QUEUED if places else Outcome.DROPPED)
            if run and places:
                runs.append((self._namespace, entry, run))
        advanced += write_rows(db, "advance", marks)
        if not advanced:
            return [Outcome.KNOWN] * len(batch)
        if advanced < len(batch):
            raise PartKnown
        write_rows(db, "push", messages)
        db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", runs)
        return outcomes

    def _emit_each(
        self, db: sqlite3.Connection, batch: Sequence[Emission]
    ) -> list[Emitted]:
        """Do one emission after the other, and undo alone what is refused."""
        refused: dict[str, Refused] = {}
        outcomes: list[Emitted] = []
        for emission in batch:
            name = emission.entry
            if name in refused and not self._knows(db, emission):
                outcomes.append(refused[name])
                continue
            try:
                with self._savepoint(db):
                    outcomes += self._emit_all(db, [emission])
            except ROW_REFUSALS as error:
                refused[name] = Refused(self._reason(emission, error))
                outcomes.append(refused[name])
        return outcomes

    def _knows(self, db: sqlite3.Connection, emission: Emission) -> bool:
        """Return whether the ledger has the emission's slot or a later one."""
        sql = "SELECT 1 FROM ledger WHERE namespace = ? AND entry = ? AND slot >= ?"
        asked = (self._namespace, emission.entry, emission.mark.slot)
        return db.execute(sql, asked).fetchone() is not None

    def _reason(self, emission: Emission, error: Exception) -> str:
        route, size = emission.route, len(emission.message)
        where = repr(route.queue or route.exchange) if route else "no queue"
        return f"{self._path} refuses {size} bytes for {where}: {error}"

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        with self._connection() as db:
            db.execute("BEGIN")
            sql = "SELECT entry, slot, fingerprint, runs, last, high FROM ledger"
            with texts_as_bytes(db):
                rows = db.execute(f"{sql} WHERE namespace = ?", (self._namespace,))
                unreadable: list[str] = []
                marks = dict(self._marks(rows, unreadable))
            era, edition = self._era(db), self._edition(db)
            db.execute("COMMIT")
        return LedgerCopy(marks, era, edition, tuple(unreadable))

    def _mark_of(self, db: sqlite3.Connection, entry: str) -> Mark | None:
        """Return an entry's row, if it can be understood."""
        sql = "SELECT entry, slot, fingerprint, runs, last FROM ledger"
        with texts_as_bytes(db):
            asked = (self._namespace, entry)
            rows = db.execute(f"{sql} WHERE namespace = ? AND entry = ?", asked)
            return dict(self._marks(rows, [])).get(entry)

    def _marks(
        self, rows: Iterable[tuple[Any, ...]], unreadable: list[str]
    ) -> Iterator[tuple[str, Mark]]:
        """Yield the rows that can be understood; add the others to `unreadable`."""
        for entry, slot, fingerprint, *rest in rows:
            try:
                yield str(entry, "utf-8"), mark_of(slot, text(fingerprint), *rest)
            except (ValueError, TypeError):
                if isinstance(entry, bytes):
                    unreadable.append(str(entry, "utf-8", "replace"))
                words = "the ledger's row for %r is none of ours, and passed over: %r"
                self._oddities.tell("ledger.unreadable", words, entry, slot)

    def write_ledger(
        self,
        term: Term,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        forget = "DELETE FROM {} WHERE namespace = ? AND entry = ?"
        set_era = "UPDATE lead SET era = ? WHERE namespace = ?"
        with self._transaction() as db:
            self._check_term(db, term)
            removed = [(self._namespace, entry) for entry in gone]
            for table in ("ledger", "runs"):
                db.executemany(forget.format(table), removed)
            rows = [(self._namespace, entry, *mark) for entry, mark in marks.items()]
            db.executemany(SQL["set_mark"], rows)
            db.execute(set_era, (era, self._namespace))
            if edition is not None:
                db.execute(SQL["set_edition"], (*edition, self._namespace))
            if page:
                self._add_page(db, b" " + page)

    def running(self, entries: Collection[str]) -> dict[str, str]:
        sql = "SELECT CAST(run AS BLOB) FROM runs WHERE namespace = ? AND entry = ?"
        with self._connection() as db:
            found = {
                entry: db.execute(sql, (self._namespace, entry)).fetchone()
                for entry in entries
            }
        return {
            entry: str(row[0], "utf-8", "replace")
            for entry, row in found.items()
            if row
        }

    def end_runs(self, runs: Mapping[str, str]) -> None:
        with self._transaction() as db:
            self._end_runs(db, runs.items())

    def held_runs(self, runs: Collection[str]) -> set[str]:
        if not runs:
            return set()
        with self._connection() as db:
            dead = json.dumps([one.worker for one in self._leases_run_out(db)])
            held = {run for _, run in _runs_of(db.execute(SQL["leased"], (dead,)))}
        return held & set(runs)

    def _leases_run_out(self, db: sqlite3.Connection) -> list[WorkerLease]:
        """Return the leases of workers that are dead, in the order of their ends."""
        now = self._clock.elapsed()
        leases = [WorkerLease(*row) for row in db.execute(SQL["leases"], (now,))]
        leases.sort(key=lambda one: (one.ends, one.worker))
        return self._leases.run_out(leases, now, now, now)

    # The term

    def _term(self, db: sqlite3.Connection) -> Term:
        sql = "SELECT number, nonce FROM lead WHERE namespace = ?"
        row = db.execute(sql, (self._namespace,)).fetchone()
        if not row:
            return Term(0, "")
        if is_count(row[0]):
            return Term(*row)
        words = "the term of the namespace %r is no number, and passed over: %r"
        self._oddities.tell("term.unreadable", words, self._namespace, row[0])
        return Term(0, "")

    def _check_term(self, db: sqlite3.Connection, term: Term) -> None:
        if not term.nonce or self._term(db) != term:
            raise TermOver(f"term {term.number} is over: someone else may lead")

    def _era(self, db: sqlite3.Connection) -> int:
        sql = "SELECT era FROM lead WHERE namespace = ?"
        row = db.execute(sql, (self._namespace,)).fetchone()
        if not row:
            return 0
        if is_count(row[0]):
            return row[0]
        words = "the clock era of the namespace %r is no number, and passed over: %r"
        self._oddities.tell("era.unreadable", words, self._namespace, row[0])
        return ERA_UNKNOWN

    def _edition(self, db: sqlite3.Connection) -> Edition:
        row = db.execute(SQL["edition"], (self._namespace,)).fetchone()
        try:
            return edition_of(*row) if row else NO_EDITION
        except ValueError:
            words = "the edition of the namespace %r counts as none, it is none: %r"
            self._oddities.tell("edition.unreadable", words, self._namespace, row)
            return NO_EDITION

    def _end_runs_of(self, db: sqlite3.Connection, messages: Iterable[Row]) -> None:
        """Forget the runs that these messages are for."""
        self._end_runs(db, _runs_of(messages))

    def _end_runs(
        self, db: sqlite3.Connection, runs: Collection[tuple[str, str]]
    ) -> None:
        sql = "DELETE FROM runs WHERE namespace = ? AND entry = ? AND run = ?"
        db.executemany(sql, [(self._namespace, *run) for run in runs])


def _runs_of(messages: Iterable[Row]) -> list[tuple[str, str]]:
    """Return entry and task id of each message that an entry sent."""
    return [run for (message,) in messages if (run := run_of(message))]
