"""The lead in SQLite: a kernel lock beside the file, and the term in it."""

import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from beatd.brokers.items import STANDBY_LASTS, HeldLead, Promise, Term
from beatd.brokers.sqlite.ledger import SQLiteLedger
from beatd.brokers.sqlite.statements import SQL
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable
from beatd.instant import SECOND, Instant, Span
from beatd.storage.file_lock import FileLock
from beatd.timetable.imprint import Imprint

RELEASE_LOOK: Span = 50
"""How often a standby looks whether the kernel lock is free."""


class SQLiteLead(SQLiteLedger):
    """The port Lead.

    The lead is a kernel lock beside the file: it has no time to live, and a leader
    that is only stopped keeps it.
    """

    promise = Promise.EXACTLY_ONCE
    lead_outlives_data = True

    def __init__(
        self,
        path: Path,
        namespace: str,
        priority_steps: Sequence[int],
        busy_timeout: float,
        clock: Clock,
    ) -> None:
        super().__init__(path, namespace, priority_steps, busy_timeout, clock)
        # Beside the file itself: each link to it would have a lock of its own, and
        # their holders would take the lead from each other for ever.
        file = path.resolve()
        lock = f"{file.name}.{quote(namespace, safe='')}.lock"
        self._lock = FileLock(file.with_name(lock))
        self._led: Term | None = None
        self._was_held = False
        """Whether somebody held the lock when it was last looked at."""

    # Lead

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        if not self._take_lock(holder):
            self._was_held = True
            with self._connection() as db:
                return HeldLead(self._edition(db), self._term(db), left=0)
        try:
            self._led = self._begin_term(floor)
        except BaseException:  # whatever it is, it goes on up
            if self._led is None:
                self._lock.unlock()
            raise
        return self._led

    def renew(self, term: Term, ttl: Span) -> bool:
        with self._connection() as db:
            return self._lock.holds() and self._term(db) == term

    def resign(self, term: Term) -> None:
        if term != self._led:
            return
        try:
            with self._transaction() as db:
                if self._term(db) == term:
                    self._set_term(db, Term(term.number, ""))
        finally:
            # Also after an error of the database: this lock has no time to live.
            self.let_go()

    def last_resigned(self) -> Term | None:
        return None  # nobody needs it: the lock outlives the data

    def let_go(self) -> None:
        self._led = None
        self._lock.unlock()

    def time(self) -> Instant:
        return self._clock.now()

    def leader(self) -> str | None:
        return None if self._lock_is_free() else self._lock.holder()

    def announce(self, term: Term, imprint: Imprint) -> None:
        with self._transaction() as db:
            self._check_term(db, term)
            db.execute(SQL["announce"], (self._namespace, term.nonce, *imprint))

    def announced(self, unless: str = "") -> Imprint | None:
        if self._lock_is_free():
            return None
        with self._connection() as db:
            asked = (self._namespace, self._term(db).nonce, unless)
            row = db.execute(SQL["announced"], asked).fetchone()
        return Imprint(*row) if row else None

    def stand_by(self, holder: str, digest: str, unless: str = "") -> Imprint | None:
        if self._lock_is_free():
            return None
        # If it cannot be written, people do not see this one, and all else goes on.
        with suppress(BrokerUnavailable):
            self._mark_standby(holder, digest)
        return self.announced(unless)

    def _mark_standby(self, holder: str, digest: str) -> None:
        now = self._clock.elapsed()
        with self._transaction() as db:
            # A clock that shows less is that of an earlier start of the machine.
            over = "DELETE FROM standbys WHERE heard NOT BETWEEN ? AND ?"
            db.execute(over, (now - STANDBY_LASTS, now))
            mark = (self._namespace, holder, digest, now)
            db.execute("INSERT OR REPLACE INTO standbys VALUES (?, ?, ?, ?)", mark)

    def await_release(self, timeout: Span) -> bool:
        end = self._clock.elapsed() + timeout
        while True:
            was_held, self._was_held = self._was_held, not self._lock_is_free()
            if was_held and not self._was_held:
                return True
            left = end - self._clock.elapsed()
            if left <= 0 or self._closed.wait(min(left, RELEASE_LOOK) / SECOND):
                return False

    # The lock and the term

    def _take_lock(self, holder: str) -> bool:
        try:
            return self._lock.try_lock(holder)
        except OSError as error:
            raise self._refused(error) from error

    def _lock_is_free(self) -> bool:
        try:
            return self._lock.is_free()
        except OSError as error:
            raise self._refused(error) from error

    def _begin_term(self, floor: int) -> Term:
        with self._transaction() as db:
            number = max(self._term(db).number, floor) + 1
            term = Term(number, secrets.token_hex(8))
            self._set_term(db, term)
        return term

    def _set_term(self, db: sqlite3.Connection, term: Term) -> None:
        db.execute(SQL["set_term"], (self._namespace, *term))

    def close(self) -> None:
        self._lock.unlock()
        super().close()
