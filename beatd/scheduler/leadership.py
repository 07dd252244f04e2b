"""Which process may emit: taking the lead, holding it, giving it back in time."""

from collections.abc import Callable
from dataclasses import dataclass, field

from beatd.background import Backoff, Service
from beatd.brokers.base import Lead
from beatd.brokers.items import HeldLead, Term
from beatd.clock import Clock
from beatd.errors import BrokerRefused, BrokerUnavailable, TermOver
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.timetable.ledger import NO_EDITION, Edition

tell = EventLog(__name__)

STANDBY_LOOK: Span = SECOND // 4
"""How often a standby asks for the lead; one that is given back wakes it at once."""

_WATCH: Span = 5 * SECOND


@dataclass
class Leadership:
    """Holds the lead of one broker for this process, while it can.

    `hold` returns a term only while, by this process's own monotonic clock, the lock in
    the broker cannot have run out. The broker checks the term of each request as well.
    """

    lead: Lead
    clock: Clock
    holder: str
    ttl: Span
    term: Term | None = field(default=None, init=False)
    told: Edition = field(default=NO_EDITION, init=False)
    """What the ledger of the process that leads instead is at, or was at the most."""
    heard: Edition = field(default=NO_EDITION, init=False)
    """What that ledger was at when last asked: lower, if data were set back."""
    _doubted: Term | None = field(default=None, init=False)
    """A term of this process that must not be used any more, to be given back."""
    _safe_until: Span = field(default=0, init=False)
    _renew_at: Span = field(default=0, init=False)
    _other: Term | None = field(default=None, init=False)
    """The last term of another process that this one was told of."""
    _other_until: Span = field(default=0, init=False)
    """How long that term was to last at least."""
    _cut_short: Term | None = field(default=None, init=False)
    """That term, if it was not to end yet when this process took the lead."""

    def hold(self, floor: int) -> Term | None:
        """Return the term under which this process leads; None while it stands by.

        A new term's number is above `floor`. Raises BrokerUnavailable when the lead is
        to be taken or renewed, and the broker does not answer.
        """
        asked = self.clock.elapsed()
        if self.term is None:
            if self._doubted is not None:
                self.lead.resign(self._doubted)
                self._doubted = None
            answer = self.lead.acquire(self.holder, self.ttl, floor)
            if isinstance(answer, Term):
                self.term = answer
                tell.info("lead.taken", "leading, term %d", answer.number)
                self.renewed(asked)
                # The request may have been under way while that lead ran out.
                is_early = self.clock.elapsed() < self._other_until
                self._cut_short = self._other if is_early else None
            else:
                self._hear(answer, asked)
        elif asked >= self._renew_at:
            self._renew(self.term, asked)
        return self.term

    @property
    def other(self) -> Term | None:
        """The last term of another process that this one was told of."""
        return self._other

    def keep(self, term: Term) -> None:
        """Renew the lead, if it is time, in the midst of work that takes long.

        Raises TermOver when this process does not lead under `term` any more, and
        BrokerUnavailable.
        """
        asked = self.clock.elapsed()
        if self.term == term and asked >= self._renew_at:
            self._renew(term, asked)
        if self.term != term:
            raise TermOver(f"term {term.number} is over: someone else may lead")

    def renewed(self, asked: Span) -> None:
        """Note that a request made at `asked` renewed the lead."""
        self._renew_at = asked + self.ttl // 3
        # The broker counts from a later instant than `asked`: this is the safe side.
        self._safe_until = asked + self.ttl

    def lose(self) -> None:
        """Note that the term is over, or may be."""
        if self.term is not None:
            self.term = None
            tell.warning("lead.lost", "lost the lead, asking for it again")

    def doubt(self) -> None:
        """Lead under a new term only: a request of the old one may arrive late."""
        self._doubted, self.term = self.term, None

    def resign(self) -> None:
        """Give the lead back; do nothing if this process does not have it.

        Raises BrokerUnavailable; the lock then runs out by itself.
        """
        term, self.term, self._doubted = self.term or self._doubted, None, None
        if term is not None:
            self.lead.resign(term)
            tell.info("lead.resigned", "gave the lead back")

    def let_go(self) -> None:
        """Give the lead up without a request to the broker."""
        self.term = self._doubted = None
        self.lead.let_go()

    def leader(self) -> str:
        """Return the name of the process that leads, for people; empty for none."""
        return self.lead.leader() or ""

    def watch(self, wake: Callable[[], object]) -> Service:
        """Return a service that calls `wake` whenever the lead is given back."""
        backoff = Backoff()
        said = ""

        def step() -> Span:
            nonlocal said
            try:
                if self.lead.await_release(_WATCH):
                    wake()
            except BrokerRefused as error:
                if said != str(error):
                    said = str(error)
                    words = "not told when the lead is given back, asking for it: %s"
                    tell.warning("lead.unheard", words, error)
                return backoff.lengthen()
            except BrokerUnavailable:
                # The scheduler logs that; asking again at once would be of no use.
                return backoff.lengthen()
            backoff.reset()
            return 0

        return Service(step)

    def came_early(self) -> bool:
        """Return whether the lead before this one ended sooner than it could.

        It was neither given back nor has it run out: the broker's data were set back.
        Raises BrokerUnavailable.
        """
        other = self._cut_short
        return other is not None and self.lead.last_resigned() != other

    def _hear(self, held: HeldLead, asked: Span) -> None:
        """Note what is known of the process that leads."""
        self.heard = held.edition
        is_later = self.told.version <= held.edition.version
        if is_later or held.edition.lineage not in ("", self.told.lineage):
            self.told = held.edition
        if held.term != self._other:
            self._other, self._other_until = held.term, 0
        # The broker counts from a later instant than `asked`.
        self._other_until = max(self._other_until, asked + held.left)

    def _renew(self, term: Term, asked: Span) -> None:
        try:
            kept = self.lead.renew(term, self.ttl)
        except BrokerUnavailable:
            if asked >= self._safe_until:
                self.lose()
            raise
        if kept:
            self.renewed(asked)
        else:
            self.lose()
