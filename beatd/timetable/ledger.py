"""The ledger: which slot of each entry was emitted last, and how copies of it agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from beatd.instant import Instant


class Mark(NamedTuple):
    """The ledger's row for one entry.

    Every slot up to and including `slot` was emitted, dropped with a reason, or lies
    before the entry was first seen.
    """

    slot: Instant
    fingerprint: str
    """Stands for schedule and bounds: when these change, the entry counts from then."""
    runs: int = 0
    """How many slots were emitted."""
    last: Instant | None = None
    """The last slot that was emitted; users see it as last_run_at."""


@dataclass(frozen=True, slots=True)
class LedgerCopy:
    """The whole ledger, as it was read."""

    marks: Mapping[str, Mark]
    era: int
    """The clock era, part of every computed task id: grows with each rewind.

    A rewind moves marks that lie in the future back to now: the clock was set back.
    """


def merge(*copies: LedgerCopy) -> LedgerCopy:
    """Return one ledger made of several: the larger slot wins, entry by entry.

    A copy of an older clock era is left out: its slots may lie beyond a rewind.
    """
    era = max(copy.era for copy in copies)
    marks: dict[str, Mark] = {}
    for copy in copies:
        if copy.era == era:
            for name, mark in copy.marks.items():
                if name not in marks or mark.slot > marks[name].slot:
                    marks[name] = mark
    return LedgerCopy(marks, era)
