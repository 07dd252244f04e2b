"""The ledger as a stream of records: what each write adds, and what all of them give.

A record is one message of the stream, in JSON. What a ledger is follows from its
records in their order; a record that is read a second time changes nothing. A snapshot
is the whole ledger, as records again: whatever lies before it may be gone.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from beatd.brokers.items import MOST_PAGES, Term
from beatd.instant import Instant
from beatd.parts import in_parts
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import (
    NO_EDITION,
    LedgerCopy,
    Mark,
    edition_of,
    mark_of,
)
from beatd.timetable.pages import Page

AT_ONCE = 5000
"""Rows in one record of a snapshot."""


class Row(msgspec.Struct, array_like=True, frozen=True):
    """The ledger's row of one entry."""

    entry: str
    slot: Instant
    fingerprint: str
    runs: int
    last: Instant | None
    high: Instant | None

    @classmethod
    def of(cls, entry: str, mark: Mark) -> "Row":
        return cls(entry, *mark)

    @property
    def mark(self) -> Mark:
        return mark_of(self.slot, self.fingerprint, self.runs, self.last, self.high)


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One write. Only what it changes is in it."""

    term: int = 0
    """The number of the term under which it is written; 0: under none."""
    nonce: str = ""
    holder: str = ""
    """Who leads: in the record with which a term begins."""
    resigned: bool = False
    marker: str = ""
    """Of a process that reads up to here, and no further."""
    moved: Sequence[Row] = ()
    """Rows that an emission has moved on: the later slot wins."""
    rows: Sequence[Row] = ()
    """Rows that are set, whatever they were."""
    gone: Sequence[str] = ()
    era: int | None = None
    edition: tuple[str, int, str] | None = None
    runs: Mapping[str, str] = {}
    """By entry, the task id of its current run."""
    ended: Mapping[str, str] = {}
    page: int = 0
    """The number of the page of the history that is added."""
    told: bytes = b""
    """What that page says."""
    folded: int = 0
    """Pages up to this number are gone: what they told is in the history."""
    history: Mapping[str, bytes] = {}
    history_gone: Sequence[str] = ()
    book: str = ""
    notes: Mapping[str, bytes] = {}
    notes_gone: Sequence[str] = ()
    announced: tuple[str, bytes] | None = None
    """What the process emits that leads: the digest, and the entries."""
    is_whole: bool = False
    """Whether it is the last one of a snapshot."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encoded(record: Record) -> bytes:
    """Return a record as it lies in the stream."""
    return _encoder.encode(record)


def decoded(data: bytes) -> Record:
    """Return the record that a message of the stream is. Raises ValueError."""
    return _decoder.decode(data)


class Ledger:
    """What all records up to now give."""

    def __init__(self) -> None:
        self.term = Term(0, "")
        self.holder = ""
        self.last_resigned: Term | None = None
        self.marks: dict[str, Mark] = {}
        self.era = 0
        self.edition = NO_EDITION
        self.runs: dict[str, str] = {}
        self.page = 0
        self.pages: list[Page] = []
        self.history: dict[str, bytes] = {}
        self.notes: dict[str, dict[str, bytes]] = {}
        self.imprint: Imprint | None = None

    def copy(self) -> LedgerCopy:
        return LedgerCopy(dict(self.marks), self.era, self.edition)

    def apply(self, record: Record) -> None:
        """Take in one more record.

        Raises ValueError for one that has what is no mark or no edition; nothing of it
        is taken in then.
        """
        moved = [(row.entry, row.mark) for row in record.moved]
        rows = [(row.entry, row.mark) for row in record.rows]
        edition = edition_of(*record.edition) if record.edition else self.edition
        if 0 < record.term < self.term.number:
            # Of a part of a cluster that was cut off: what was emitted there, was.
            self._move(moved)
            return
        if record.term:
            self._begin(Term(record.term, record.nonce), record)
        for entry in record.gone:
            self.marks.pop(entry, None)
            self.runs.pop(entry, None)
        self._move(moved)
        self.marks.update(rows)
        self.era = self.era if record.era is None else record.era
        self.edition = edition
        self.runs.update(record.runs)
        for entry, run in record.ended.items():
            if self.runs.get(entry) == run:
                del self.runs[entry]
        self._tell(record)

    def _begin(self, term: Term, record: Record) -> None:
        if term != self.term:
            self.term, self.holder, self.imprint = term, "", None
        if record.holder:
            self.holder = record.holder
        if record.resigned:
            self.last_resigned = term
        if record.announced:
            self.imprint = Imprint(*record.announced)

    def _move(self, rows: Collection[tuple[str, Mark]]) -> None:
        for entry, mark in rows:
            known = self.marks.get(entry)
            if known is None or known.slot < mark.slot:
                self.marks[entry] = mark

    def _tell(self, record: Record) -> None:
        """Take in what concerns the history and the notes."""
        if record.page > self.page:
            self.page = record.page
            self.pages = [*self.pages, Page(record.page, record.told)][-MOST_PAGES:]
        if record.folded:
            self.pages = [page for page in self.pages if page.number > record.folded]
        for entry in record.history_gone:
            self.history.pop(entry, None)
        self.history.update(record.history)
        if record.book:
            before = self.notes.get(record.book, {})
            kept = {k: v for k, v in before.items() if k not in record.notes_gone}
            self.notes[record.book] = {**kept, **record.notes}

    def snapshot(self) -> Iterator[Record]:
        """Yield the records that give this ledger, whatever was before."""
        term = self.term
        head: dict[str, Any] = {"term": term.number, "nonce": term.nonce}
        for part in in_parts(self.marks.items(), AT_ONCE):
            yield Record(**head, rows=[Row.of(*one) for one in part])
        for rows in in_parts(self.history.items(), AT_ONCE):
            yield Record(**head, history=dict(rows))
        for book, notes in self.notes.items():
            yield Record(**head, book=book, notes=notes)
        for page in self.pages:
            yield Record(**head, page=page.number, told=page.stored)
        yield Record(
            **head,
            holder=self.holder,
            era=self.era,
            edition=(*self.edition,),
            runs=self.runs,
            announced=(*self.imprint,) if self.imprint else None,
            is_whole=True,
        )
