"""Whether the schedulers of one broker go by the same entries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from beatd.brokers.base import Lead
from beatd.brokers.items import Term
from beatd.clock import Clock
from beatd.errors import BrokerRefused
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.scheduler.ledger_file import LedgerFile
from beatd.timetable.entry import Entry
from beatd.timetable.imprint import Imprint, compare, imprint_of, in_words, trace_of

tell = EventLog(__name__)

LOOK: Span = 5 * SECOND
"""How often a standby asks whether the leader goes by other entries than before."""

_AT_ONCE = 1000
"""Entries to go through in one part: what comes due meanwhile waits for its end."""


@dataclass
class Configs:
    """Announces the entries of who leads, and compares them with those of a standby.

    That is for people, and goes behind all that is due.
    """

    lead: Lead
    file: LedgerFile
    clock: Clock
    problem: str = field(default="", init=False)
    """What nobody emits, as another config leads; empty if all is well."""
    _is_announced: bool = field(default=False, init=False)
    """Whether this term's announcement is made."""
    _entries: Mapping[str, Entry] | None = field(default=None, init=False)
    """The entries of which the imprint is made, or is in the making."""
    _left: Iterator[Entry] = field(default=iter(()), init=False)
    """Those of them that are yet to be gone through."""
    _traces: list[bytes] = field(default_factory=list, init=False)
    _imprint: Imprint | None = field(default=None, init=False)
    """That of `_entries`, once it is made."""
    _looked_for: Mapping[str, Entry] | None = field(default=None, init=False)
    """The entries that were compared last, or would have been."""
    _compared: str = field(default="", init=False)
    """The digest of the leader's entries that were compared last."""
    _look_at: Span = field(default=0, init=False)

    @property
    def digest(self) -> str:
        """The digest of the entries; empty while that is in the making."""
        return self._imprint.digest if self._imprint else ""

    def begin_term(self) -> None:
        """Note that standbys are to be told anew what this process emits."""
        self._is_announced = False

    def announce(self, term: Term, entries: Mapping[str, Entry]) -> bool:
        """Tell standbys, and who reads the file, what this process emits, once a term.

        Each call does a part of the work; return whether all is done. Raises TermOver
        and BrokerUnavailable.
        """
        if self._is_announced:
            return True
        imprint = self._use(entries)
        if imprint is None:
            return False
        try:
            self.lead.announce(term, imprint)
        except BrokerRefused as refusal:
            # It is for people only: what it may keep from being emitted is nothing.
            words = "other schedulers cannot tell whether theirs are the same entries"
            tell.warning("configs.untold", f"{words}: %s", refusal)
        self.file.note_config(imprint.digest)
        if self.problem:
            self.problem = ""
            words = "this scheduler leads now: what differed is emitted by its entries"
            tell.warning("configs.agree", words)
        self._compared = ""
        self._is_announced = True
        return True

    def agree(self, holder: str, entries: Mapping[str, Entry]) -> bool:
        """Compare the entries with the leader's, if these or those may be others.

        Tells the broker that `holder` stands by with them. Return whether they are
        found to be the same now. Raises BrokerUnavailable.
        """
        if entries is not self._looked_for:
            self._looked_for, self._compared = entries, ""
        elif self.clock.elapsed() < self._look_at:
            return False
        self._look_at = self.clock.elapsed() + LOOK
        while (ours := self._use(entries)) is None:
            pass
        try:
            theirs = self.lead.stand_by(holder, ours.digest, unless=self._compared)
        except BrokerRefused:
            return False  # who leads could not write it, and has said so
        if theirs is None:
            return False
        differs = theirs.digest != ours.digest
        self._note(in_words(compare(entries, theirs)) if differs else "")
        self._compared = theirs.digest
        return not differs

    def _use(self, entries: Mapping[str, Entry]) -> Imprint | None:
        """Make a part of the imprint of these entries; return it once it is whole."""
        if entries is not self._entries:
            self._entries, self._left = entries, iter(entries.values())
            self._traces, self._imprint = [], None
        if self._imprint is None:
            part = [trace_of(entry) for entry in islice(self._left, _AT_ONCE)]
            self._traces += part
            if len(part) < _AT_ONCE:
                self._imprint, self._traces = imprint_of(self._traces), []
        return self._imprint

    def _note(self, problem: str) -> None:
        """Say a difference when it begins, becomes another, and ends."""
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            tell.warning(
                "configs.differ",
                "the scheduler that leads (%s) goes by other entries: %s; if a new"
                " version is being rolled out, wait until it is everywhere; if these"
                " are two projects, give each a beat_namespace of its own",
                self.lead.leader() or "another",
                problem,
            )
        else:
            words = "the scheduler that leads (%s) goes by the same entries again"
            tell.warning("configs.agree", words, self.lead.leader() or "another")
