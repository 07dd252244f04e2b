"""How a term begins, and what a standby keeps ready for that."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeVar

from beatd.brokers.base import Emitter, Term
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable, TermOver
from beatd.event_log import EventLog
from beatd.instant import MINUTE, Instant, Span
from beatd.routing import Queue
from beatd.scheduler.leadership import Leadership
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import LedgerCopy, Mark, merge
from beatd.timetable.timetable import CLOCK_TOLERANCE, Timetable

tell = EventLog(__name__)

AT_ONCE = 10_000
"""Entries to place, or rows to write, in one part."""

DECLARED_AT_ONCE = 10
"""Queues in one part: each may cost a round trip to the broker."""

REFRESH: Span = MINUTE
"""How often a standby reads the leader's ledger, in case the broker loses it."""

REFRESH_SHARE = 100
"""A standby spends at most one part in this many of its time on that reading."""

_T = TypeVar("_T")


class LedgerFile(Protocol):
    """The schedule file as the scheduler uses it.

    No method raises for a file that cannot be used just now: the file logs that once,
    keeps in memory what was recorded, and tries again.
    """

    def try_lock(self) -> bool:
        """Lock the file for this process; return False while another one has it."""
        ...

    def unlock(self) -> None:
        """Let other processes take the file."""
        ...

    def read(self) -> LedgerCopy:
        """Return the ledger as it was last written."""
        ...

    def highest_term(self) -> int:
        """Return the largest term number seen."""
        ...

    def rewrite(
        self, marks: Mapping[str, Mark], gone: Collection[str], era: int, term: int
    ) -> None:
        """Write what makes the file agree with this ledger, era and term, at once."""
        ...

    def record(
        self, marks: Mapping[str, Mark], dropped: Mapping[tuple[str, str], int]
    ) -> None:
        """Have the next flush write these rows, and add to the counts of drops."""
        ...

    def note_refused(self, refused: Mapping[str, str]) -> None:
        """Have the next flush write which entries the broker refuses, and why."""
        ...

    def flush(self) -> None:
        """Write what was recorded, in one transaction."""
        ...


@dataclass
class Takeover:
    """Begins terms: makes one ledger of all copies, and places every entry by it.

    The copies are the broker's, the schedule file's, and one in memory: what this
    process emitted itself, or saw of another leader's ledger while it stood by. The
    copy in memory is needed when the broker loses its data as the leader dies.

    The timetable only ever holds marks that are in the broker's ledger or are about to
    be written there, so that what an earlier term left in the timetable may be merged
    in a later one.
    """

    entries: Mapping[str, Entry]
    timetable: Timetable
    leadership: Leadership
    broker: Emitter
    file: LedgerFile
    clock: Clock
    keep: Collection[str] = ()
    """Names of entries that cannot be read now: their ledger rows stay."""
    queues: Collection[Queue] = ()
    """The queues that the config declares."""
    declare: Callable[[Collection[Queue]], object] = lambda queues: None
    """Makes queues known to the broker; called with a part of them at a time."""
    on_declared: Callable[[], object] = lambda: None
    """Called when the broker knows all queues."""

    era: int = field(default=0, init=False)
    """The clock era: part of the ids of all that is emitted."""
    _seen: LedgerCopy | None = field(default=None, init=False)
    """The ledger of another leader, as this process read it last while standing by."""
    _refresh_at: Span = field(default=0, init=False)
    _aside_until: Span | None = field(default=None, init=False)
    """While it lasts, the lead of an emptied broker is left to the former leader."""

    def replace(
        self,
        entries: Mapping[str, Entry],
        keep: Collection[str],
        queues: Collection[Queue],
    ) -> None:
        """Use another config from the next term on."""
        self.entries, self.keep, self.queues = entries, keep, queues

    # While another process leads

    @property
    def refresh_is_due(self) -> bool:
        """Whether the copy of the leader's ledger is missing, or has become old."""
        return self.clock.elapsed() >= self._refresh_at

    def refresh(self) -> None:
        """Copy the leader's ledger: the broker may lose it when the leader dies."""
        asked = self.clock.elapsed()
        seen = self.broker.read_ledger()
        took = self.clock.elapsed() - asked
        self._refresh_at = asked + max(REFRESH, REFRESH_SHARE * took)
        # If it is empty, the broker has lost it: the earlier copy is what is left.
        if seen.marks:
            self._seen, self._aside_until = seen, None

    @property
    def is_aside(self) -> bool:
        """Whether this process must not ask for the lead now, even if it is free."""
        until = self._aside_until
        return until is not None and self.clock.elapsed() < until

    # When a term begins

    def begin(
        self, term: Term, now: Instant, on_part: Callable[[], object]
    ) -> Iterator[None]:
        """Merge all ledgers, place every entry, write what differs, declare the queues.

        With large ledgers this takes longer than a lead lives. After each part the
        generator yields, so that the caller can renew the lead, and goes on only while
        it has the lead; within a part, the broker calls `on_part` for the same purpose.
        Nothing may be emitted before the end: a term left half-way must begin anew.

        Raises TermOver and BrokerUnavailable.
        """
        self.file.try_lock()
        file = self.file.read()
        yield
        broker = self.broker.read_ledger(on_part)
        yield
        if self._seen and not broker.marks:
            self._step_aside()
        # What was seen of another leader's term is newer than what an earlier term of
        # this process left.
        ours = self._seen or LedgerCopy(self.timetable.marks(), self.era)
        merged = merge(broker, file, ours)
        yield
        yield from self._place(merged.marks, now)
        rewound = len(self.timetable.rewind(now, CLOCK_TOLERANCE))
        yield
        era = merged.era + bool(rewound)
        marks = self.timetable.marks()
        changed = {
            name: mark for name, mark in marks.items() if broker.marks.get(name) != mark
        }
        gone = {*broker.marks, *file.marks} - marks.keys() - set(self.keep)
        yield from self._write_ledger(term, changed, gone, era)
        # Only now that the broker has it: with an era that the broker does not know,
        # a later merge would leave out what other processes emit after this one.
        self.era = era
        self._seen = self._aside_until = None
        if rewound:
            _log_rewound(rewound, era)
        yield from self._declare()
        self.file.rewrite(marks, gone, era, term.number)
        yield

    def _step_aside(self) -> None:
        """Give the lead of an emptied broker back, once, for as long as a lead lives.

        The former leader knows all that it emitted, this process only what it saw of
        that. If the former leader is gone, this process takes the lead again after that
        time. Raises TermOver.
        """
        if self._aside_until is not None:
            return
        self._aside_until = self.clock.elapsed() + self.leadership.ttl
        tell.warning(
            "lead.aside",
            "the broker has lost its ledger: the former leader is to lead again",
        )
        self.leadership.resign()
        raise TermOver("the lead was left to the former leader")

    def _place(self, marks: Mapping[str, Mark], now: Instant) -> Iterator[None]:
        """Make the timetable hold every entry, each where its mark says."""
        for name in self.timetable.marks().keys() - self.entries.keys():
            self.timetable.remove(name)
        for part in _parts(self.entries.values(), AT_ONCE):
            self.timetable.place(part, marks, now)
            yield

    def _write_ledger(
        self, term: Term, changed: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> Iterator[None]:
        """Make the broker's ledger agree with the timetable."""
        self._write(term, {}, gone, era)
        for part in _parts(changed.items(), AT_ONCE):
            yield
            self._write(term, dict(part), (), era)
        yield

    def _write(
        self, term: Term, changed: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        try:
            self.broker.write_ledger(term, changed, gone, era)
        except BrokerUnavailable:
            # The request may yet arrive. It would then set back the rows of what is
            # emitted meanwhile under this term.
            self.leadership.doubt()
            raise

    def _declare(self) -> Iterator[None]:
        for part in _parts(self.queues, DECLARED_AT_ONCE):
            self.declare(part)
            yield
        self.on_declared()
        yield


def _parts(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _log_rewound(number: int, era: int) -> None:
    tell.warning(
        "clock.rewound",
        "the clock was set back: %d entries go on from now, clock era %d",
        number,
        era,
    )
