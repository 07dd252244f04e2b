"""Messages in one place and the ledger in another, where no step writes both.

Messages first, all of them confirmed, and then the rows. Whoever dies between the two
has emitted slots that the ledger does not have: the next leader emits them again, under
the same ids. The other way round they would be lost, and nobody could tell.
"""

from collections.abc import Sequence

from beatd.brokers.base import Publisher, SplitLedger
from beatd.brokers.items import Emission, Emitted, Outcome, Refused, Term
from beatd.errors import TermOver
from beatd.instant import Span
from beatd.timetable.ledger import Edition


class Split:
    """Emits at least once: `Emitter.emit` for brokers without the atomic step."""

    def __init__(self, messages: Publisher, ledger: SplitLedger) -> None:
        self._messages = messages
        self._ledger = ledger

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        if not self._ledger.renew(term, ttl):
            raise TermOver(f"term {term.number} is over: someone else may lead")
        known = self._ledger.known(term, batch, edition)
        to_send = [
            emission
            for emission, is_known in zip(batch, known, strict=True)
            if not is_known and emission.route is not None
        ]
        answers = iter(self._messages.publish(to_send) if to_send else ())
        outcomes: list[Emitted] = []
        refused: dict[str, Refused] = {}
        done: list[Emission] = []
        for emission, is_known in zip(batch, known, strict=True):
            outcome: Emitted = Outcome.KNOWN if is_known else Outcome.DROPPED
            if not is_known and emission.route is not None:
                outcome = next(answers)
                if isinstance(outcome, Refused):
                    refused.setdefault(emission.entry, outcome)
                    done.append(emission)
            if not is_known and emission.entry in refused:
                # Confirmed, maybe, but the row must not pass what was refused: it is
                # remembered, and not sent again.
                outcome = refused[emission.entry]
            else:
                done.append(emission)
            outcomes.append(outcome)
        # A process that dies here has emitted the batch, and nobody knows.
        self._ledger.note(term, batch, outcomes, edition, page)
        self._messages.forget(done)
        return outcomes
