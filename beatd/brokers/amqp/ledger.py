"""The lead and the ledger in RabbitMQ: an exclusive queue, and a stream.

The queue lives as long as the connection that has declared it, and nobody else can
declare it meanwhile. Messages and records go over that connection alone, and what it
had under way when it died is dropped by the server with it: the connection is the
fence, and a term never outlives it.
"""

import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import amqp
from amqp import exceptions as faults

from beatd.brokers.amqp import stream
from beatd.brokers.amqp.line import Line
from beatd.brokers.amqp.records import Ledger, Record, Row, encoded
from beatd.brokers.amqp.stream import Confirmed, Reader
from beatd.brokers.items import (
    Emission,
    Emitted,
    HeldLead,
    Outcome,
    Term,
    idle,
    ledger_moved,
    stored_page,
)
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable, TermOver
from beatd.instant import Instant, Span
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import Edition, LedgerCopy, Mark, without_run
from beatd.timetable.pages import Page


class StreamLedger:
    """The lead of one namespace, and the ledger that goes with it."""

    lead_outlives_data = True
    """Who leads has the connection: a server that lost its data has closed it."""

    def __init__(self, lead: Line, look: Line, watch: Line, name: str, clock: Clock):
        """`lead` is opened to lead, and closed to stop; nobody else opens it."""
        self._line = lead
        self._look = look
        self._watch_line = watch
        self._queue = f"beatd.lead.{name}"
        self._stream = f"beatd.ledger.{name}"
        self._released = f"beatd.{name}.released"
        self._clock = clock
        self._reader = Reader(look, self._stream)
        self._writer: Confirmed | None = None
        self._term: Term | None = None
        self._number = 0
        """Of the connection that holds the lead under that term."""
        self._taken = 0
        """Of the connection that has the queue, before a term begins as well."""
        self._state = threading.RLock()
        """Taken before a line is, by whoever needs both."""
        self._heard = (0, False)
        """By which connection releases are heard, and whether one was."""

    @property
    def ledger(self) -> Ledger:
        return self._reader.ledger

    # Lead

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        with self._state, self._line.connected() as connection:
            self._line.refuse_if_blocked()
            if not (self._is_free(connection) and self._take(connection)):
                return HeldLead(self.ledger.edition, self.ledger.term, 0)
            self._term = None
            self._reader.read(idle)
            term = Term(max(self.ledger.term.number, floor) + 1, secrets.token_hex(8))
            self._term, self._number = term, self._line.number
            try:
                self._append(Record(term=term.number, nonce=term.nonce, holder=holder))
            except BaseException:  # whatever it was, no term has begun
                self._term = None
                raise
            return term

    def _is_free(self, connection: Any) -> bool:
        """Return whether the lead's queue is not there, or is this connection's.

        A message to it is dropped there, or comes back if there is no queue. To try to
        declare it would be an error, and a line in the server's log each time.
        """
        if self._taken == self._line.number:
            return True
        writer = self._confirmed(connection)
        writer.returned.clear()
        writer.write("", amqp.Message(b""), "", self._queue, mandatory=True)
        writer.await_all()
        return bool(writer.returned)

    def _take(self, connection: Any) -> bool:
        try:
            with self._line.channel(connection) as channel:
                channel.queue_declare(
                    self._queue,
                    exclusive=True,
                    auto_delete=False,
                    arguments={"x-max-length": 0},
                )
        except faults.ResourceLocked:
            return False
        self._taken = self._line.number
        return True

    def renew(self, term: Term, ttl: Span) -> bool:
        return self._holds(term)

    def _holds(self, term: Term) -> bool:
        return (
            term == self._term
            and self._line.is_open
            and self._line.number == self._number
        )

    def resign(self, term: Term) -> None:
        if not self._holds(term):
            return
        with self._under(term) as connection:
            self._append(Record(**_head(term), resigned=True))
            with self._line.channel(connection) as channel:
                channel.queue_delete(self._queue)
                self._taken = 0
                channel.exchange_declare(self._released, "fanout", auto_delete=False)
                channel.basic_publish(amqp.Message(b""), self._released)
            self._term = None

    def let_go(self) -> None:
        """The server takes the queue away with the connection."""
        self._term = None
        self._line.close()
        self._watch_line.close()

    def last_resigned(self) -> Term | None:
        with self._state:
            return self.ledger.last_resigned

    def time(self) -> Instant:
        """Return this host's time: the server tells none."""
        return self._clock.now()

    def leader(self) -> str | None:
        with self._state:
            if self._term and self._holds(self._term):
                return self.ledger.holder
        with self._look.connected() as connection:
            self._look.refuse_if_blocked()
            probe = Confirmed(self._look, connection)
            probe.write("", amqp.Message(b""), "", self._queue, mandatory=True)
            probe.await_all()
            probe.close()
            if probe.returned:
                return None
        self._refresh(idle)
        return self.ledger.holder

    def announce(self, term: Term, imprint: Imprint) -> None:
        with self._under(term):
            self._append(Record(**_head(term), announced=(*imprint,)))

    def announced(self, unless: str = "") -> Imprint | None:
        self._refresh(idle)
        return self._imprint(unless)

    def stand_by(self, holder: str, digest: str, unless: str = "") -> Imprint | None:
        """Return what was announced when the ledger was read last.

        That somebody stands by is not told: each telling would lie in the stream.
        """
        return self._imprint(unless)

    def _imprint(self, unless: str) -> Imprint | None:
        with self._state:
            imprint = self.ledger.imprint
            return imprint if imprint and imprint.digest != unless else None

    def await_release(self, timeout: Span) -> bool:
        line = self._watch_line
        with line.connected() as connection:
            if self._heard[0] != line.number:
                channel = connection.channel()
                channel.exchange_declare(self._released, "fanout", auto_delete=False)
                name = channel.queue_declare(exclusive=True, auto_delete=True).queue
                channel.queue_bind(name, self._released)
                channel.basic_consume(name, no_ack=True, callback=self._on_released)
                self._heard = line.number, False
            line.await_until(connection, lambda: self._heard[1], timeout)
            was_released, self._heard = self._heard[1], (line.number, False)
            return was_released

    def _on_released(self, message: Any) -> None:
        self._heard = self._heard[0], True

    # The ledger

    def known(
        self, term: Term, batch: Sequence[Emission], edition: Edition | None
    ) -> list[bool]:
        with self._under(term):
            current = self.ledger.edition
            if edition is not None and edition not in (current, current.following):
                raise ledger_moved(edition)
            marks = self.ledger.marks
            rows = [marks.get(one.entry) for one in batch]
            return [
                row is not None and row.slot >= one.mark.slot
                for row, one in zip(rows, batch, strict=True)
            ]

    def note(
        self,
        term: Term,
        batch: Sequence[Emission],
        outcomes: Sequence[Emitted],
        edition: Edition | None,
        page: bytes,
    ) -> None:
        with self._under(term):
            moved, runs = [], {}
            for one, outcome in zip(batch, outcomes, strict=True):
                if outcome is Outcome.QUEUED or outcome is Outcome.DROPPED:
                    mark = one.mark
                    if outcome is Outcome.DROPPED and one.route is not None:
                        mark = without_run(mark, self.ledger.marks.get(one.entry))
                    elif one.run:
                        runs[one.entry] = one.run
                    moved.append(Row.of(one.entry, mark))
            stored = stored_page(outcomes, page)
            self._append(
                Record(
                    **_head(term),
                    moved=moved,
                    runs=runs,
                    edition=(*edition,) if edition else None,
                    **(self._page(stored) if stored else {}),
                )
            )

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        self._refresh(on_part)
        with self._state:
            return self.ledger.copy()

    def write_ledger(
        self,
        term: Term,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        with self._under(term):
            self._append(
                Record(
                    **_head(term),
                    rows=[Row.of(*one) for one in marks.items()],
                    gone=[*gone],
                    era=era,
                    edition=(*edition,) if edition else None,
                    **(self._page(b" " + page) if page else {}),
                )
            )

    def running(self, entries: Collection[str]) -> dict[str, str]:
        with self._state:
            runs = self.ledger.runs
            return {name: runs[name] for name in entries if name in runs}

    def end_runs(self, runs: Mapping[str, str]) -> None:
        term = self._term
        if runs and term and self._holds(term):
            with self._under(term):
                self._append(Record(**_head(term), ended=runs))

    def held_runs(self, runs: Collection[str]) -> set[str]:
        """Return none: the workers there hold no leases."""
        return set()

    # The history, and notes

    def read_history(self) -> tuple[dict[str, bytes], list[Page]]:
        self._refresh(idle)
        with self._state:
            return dict(self.ledger.history), self.ledger.pages[:]

    def read_pages(self, limit: int) -> list[Page]:
        self._refresh(idle)
        with self._state:
            return self.ledger.pages[:limit]

    def fold_pages(
        self, term: Term, upto: int, rows: Mapping[str, bytes], gone: Collection[str]
    ) -> None:
        with self._under(term):
            if any(page.number <= upto for page in self.ledger.pages):
                self._append(
                    Record(
                        **_head(term), folded=upto, history=rows, history_gone=[*gone]
                    )
                )

    def read_notes(self, book: str) -> dict[str, bytes]:
        """Return the notes, those of others as well: anybody may write them."""
        with self._state:
            leads = self._term is not None and self._holds(self._term)
            self._reader.read(idle, self._term if leads else None)
            return dict(self.ledger.notes.get(book, {}))

    def write_notes(
        self,
        book: str,
        notes: Mapping[str, bytes],
        gone: Collection[str] = (),
        term: Term | None = None,
    ) -> None:
        record = Record(book=book, notes=notes, notes_gone=[*gone])
        ours = term or self._term
        if term or (ours and self._holds(ours)):
            assert ours is not None  # it is one of both
            with self._under(ours):
                self._append(record)
            return
        with self._state, self._look.connected() as connection:
            self._look.refuse_if_blocked()
            with self._look.channel(connection) as channel:
                stream.declare(channel, self._stream)
            writer = Confirmed(self._look, connection)
            writer.write("", _message(record), "", self._stream, mandatory=True)
            writer.await_all()
            writer.close()

    # Reading and writing the stream

    def _refresh(self, on_part: Callable[[], object]) -> None:
        """Read what others have written; who leads has written all there is."""
        with self._state:
            if not (self._term and self._holds(self._term)):
                self._reader.read(on_part)

    @contextmanager
    def _under(self, term: Term) -> Iterator[Any]:
        """Lend the connection of the lead. Raises TermOver if it is not held."""
        with self._state:
            if term != self._term:
                raise TermOver(f"term {term.number} is over: someone else may lead")
            with self._line.same(self._number) as connection:
                self._line.refuse_if_blocked()
                yield connection

    def _page(self, stored: bytes) -> dict[str, Any]:
        return {"page": self.ledger.page + 1, "told": stored}

    def _confirmed(self, connection: Any) -> Confirmed:
        """Return the channel for records, of this connection."""
        writer = self._writer
        if writer is None or writer.number != self._line.number or not writer.is_open:
            writer = self._writer = Confirmed(self._line, connection)
        return writer

    def _append(self, record: Record) -> None:
        """Write a record under the term, and take it in."""
        self._write(record)
        self.ledger.apply(record)
        if self._reader.bytes > stream.SNAPSHOT_AFTER:
            for part in self.ledger.snapshot():
                self._write(part)
            self._reader.bytes = 0

    def _write(self, record: Record) -> None:
        with self._line.same(self._number) as connection:
            writer = self._confirmed(connection)
            writer.returned.clear()
            writer.refused.clear()
            message = _message(record)
            writer.write("", message, "", self._stream, mandatory=True)
            writer.await_all()
            if writer.refused:
                place = self._line.address.place
                raise BrokerUnavailable(f"{place}: refuses a record of the ledger")
            if writer.returned:
                # Somebody has deleted it: it is founded anew, from what is known here.
                with self._line.channel(connection) as channel:
                    stream.declare(channel, self._stream)
                for part in self.ledger.snapshot():
                    writer.write("", _message(part), "", self._stream, mandatory=True)
                writer.write("", message, "", self._stream, mandatory=True)
                writer.await_all()
                self._reader.forget()
            self._reader.bytes += len(message.body)


def _head(term: Term) -> dict[str, Any]:
    return {"term": term.number, "nonce": term.nonce}


def _message(record: Record) -> Any:
    return amqp.Message(encoded(record), delivery_mode=2)
