"""One line of the schedule, its policy, and what is due of it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from beatd.instant import Instant, Span
from beatd.message import EntryMessage
from beatd.schedules.base import Schedule
from beatd.timetable.ledger import AT_START, REMOVED, Mark


class Overlap(Enum):
    """What to do when a slot comes while the entry's previous run has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE_ONE = "queue_one"


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do with slots that cannot simply be emitted in time.

    The defaults are Celery's behaviour. One value is shared by all entries that have
    the same policy.
    """

    misfire_grace: Span | None = None  # a slot found later than this is dropped
    coalesce: bool = True  # of several late slots, only the newest is emitted
    max_catchup: int = 1000  # without coalesce: the most late slots to emit
    overlap: Overlap = Overlap.ALLOW
    overlap_timeout: Span | None = None  # a run older than this counts as ended
    start: Instant | None = None  # slots before it do not count
    end: Instant | None = None  # nor do slots after it
    max_runs: int | None = None  # the most slots that are ever emitted
    enabled: bool = True  # False: the entry is paused, its slots are dropped
    run_on_start: bool = False  # a new entry has a slot at once, beside its schedule's

    @property
    def bounds(self) -> tuple[Instant | None, Instant | None, int | None]:
        """What limits the slots that count: none does in (None, None, None)."""
        return self.start, self.end, self.max_runs

    def admits(self, slot: Instant, runs: int) -> bool:
        """Return whether `slot` is within the bounds, after so many runs."""
        started = self.start is None or slot >= self.start
        return started and not self.is_over(slot, runs)

    def is_over(self, slot: Instant, runs: int) -> bool:
        """Return whether the bounds admit neither `slot`, after so many runs, nor later
        ones."""
        return (self.end is not None and slot > self.end) or (
            self.max_runs is not None and runs >= self.max_runs
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the schedule: a name, a schedule, a message, and policies."""

    name: str
    schedule: Schedule
    message: EntryMessage
    policy: Policy = field(default=Policy())
    offset: Span = 0
    """The entry's own share of its jitter: each slot is emitted that much later."""
    expires_next: bool = False
    """The message expires at the entry's next slot."""
    description: str = ""

    def since(self, mark: Mark) -> Instant:
        """Return the instant after which the slot that follows a mark is looked for."""
        start = self.policy.start
        return mark.slot if start is None else max(mark.slot, start - 1)

    def slot_after(self, mark: Mark) -> Instant | None:
        """Return the slot that follows a mark; the entry may be over by then."""
        if mark.is_at_start:
            return mark.slot + 1
        return self.schedule.next_after(self.since(mark))

    def first_after(self, mark: Mark) -> Instant | None:
        """Return the first slot after a mark that the bounds admit; None without."""
        slot = self.slot_after(mark)
        if slot is None or self.policy.is_over(slot, mark.runs):
            return None
        return slot

    def end_after(self, mark: Mark) -> str:
        """Return why no slot follows a mark, for people."""
        if self.policy.max_runs is not None and mark.runs >= self.policy.max_runs:
            return f"max_runs is reached: {self.policy.max_runs}"
        if self.schedule.next_after(mark.slot) is None:
            return "its schedule has no later slot"
        return "it has no later slot before its end_time"

    def mark_from(self, known: Mark | None, now: Instant) -> Mark:
        """Return the mark to go on from: `known` if the ledger has one.

        A new entry counts from `now`, and so does one that was removed and comes back,
        or whose schedule has changed since its mark was made: nobody asked for its
        slots of the past. Its runs count anew. Slots are not of the past that were
        emitted before a clock was set back.
        """
        fingerprint = self.schedule.fingerprint
        if known is not None and known.fingerprint == fingerprint:
            return known if known.high is None else known.caught_up(now)
        if known is not None and known.schedule == fingerprint:
            if known.is_at_start and not self.policy.run_on_start:
                return known._replace(fingerprint=fingerprint)
            return known.caught_up(now)
        last = None if known is None else known.last
        mark = Mark(now, fingerprint, last=last)
        if known is not None and last is not None and last > now:
            # A clock that was ahead may have named slots of this schedule, too.
            came_back = known.fingerprint == fingerprint + REMOVED
            is_named = came_back or self.slot_after(mark) == last
            return mark.moved(last) if is_named else mark
        is_new = known is None or known.is_removed
        if is_new and self.policy.run_on_start and self.policy.admits(now, runs=0):
            return Mark(now - 1, fingerprint + AT_START, last=last)
        return mark


class Due(msgspec.Struct, frozen=True):
    """Entries with slots that have come and are not decided yet, alike in all of that.

    They share schedule, offset, policy and mark: one decision holds for all of them.
    """

    entries: Sequence[Entry]
    """At least one."""
    mark: Mark
    slot: Instant
    """The oldest such slot."""
    latest: Instant
    """The newest such slot; equal to `slot` unless the scheduler is late."""
    following: Instant | None
    """The first slot that is still to come."""

    @property
    def entry(self) -> Entry:
        """The first of the entries; asked for what all of them share."""
        return self.entries[0]

    def of(self, *entries: Entry) -> "Due":
        """Return the same of some of the entries."""
        return Due(entries, self.mark, self.slot, self.latest, self.following)

    def apart(self, *named: Collection[str]) -> Iterator["Due"]:
        """Yield the others together, and each entry that any of these names alone."""
        named = tuple(filter(None, named))
        if not named:
            yield self
            return
        alone: list[Entry] = []
        others: list[Entry] = []
        for entry in self.entries:
            is_named = any(entry.name in names for names in named)
            (alone if is_named else others).append(entry)
        if others:
            yield self.of(*others)
        for entry in alone:
            yield self.of(entry)
