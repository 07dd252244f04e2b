"""Entries whose emission the broker refuses: said once, tried again and again."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from beatd.background import Backoff
from beatd.clock import Clock
from beatd.event_log import EventLog, stamp
from beatd.instant import MINUTE, SECOND, Instant, Span
from beatd.text import counted
from beatd.timetable.pages import Record, Told, What

tell = EventLog(__name__)

FIRST, LAST = SECOND, MINUTE
"""The shortest and the longest rest before an entry is tried again."""


@dataclass(slots=True)
class _Refusal:
    """One entry's refusals since its last emission that was accepted."""

    slot: Instant
    """The first slot that was refused."""
    reason: str
    since: Span
    tries: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST, LAST))


class Refusals:
    """The entries that are refused just now; nothing is refused for ever.

    They are kept in memory only: whoever leads next finds them anew.
    """

    def __init__(self, clock: Clock, on_end: Callable[[Told], object]) -> None:
        """`on_end` is called with what the history has to know of one that is over."""
        self._clock = clock
        self._on_end = on_end
        self.changed = False
        """Whether entries came or went since this was last set to False."""
        self._refusals: dict[str, _Refusal] = {}

    def __bool__(self) -> bool:
        return bool(self._refusals)

    def reasons(self) -> dict[str, str]:
        """Return by entry why its emission is refused."""
        return {name: refusal.reason for name, refusal in self._refusals.items()}

    def meet(self, entry: str, slot: Instant, reason: str) -> Span:
        """Take note of a refusal; return how long to rest before the next try."""
        refusal = self._refusals.get(entry)
        if refusal is None:
            refusal = _Refusal(slot, reason, self._clock.elapsed())
            self._refusals[entry] = refusal
            self.changed = True
            tell.error(
                "emit.refused",
                "%s is refused for %s: %s; its slots stay due and are tried again"
                " until that is mended there, or the entry is changed",
                entry,
                stamp(slot),
                reason,
                entry=entry,
                slot=slot,
            )
        refusal.tries += 1
        refusal.reason = reason
        return refusal.backoff.lengthen()

    def end(self, entry: str, now: Instant) -> None:
        """Take note that the broker accepts the entry; do nothing if it did before."""
        refusal = self._refusals.pop(entry, None)
        if refusal is not None:
            self.changed = True
            late = now - refusal.slot
            record = Record(refusal.slot, late, What.REFUSED, why=refusal.reason)
            self._on_end((entry, record))
            tell.warning(
                "emit.accepted",
                "%s is accepted again, after %.1f s and %s",
                entry,
                (self._clock.elapsed() - refusal.since) / SECOND,
                counted(refusal.tries, "try"),
                entry=entry,
            )

    def forget(self, entry: str) -> None:
        """Forget an entry that is not to be emitted any more."""
        if self._refusals.pop(entry, None):
            self.changed = True

    def keep(self, entries: Container[str]) -> None:
        """Forget all but these entries."""
        self.changed = bool(self._refusals)  # a term began, or ended, without a word
        self._refusals = {
            name: one for name, one in self._refusals.items() if name in entries
        }
