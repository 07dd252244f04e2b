"""Every slot that a schedule names in a stretch of time, and what became of it."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from beatd.instant import MINUTE, Instant
from beatd.schedules.base import slots_between
from beatd.schedules.interval import EveryFromLast, EveryRounded
from beatd.timetable.entry import Entry
from beatd.timetable.history import Past
from beatd.timetable.ledger import Mark
from beatd.timetable.pages import Record, What


class Account(StrEnum):
    """What is known of a slot."""

    SENT = "sent"
    DROPPED = "dropped"
    UNCERTAIN = "uncertain"  # sent, and the broker lost that: run or not
    UNKNOWN = "unknown"  # the history does not reach there
    WAITING = "waiting"  # it has come, and nothing is decided of it yet
    MISSING = "missing"  # the ledger is past it, and nobody knows of it


WAITS_LONG = MINUTE
"""After this time a slot that waits is a problem."""


class Accounted(NamedTuple):
    """One slot, and what is known of it."""

    slot: Instant
    account: Account
    record: Record | None = None


_OF = {
    What.SENT: Account.SENT,
    What.DROPPED: Account.DROPPED,
    What.UNCERTAIN: Account.UNCERTAIN,
}


class Audit:
    """Looks up the slots of one entry in its history.

    `lost` has from which slot to which the history has lost records, `mark` is the
    ledger's row for the entry, read before the history.
    """

    def __init__(
        self,
        entry: Entry,
        mark: Mark | None,
        past: Past,
        lost: Sequence[tuple[Instant, Instant]] = (),
    ) -> None:
        self._entry = entry
        self._mark = mark
        self._past = past
        self._lost = lost
        told = [one for one in past.records if one.what in _OF]
        self._single = {one.slot: one for one in told if one.last is None}
        # A sent slot may become uncertain, or be sent again: the last word counts.
        ranges = [one for one in told if one.last is not None]
        self._ranges = sorted(ranges, key=lambda one: one.slot)
        self._starts = [one.slot for one in self._ranges]

    @property
    def begins(self) -> Instant | None:
        """The instant from which the present schedule counts, if that is known."""
        began = [one for one in self._past.records if one.what is What.BEGAN]
        return began[-1].slot if began else None

    def slots(self, begin: Instant, end: Instant, now: Instant) -> Iterator[Accounted]:
        """Yield each slot from `begin` to `end` that has come by `now`, in order."""
        entry, policy = self._entry, self._entry.policy
        begin = max(begin, (self.begins or begin - 1) + 1, policy.start or begin)
        end = min(end, now - entry.offset, policy.end or end)
        first = self._first(begin)
        if first is None or first > end:
            return
        for slot in slots_between(entry.schedule, first, end):
            found = self._account(slot)
            if found is None:
                return
            yield found

    def _first(self, begin: Instant) -> Instant | None:
        """Return the first slot from `begin` on, if it is known."""
        schedule = self._entry.schedule
        if not isinstance(schedule, EveryFromLast | EveryRounded):
            return schedule.next_after(begin - 1)
        # Its slots follow from those before.
        before = [one.reach for one in self._past.records if one.reach < begin]
        if not before:
            after = [one.slot for one in self._past.records if one.what in _OF]
            return min(after, default=None)
        slot = max(before)
        while slot < begin:
            slot = schedule.next_after(slot)
        return slot

    def _account(self, slot: Instant) -> Accounted | None:
        """Return what is known of a slot; None if the entry was over before it."""
        record = self._single.get(slot) or self._dropped(slot)
        if record is not None:
            return Accounted(slot, _OF[record.what], record)
        if self._mark is None or slot > self._mark.slot:
            runs = self._mark.runs if self._mark else 0
            if self._entry.policy.is_over(slot, runs):
                return None
            return Accounted(slot, Account.WAITING)
        is_lost = any(first <= slot <= last for first, last in self._lost)
        if slot <= self._past.since or is_lost:
            return Accounted(slot, Account.UNKNOWN)
        return Accounted(slot, Account.MISSING)

    def _dropped(self, slot: Instant) -> Record | None:
        """Return the record of slots that were dropped together, if it is of them."""
        at = bisect_right(self._starts, slot)
        # Ranges may overlap where a clock was set back: a few are looked at.
        for one in reversed(self._ranges[max(0, at - 10) : at]):
            if slot <= one.reach:
                return one
        return None
