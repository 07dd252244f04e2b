"""What to do with slots that have come: emit, drop for a reason, or hold."""

from collections.abc import Collection
from enum import StrEnum
from functools import lru_cache
from itertools import islice

import msgspec
from msgspec.structs import replace

from beatd.instant import Instant
from beatd.schedules.base import Schedule, slots_between
from beatd.timetable.entry import Due, Overlap
from beatd.timetable.ledger import Mark

CATCHUP_STEP = 100
"""The most slots of one entry in one decision, so that other entries get their turn."""


class Reason(StrEnum):
    """Why a slot was dropped on purpose."""

    COALESCED = "coalesced"  # a later slot of the same entry took its place
    MISFIRE = "misfire"  # found later than misfire_grace_time
    OVERLAP = "overlap"  # the previous run had not ended
    PAUSED = "paused"  # the entry is not enabled
    UNCERTAIN = "uncertain"  # emitted, and the broker lost the writes: run or not
    REPLACED = "replaced"  # the entry was changed or removed while the slot was held
    UNROUTABLE = "unroutable"  # no queue is bound to where the message went


class Drop(msgspec.Struct, frozen=True):
    """All slots of one entry from `first` to `last`, dropped for one reason."""

    reason: Reason
    first: Instant
    last: Instant


@lru_cache(maxsize=4096)  # after downtime, many entries miss the same slots
def _count(schedule: Schedule, first: Instant, last: Instant) -> int:
    # The first one may be beside the schedule: that of `run_on_start`.
    second = schedule.next_after(first)
    if second is None or second > last:
        return 1
    return 1 + schedule.count(second, last)


def slots_dropped(schedule: Schedule, drop: Drop) -> int:
    """Return how many slots of the schedule are dropped."""
    return _count(schedule, drop.first, drop.last)


class Decision(msgspec.Struct, frozen=True):
    """What becomes of an entry's slots up to and including `until`."""

    emit: tuple[Instant, ...] = ()
    """Slots to emit, oldest first."""
    dropped: tuple[Drop, ...] = ()
    until: Instant | None = None
    """Every slot up to this one is decided; None: none is, as in HOLD and OVER."""
    over: bool = False
    """The entry's bounds are reached: it names no more slots."""

    def without_route(self, slots: Collection[Instant]) -> "Decision":
        """Return what became of the slots when the messages of these reached no queue.

        A broker is the first to know that.
        """
        lost = [slot for slot in self.emit if slot in slots]
        drops = [Drop(Reason.UNROUTABLE, slot, slot) for slot in lost]
        emit = tuple(slot for slot in self.emit if slot not in slots)
        return replace(self, emit=emit, dropped=(*self.dropped, *drops))

    def up_to(self, slot: Instant) -> "Decision":
        """Return the part of it that ends with this slot of those to emit."""
        emit = self.emit[: self.emit.index(slot) + 1]
        return self if emit == self.emit else replace(self, emit=emit, until=slot)

    def drops(self, reason: Reason) -> bool:
        """Return whether any slot is dropped for this reason."""
        return any(drop.reason is reason for drop in self.dropped)

    def mark_after(self, mark: Mark) -> Mark:
        """Return the entry's mark once this decision is carried out."""
        if self.until is None:
            return mark
        if not self.emit:
            return mark.moved(self.until)
        emitted = mark.emitted(self.emit[-1], mark.runs + len(self.emit))
        return emitted if emitted.slot == self.until else emitted.moved(self.until)


HOLD = Decision()
OVER = Decision(over=True)


def decide(due: Due, now: Instant, busy: bool, at_most: int | None = None) -> Decision:
    """Return what becomes of the entry's due slots under its policy.

    `busy` is true while the entry's previous run has not ended. At most `at_most` slots
    are emitted; by default as many as leave other entries their turn.
    """
    policy = due.entry.policy
    if policy.is_over(due.slot, due.mark.runs):
        return OVER
    latest = due.latest
    if policy.end is not None and latest > policy.end:
        latest = _last_of(due.entry.schedule, due.slot, policy.end)
    if not policy.enabled:
        return _drop(Reason.PAUSED, due.slot, latest)
    if busy and policy.overlap is Overlap.SKIP:
        return _drop(Reason.OVERLAP, due.slot, latest)
    if busy and policy.overlap is Overlap.QUEUE_ONE:
        return HOLD
    if policy.coalesce or due.slot == latest:
        return _emit_latest(due, latest, now)
    return _catch_up(due, latest, now, at_most)


def _drop(reason: Reason, first: Instant, last: Instant) -> Decision:
    return Decision(dropped=(Drop(reason, first, last),), until=last)


def _emit_latest(due: Due, latest: Instant, now: Instant) -> Decision:
    """Emit the newest slot only; drop that one, too, if it is a misfire."""
    if latest <= _too_late(due, now):
        return _drop(Reason.MISFIRE, due.slot, latest)
    if due.slot == latest:
        return Decision(emit=(latest,), until=latest)
    before = _last_of(due.entry.schedule, due.slot, latest - 1)
    coalesced = Drop(Reason.COALESCED, due.slot, before)
    return Decision(emit=(latest,), dropped=(coalesced,), until=latest)


def _catch_up(due: Due, latest: Instant, now: Instant, at_most: int | None) -> Decision:
    """Emit the oldest slots that are still wanted, and drop those before them.

    Dropped are misfires, and the oldest slots beyond the number of `max_catchup`.
    """
    schedule, policy = due.entry.schedule, due.entry.policy
    first = due.slot
    dropped = []
    too_late = min(_too_late(due, now), latest)
    if first <= too_late:
        last = _last_of(schedule, first, too_late)
        dropped.append(Drop(Reason.MISFIRE, first, last))
        after = schedule.next_after(last)
        if after is None or after > latest:
            return Decision(dropped=tuple(dropped), until=last)
        first = after
    slots = list(islice(slots_between(schedule, first, latest), policy.max_catchup + 1))
    if len(slots) > policy.max_catchup:
        kept = _newest(schedule, first, latest, policy.max_catchup)
        last = _last_of(schedule, first, kept[0] - 1)
        dropped.append(Drop(Reason.COALESCED, first, last))
        slots = kept
    if at_most is None:
        # Under an overlap rule, a second slot must wait for the run of the first.
        at_most = CATCHUP_STEP if policy.overlap is Overlap.ALLOW else 1
    emit = slots[:at_most]
    if policy.max_runs is not None:
        emit = emit[: policy.max_runs - due.mark.runs]
    return Decision(emit=tuple(emit), dropped=tuple(dropped), until=emit[-1])


def _newest(
    schedule: Schedule, first: Instant, latest: Instant, count: int
) -> list[Instant]:
    """Return the `count` newest slots up to the slot `latest`, oldest first."""
    newest = [latest]
    while len(newest) < count and newest[-1] > first:
        newest.append(_last_of(schedule, first, newest[-1] - 1))
    return newest[::-1]


def _last_of(schedule: Schedule, first: Instant, until: Instant) -> Instant:
    """Return the last slot up to `until`; `until` is not before the slot `first`.

    The search begins at `first`, not just before it: some schedules count their slots
    from where the search begins. It finds only slots after `first`; if there is none,
    `first` is the last one.
    """
    return schedule.last_until(until, first) or first


def _too_late(due: Due, now: Instant) -> Instant:
    """Return the instant up to which slots are misfires at `now`.

    A slot that is late by exactly the grace time is no misfire. Without a grace time no
    slot is one: the instant lies before all slots that are due.
    """
    grace = due.entry.policy.misfire_grace
    if grace is None:
        return due.slot - 1
    return now - due.entry.offset - grace - 1
