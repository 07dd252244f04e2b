"""Whether the schedulers of one broker go by the same entries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from beatd.brokers.base import Lead
from beatd.brokers.items import Term
from beatd.clock import Clock
from beatd.errors import BrokerRefused
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.parts import in_parts
from beatd.timetable.entry import Entry
from beatd.timetable.imprint import Imprint, compare, imprint_of, in_words, trace_of

tell = EventLog(__name__)

LOOK: Span = 5 * SECOND
"""How often a standby asks whether the leader goes by other entries than before."""

_AT_ONCE = 10_000
"""Entries to go through in one part."""


@dataclass
class Configs:
    """Announces the entries of who leads, and compares them with those of a standby."""

    lead: Lead
    clock: Clock
    problem: str = field(default="", init=False)
    """What nobody emits, as another config leads; empty if all is well."""
    _entries: Mapping[str, Entry] | None = field(default=None, init=False)
    _imprint: Imprint = field(default=Imprint(""), init=False)
    """That of `_entries`."""
    _compared: str = field(default="", init=False)
    """The digest of the leader's entries that were compared last."""
    _look_at: Span = field(default=0, init=False)

    @property
    def digest(self) -> str:
        """The digest of the entries that were announced or compared last."""
        return self._imprint.digest

    def announce(self, term: Term, entries: Mapping[str, Entry]) -> Iterator[None]:
        """Tell standbys what this process emits; yield between parts of the work.

        Raises TermOver and BrokerUnavailable.
        """
        yield from self._use(entries)
        try:
            self.lead.announce(term, self._imprint)
        except BrokerRefused as refusal:
            # It is for people only: what it may keep from being emitted is nothing.
            words = "other schedulers cannot tell whether theirs are the same entries"
            tell.warning("configs.untold", f"{words}: %s", refusal)
        if self.problem:
            self.problem = ""
            words = "this scheduler leads now: what differed is emitted by its entries"
            tell.warning("configs.agree", words)
        self._compared = ""

    def compare(self, entries: Mapping[str, Entry]) -> None:
        """Compare the entries with the leader's, if these or those may be others.

        Raises BrokerUnavailable.
        """
        if entries is self._entries and self.clock.elapsed() < self._look_at:
            return
        if entries is not self._entries:
            self._compared = ""
            for _ in self._use(entries):
                pass
        self._look_at = self.clock.elapsed() + LOOK
        try:
            theirs = self.lead.announced(unless=self._compared)
        except BrokerRefused:
            return  # who leads could not write it, and has said so
        if theirs is None:
            return
        differs = theirs.digest != self._imprint.digest
        self._note(in_words(compare(entries, theirs)) if differs else "")
        self._compared = theirs.digest

    def _use(self, entries: Mapping[str, Entry]) -> Iterator[None]:
        """Make the imprint of these entries, once for each config."""
        if entries is self._entries:
            return
        traces: list[bytes] = []
        for part in in_parts(entries.values(), _AT_ONCE):
            yield
            traces += map(trace_of, part)
        self._entries, self._imprint = entries, imprint_of(traces)

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
