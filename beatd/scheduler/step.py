"""What one turn of the scheduler's loop does, and how far the broker has done it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

from beatd.brokers.items import ENOUGH, Emission, Emitted, Outcome, Refused, Term
from beatd.instant import Instant
from beatd.scheduler.run_ends import IDLE, Busy
from beatd.timetable.entry import Due
from beatd.timetable.policy import Decision, Drop

BATCH = 1000
"""The most emissions in one request: the broker serves no other client meanwhile."""


Slot: TypeAlias = tuple[str, Instant]
"""An entry and a slot, which name an emission."""


@dataclass
class Step:
    """Decisions, and the emissions they ask for.

    The broker has answered for the first `sent` emissions.
    """

    decided: Sequence[tuple[Due, Decision]]
    emissions: list[Emission]
    busy: Busy = IDLE
    sent: int = 0
    asked_under: Term | None = None
    """The term of a request whose answer was lost: it may yet arrive."""
    surprises: list[Emission] = field(default_factory=list)
    """First sendings that the broker knew: somebody else has emitted them."""
    refused: dict[str, tuple[Instant, str]] = field(default_factory=dict)
    """By entry, the first slot that was refused, by the broker or by the task's own
    code, and why: later ones of the entry are not done either."""
    drops: dict[Slot, list[tuple[Drop, int]]] = field(default_factory=dict)
    """By the slot with whose emission they go, drops and their numbers of slots."""
    moved: set[Slot] = field(default_factory=set)
    """Slots of emissions that do nothing but drop."""
    unrouted: dict[str, list[Instant]] = field(default_factory=dict)
    """By entry, the slots whose messages reached no queue: they are dropped."""

    def next_part(self) -> Sequence[Emission]:
        """Return the emissions of the next request, bounded in number and in bytes."""
        part = self.emissions[self.sent : self.sent + BATCH]
        if sum(len(emission.message) for emission in part) <= ENOUGH:
            return part
        sizes = accumulate(len(emission.message) for emission in part)
        fitting = sum(1 for size in sizes if size <= ENOUGH)
        return part[: max(fitting, 1)]

    def note(self, emissions: Sequence[Emission], outcomes: Sequence[Emitted]) -> None:
        """Note what the broker answered for these, of what was not expected."""
        first, self.asked_under = self.asked_under is None, None
        if first and Outcome.KNOWN in outcomes:
            pairs = zip(emissions, outcomes, strict=True)
            self.surprises += [
                one for one, outcome in pairs if outcome is Outcome.KNOWN
            ]
        if Refused not in map(type, outcomes) and Outcome.DROPPED not in outcomes:
            return
        for emission, outcome in zip(emissions, outcomes, strict=True):
            slot = emission.mark.slot
            if isinstance(outcome, Refused):
                self.refuse(emission.entry, slot, outcome.reason)
            elif outcome is Outcome.DROPPED and emission.route is not None:
                self.unrouted.setdefault(emission.entry, []).append(slot)

    def refuse(self, entry: str, slot: Instant, reason: str) -> None:
        """Note that a slot is refused, unless an earlier one of the entry is."""
        self.refused.setdefault(entry, (slot, reason))

    def answered(self) -> Iterator[tuple[Due, Decision]]:
        """Yield the decisions; an entry that was not done as decided is there alone."""
        for due, decision in self.decided:
            for part in due.apart(self.refused, self.unrouted):
                yield part, decision

    def carried_out(self) -> Sequence[tuple[Due, Decision]]:
        """Return the decisions that the broker has carried out as they were."""
        if not self.refused and not self.unrouted:
            return self.decided
        odd = self.refused.keys() | self.unrouted.keys()
        return [pair for pair in self.answered() if pair[0].entry.name not in odd]

    def is_open(self, emission: Emission) -> bool:
        """Return whether neither this emission nor one before it was refused."""
        refusal = self.refused.get(emission.entry)
        return refusal is None or emission.mark.slot < refusal[0]
