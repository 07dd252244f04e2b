"""Lead and ledger in memory: the exactly-once argument in its shortest form.

A message is queued, and the ledger moves on, in one step under the lock. The step is
only done for the holder of the lead, and only for slots that the ledger does not know.
So a request whose answer was lost may be made again; and a leader that was paused
while another process took over queues nothing.
"""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from beatd.brokers.current_runs import run_of
from beatd.brokers.items import (
    MOST_PAGES,
    Emission,
    Emitted,
    HeldLead,
    Outcome,
    Outgoing,
    Promise,
    Refused,
    Term,
    idle,
    ledger_moved,
    stored_page,
)
from beatd.clock import Clock, SystemClock
from beatd.errors import TermOver
from beatd.instant import SECOND, Instant, Span
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import NO_EDITION, Edition, LedgerCopy, Mark, without_run
from beatd.timetable.pages import Page


class MemoryLead:
    """The ports Lead and Emitter, under one lock that guards the queues as well."""

    promise = Promise.EXACTLY_ONCE
    lead_outlives_data = False

    def __init__(
        self,
        clock: Clock | None = None,
        nonces: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """`nonces` draws the random part of each term."""
        self._clock = clock or SystemClock()
        self._nonces = nonces
        self._changed = threading.Condition(threading.RLock())
        self._term = Term(0, "")
        self._holder = ""
        self._announced = self._term, Imprint("")
        self._standbys: dict[str, tuple[str, Span]] = {}
        """By name, the digest of each, and when it was heard."""
        self._lead_ends: Span = 0
        """By the monotonic clock: one that is set neither ends a lead nor keeps it."""
        self._last_resigned: Term | None = None
        self._resigned = 0
        """How often the lead was given back."""
        self._ledger: dict[str, Mark] = {}
        self._era = 0
        self._edition = NO_EDITION
        self._runs: dict[str, str] = {}
        """By entry with an overlap rule, the task id of its current run."""
        self._page = 0
        """The number of the last page of the history."""
        self._pages: list[Page] = []
        self._notes: dict[str, dict[str, bytes]] = {}
        self._rows: dict[str, bytes] = {}

    # Lead

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        with self._changed:
            if self._is_held():
                left = self._lead_ends - self._clock.elapsed()
                return HeldLead(self._edition, self._term, left)
            number = max(self._term.number, floor) + 1
            self._term = Term(number, self._nonces())
            self._holder = holder
            self._lead_ends = self._clock.elapsed() + ttl
            return self._term

    def renew(self, term: Term, ttl: Span) -> bool:
        with self._changed:
            if not self._is_held_under(term):
                return False
            self._lead_ends = self._clock.elapsed() + ttl
            return True

    def resign(self, term: Term) -> None:
        with self._changed:
            if self._is_held_under(term):
                self._lead_ends = 0
                self._last_resigned = term
                self._resigned += 1
                self._changed.notify_all()

    def last_resigned(self) -> Term | None:
        with self._changed:
            return self._last_resigned

    def let_go(self) -> None:
        """Leave the lead to run out."""

    def time(self) -> Instant:
        return self._clock.now()

    def leader(self) -> str | None:
        with self._changed:
            return self._holder if self._is_held() else None

    def announce(self, term: Term, imprint: Imprint) -> None:
        with self._changed:
            self._check_term(term)
            self._announced = term, imprint

    def announced(self, unless: str = "") -> Imprint | None:
        with self._changed:
            term, imprint = self._announced
            is_new = self._is_held_under(term) and imprint.digest != unless
            return imprint if is_new else None

    def stand_by(self, holder: str, digest: str, unless: str = "") -> Imprint | None:
        with self._changed:
            self._standbys[holder] = digest, self._clock.elapsed()
            return self.announced(unless)

    def await_release(self, timeout: Span) -> bool:
        with self._changed:
            held, resigned = self._is_held(), self._resigned
            return self._wait(
                lambda: self._resigned > resigned or (held and not self._is_held()),
                lambda: self._lead_ends - self._clock.elapsed() if held else timeout,
                timeout,
            )

    def _is_held(self) -> bool:
        return self._clock.elapsed() < self._lead_ends

    def _is_held_under(self, term: Term) -> bool:
        return self._is_held() and term == self._term

    def _check_term(self, term: Term) -> None:
        """Raise TermOver unless the lead is held under this term."""
        if not self._is_held_under(term):
            raise TermOver(f"term {term.number} is over: someone else may lead")

    # Emitter

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        with self._changed:
            self._check_term(term)
            if edition is not None:
                if edition not in (self._edition, self._edition.following):
                    raise ledger_moved(edition)
                self._edition = edition
            self._lead_ends = self._clock.elapsed() + ttl
            refused: dict[str, Refused] = {}
            outcomes = [self._emit(emission, refused) for emission in batch]
            if stored := stored_page(outcomes, page):
                self._add_page(stored)
            return outcomes

    def _emit(self, emission: Emission, refused: dict[str, Refused]) -> Emitted:
        """Do one emission; `refused` has the entries that may not go on."""
        row = self._ledger.get(emission.entry)
        if row is not None and row.slot >= emission.mark.slot:
            return Outcome.KNOWN
        if emission.entry in refused:
            return refused[emission.entry]
        if emission.route is not None:
            outgoing = Outgoing(emission.route, emission.message)
            if reason := self._refusal(outgoing):
                return refused.setdefault(emission.entry, Refused(reason))
        self._ledger[emission.entry] = emission.mark
        if emission.route is None:
            return Outcome.DROPPED
        if not self._put(Outgoing(emission.route, emission.message)):
            self._ledger[emission.entry] = without_run(emission.mark, row)
            return Outcome.DROPPED
        if emission.run:
            self._runs[emission.entry] = emission.run
        return Outcome.QUEUED

    def _refusal(self, outgoing: Outgoing) -> str:
        """Return why a queue of the route refuses the message; empty if none does."""
        raise NotImplementedError("MemoryBroker has the queues")

    def _put(self, outgoing: Outgoing) -> bool:
        """Put the message on every queue of its route; False if it reached none."""
        raise NotImplementedError("MemoryBroker has the queues")

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        with self._changed:
            return LedgerCopy(dict(self._ledger), self._era, self._edition)

    def write_ledger(
        self,
        term: Term,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        with self._changed:
            self._check_term(term)
            for entry in gone:
                self._ledger.pop(entry, None)
                self._runs.pop(entry, None)
            self._ledger.update(marks)
            self._era = era
            self._edition = edition or self._edition
            if page:
                self._add_page(b" " + page)

    def running(self, entries: Collection[str]) -> dict[str, str]:
        with self._changed:
            return {name: self._runs[name] for name in entries if name in self._runs}

    def end_runs(self, runs: Mapping[str, str]) -> None:
        with self._changed:
            for entry, run in runs.items():
                if self._runs.get(entry) == run:
                    del self._runs[entry]

    def _end_runs_of(self, messages: Iterable[bytes]) -> None:
        """Forget the runs that these messages are for."""
        for message in messages:
            if self._runs and (run := run_of(message)):
                self.end_runs(dict([run]))

    # HistoryKeeper

    def read_history(self) -> tuple[dict[str, bytes], list[Page]]:
        with self._changed:
            return dict(self._rows), self._pages[:]

    def read_pages(self, limit: int) -> list[Page]:
        with self._changed:
            return self._pages[:limit]

    def fold_pages(
        self, term: Term, upto: int, rows: Mapping[str, bytes], gone: Collection[str]
    ) -> None:
        with self._changed:
            self._check_term(term)
            left = [page for page in self._pages if page.number > upto]
            if len(left) < len(self._pages):
                for entry in gone:
                    self._rows.pop(entry, None)
                self._rows.update(rows)
                self._pages = left

    def read_notes(self, book: str) -> dict[str, bytes]:
        with self._changed:
            return dict(self._notes.get(book, {}))

    def write_notes(
        self,
        book: str,
        notes: Mapping[str, bytes],
        gone: Collection[str] = (),
        term: Term | None = None,
    ) -> None:
        with self._changed:
            if term is not None:
                self._check_term(term)
            before = self._notes.get(book, {})
            kept = {name: note for name, note in before.items() if name not in gone}
            self._notes = {**self._notes, book: {**kept, **notes}}

    def _add_page(self, stored: bytes) -> None:
        self._page += 1
        self._pages = [*self._pages, Page(self._page, stored)][-MOST_PAGES:]

    # Waiting

    def _wait(
        self,
        done: Callable[[], bool],
        look_again: Callable[[], Span],
        timeout: Span,
    ) -> bool:
        """Wait until `done` is true; return False after `timeout`.

        `done` is called after each change, and after the times that `look_again` gives.
        """
        end = self._clock.elapsed() + timeout
        with self._changed:
            while not done():
                left = end - self._clock.elapsed()
                if left <= 0:
                    return False
                nap = min(left, max(1, look_again()))
                self._changed.wait(nap / SECOND)
            return True
