"""Counts operations, for tests of what things cost.

Costs are counted, not timed: a machine that is busy counts the same.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from beatd.brokers.items import Emission, Emitted, Term
from beatd.instant import Span
from beatd.timetable.ledger import Edition
from tests.fakes import FakeClock, FakeFile, FlakyBroker

ROUND_TRIP = "AbstractConnection.send_packed_command"
"""What redis-py calls once for each command, or pipeline, that it sends."""


class Calls(Counter[str]):
    """How often each function was called in this thread, by its qualified name.

    Functions in C are there by theirs, with the type of what they belong to:
    "Encoder.encode", "list.append".
    """

    def of(self, *words: str) -> int:
        """Return the calls of functions that have one of the words in their name."""
        return sum(
            number
            for name, number in self.items()
            if any(word in name for word in words)
        )


@contextmanager
def calls() -> Iterator[Calls]:
    """Count all calls in this thread for the block's time."""
    counted = Calls()

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            counted[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            counted[called.__qualname__] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield counted
    finally:
        sys.setprofile(before)


class CountingBroker(FlakyBroker):
    """A broker in memory that notes how many emissions each request has."""

    def __init__(self, clock: FakeClock, journal: list[str]) -> None:
        super().__init__(clock)
        self.journal = journal

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        self.journal.append(f"emit {len(batch)}")
        return super().emit(term, batch, ttl, edition, page)


class CountingFile(FakeFile):
    """A schedule file in memory that notes when it is written."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.journal = journal

    def flush(self) -> None:
        self.journal.append("flush")
