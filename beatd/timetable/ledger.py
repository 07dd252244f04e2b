"""The ledger: which slot of each entry was emitted last, and how copies of it agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from beatd.instant import EARLIEST, LATEST, Instant


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


LARGEST = 2**48
"""No count, no clock era and no number of a term is as large as this."""


def mark_of(slot: object, fingerprint: object, runs: object, last: object) -> Mark:
    """Return the mark that a stored row means. Raises ValueError for what is none."""
    if (
        isinstance(slot, int)
        and EARLIEST <= slot <= LATEST
        and isinstance(fingerprint, str)
        and is_count(runs)
        and (last is None or (isinstance(last, int) and EARLIEST <= last <= LATEST))
    ):
        return Mark(slot, fingerprint, runs, last)
    raise ValueError(f"no mark: {slot!r}, {fingerprint!r}, {runs!r}, {last!r}")


def is_count(stored: object) -> TypeGuard[int]:
    """Return whether a stored value is a number that may count something."""
    return isinstance(stored, int) and 0 <= stored < LARGEST


ERA_UNKNOWN = -1
"""Stands for a clock era that is stored, and cannot be understood."""


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

    A copy of an older clock era is left out: its slots may lie beyond a rewind. One
    whose era is not known counts as one of the latest.
    """
    era = max(copy.era for copy in copies)
    marks: dict[str, Mark] = {}
    for copy in copies:
        if copy.era in (era, ERA_UNKNOWN):
            for name, mark in copy.marks.items():
                if name not in marks or mark.slot > marks[name].slot:
                    marks[name] = mark
    return LedgerCopy(marks, era)
