"""One line of the schedule, and what the ledger knows of it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from beatd.instant import Instant, Span
from beatd.message import Template
from beatd.schedules.base import Schedule


class Mark(NamedTuple):
    """The ledger's row for one entry.

    Every slot up to and including `slot` was emitted, dropped with a reason, or lies
    before the entry was first seen.
    """

    slot: Instant
    fingerprint: str
    """Of the slots that the entry had then: others start afresh."""
    runs: int = 0
    """How many slots were emitted."""
    last: Instant | None = None
    """The last slot that was emitted; users see it as last_run_at."""


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

    misfire_grace: Span | None = None
    coalesce: bool = True
    max_catchup: int = 1000
    overlap: Overlap = Overlap.ALLOW
    start: Instant | None = None
    end: Instant | None = None
    max_runs: int | None = None
    enabled: bool = True

    @property
    def bounds(self) -> str:
        """A short text that is equal exactly for equal bounds; empty without any."""
        bounds = (self.start, self.end, self.max_runs)
        if bounds == (None, None, None):
            return ""
        return " from {} to {} at most {}".format(*bounds)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the schedule: a name, a schedule, a message, and policies."""

    name: str
    schedule: Schedule
    message: Template
    policy: Policy = field(default=Policy())
    offset: Span = 0
    """The entry's own share of its jitter: emitted that much after each slot."""
    expires_next: bool = False
    """The message expires at the entry's next slot."""
    description: str = ""

    def mark_from(self, known: Mark | None, now: Instant) -> Mark:
        """Give the mark to go on from: `known` if the ledger has one.

        A new entry, and one whose schedule or bounds are not those that its mark was
        made under, counts from `now`: nobody asked for its slots of the past.
        """
        fingerprint = self.schedule.fingerprint + self.policy.bounds
        if known is None:
            return Mark(now, fingerprint)
        if known.fingerprint != fingerprint:
            return known._replace(slot=now, fingerprint=fingerprint)
        return known


@dataclass(frozen=True, slots=True)
class Due:
    """An entry with at least one slot that has come and was not decided yet."""

    entry: Entry
    mark: Mark
    slot: Instant
    """The oldest such slot."""
    latest: Instant
    """The newest such slot; equal to `slot` on a calm day."""
    following: Instant | None
    """The first slot that is still to come."""
