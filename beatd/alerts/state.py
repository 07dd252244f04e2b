"""What is remembered of an entry between two looks, and what a look has found."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from beatd.instant import Instant, Span


class OpenRun(msgspec.Struct, array_like=True):
    """A run of which it is not known yet how it ends."""

    slot: Instant
    era: int
    sent: Instant
    taken: Instant | None = None
    """When it was first seen with a worker."""
    is_said: bool = False
    """Whether it was told that nobody takes it."""
    is_long: bool = False
    """Whether it was told that it takes too long."""
    ask_at: Instant = 0
    gone: int = 0
    """Looks since when it is with a worker no more."""

    def may_wait(self, max_wait: Span | None, now: Instant) -> bool:
        """Return whether its message may lie in its queue for too long."""
        if self.taken is not None or self.is_said or max_wait is None:
            return False
        return now - self.sent >= max_wait


class EntryState(msgspec.Struct, array_like=True):
    """What is known of one entry between two looks."""

    failures: int = 0
    """Failed runs in a row."""
    said: list[str] = []
    """Alerts that hold since they were told: kinds, and `refused`."""
    runs: list[OpenRun] = []
    is_paused: bool = False

    def __bool__(self) -> bool:
        return bool(self.failures or self.said or self.runs or self.is_paused)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has found of runs, by task id."""

    states: Mapping[str, str]
    """As the results have them."""
    held: Collection[str] | None = None
    """Those that workers hold; None: nobody was asked."""
    waiting: Collection[str] = ()
    """Those whose messages lie in their queues."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why those failed that did."""
