"""Runs that have ended while the result back end is away: they do not stop the pool."""

import threading
from collections.abc import Callable, Collection, Sequence

from beatd.event_log import EventLog
from beatd.results.base import Stored
from beatd.runs.report import Bookkeeping
from beatd.worker.settlement import Continue, Settlement

tell = EventLog(__name__)

MOST_RUNS = 10_000
MOST_BYTES = 64 * 1024 * 1024
"""What may wait for the result back end without a place in the prefetch window."""


class Unkept:
    """The deliveries that wait for a result back end that is away.

    They stay in flight, under the worker's lease, and have no place in the prefetch
    window: so the worker goes on with others. The places of no more than MOST_RUNS of
    them are made free, with no more than MOST_BYTES; what waits beyond that keeps its
    place, and in the end the worker waits with it.

    Invariant: each delivery here has no place in the window, and is not settled.
    """

    def __init__(self, free: Callable[[Collection[str]], object]) -> None:
        """`free` is called with deliveries that are to have no place any more."""
        self._free = free
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._is_full = False
        self._lock = threading.Lock()

    def add(self, ended: Sequence[Settlement]) -> None:
        """Make the places of these free, in order, as far as the bounds allow.

        Called before any of them is settled; those that are here already are passed by.
        """
        with self._lock:
            freed = [one.token for one in ended if self._add(one)]
        if freed:
            self._free(freed)

    def settled(self, tokens: Collection[str]) -> int:
        """Forget deliveries that are settled; return how many of them were here."""
        if not self._sizes:
            return 0
        with self._lock:
            sizes = [self._sizes.pop(one) for one in tokens if one in self._sizes]
            self._bytes -= sum(sizes)
            self._is_full = self._is_full and bool(self._sizes)
        return len(sizes)

    def _add(self, one: Settlement) -> bool:
        if one.token in self._sizes or isinstance(one.act, Continue):
            return False
        size = _size(one)
        if len(self._sizes) >= MOST_RUNS or self._bytes + size > MOST_BYTES:
            self._say_full()
            return False
        self._sizes[one.token] = size
        self._bytes += size
        return True

    def _say_full(self) -> None:
        if self._is_full:
            return
        self._is_full = True
        tell.warning(
            "results.full",
            "%d runs (%.1f MiB) wait for the result back end, and no more may: the"
            " worker takes only what its prefetch window still has places for, until"
            " the back end answers",
            len(self._sizes),
            self._bytes / 2**20,
            runs=len(self._sizes),
            bytes=self._bytes,
        )


def _size(one: Settlement) -> int:
    """Return the bytes of what waits: the result, the message, and what follows."""
    held = [outgoing.message for outgoing in one.all_sends]
    if one.act.delivery:
        held.append(one.act.delivery.message)
    if isinstance(one.kept, Stored):
        held.append(one.kept.data)
    if isinstance(one.end, Bookkeeping):
        held += [stored.data for stored in one.end.stored]
        held += [part.data for part in one.end.parts]
    return sum(map(len, held))
