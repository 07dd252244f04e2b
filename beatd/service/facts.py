"""What the loop of a scheduler tells others: facts of one moment, never changed."""

import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, TypeAlias

from beatd.instant import SECOND, Instant, Span
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.pulse import Pulse
from beatd.service.status import MOST_NAMED

Role: TypeAlias = Literal["leader", "standby", "neither"]

_OFTEN: Span = SECOND
"""How often all facts are put together; who leads, and what is due, always."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What holds at the end of one turn of the loop."""

    elapsed: Span
    """By the monotonic clock."""
    role: Role
    leader: str = ""
    term: int | None = None
    first: tuple[str, Instant] | None = None
    """The entry that is due first, and when."""
    outage: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What changes seldom, or takes longer to put together."""

    differs: str = ""
    digest: str = ""
    refused: Sequence[tuple[str, str]] = ()
    held: Sequence[tuple[str, str]] = ()
    over: int = 0
    paused: int = 0
    """Entries that are paused while beatd runs."""


@dataclass
class Published:
    """What other threads may read of a scheduler at any time.

    Only the loop's thread writes; each attribute is replaced as a whole.
    """

    began: Instant
    pulse: Pulse
    tick: Tick
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    facts: Facts = Facts()
    since: Instant | None = None
    """Since when the role, the term and the leader are what they are."""
    away_since: Instant | None = None
    """Since when the broker has not answered the loop."""
    has_begun: bool = False
    """Whether the process has ever led or stood by."""
    _looked_at: Span | None = None

    @classmethod
    def from_now_on(cls, scheduler: Scheduler) -> "Published":
        """Return what is told of a scheduler whose loop has not turned yet."""
        clock = scheduler.clock
        return cls(clock.now(), scheduler.pulse, Tick(clock.elapsed(), "neither"))

    def publish(self, scheduler: Scheduler) -> None:
        """Tell what holds now; called by the loop at the end of each turn."""
        before, now = self.tick, scheduler.clock.now()
        tick = _tick_of(scheduler)
        if (tick.role, tick.leader, tick.term) != (
            before.role,
            before.leader,
            before.term,
        ):
            self.since = now
        if bool(tick.outage) != (self.away_since is not None):
            self.away_since = now if tick.outage else None
        self.has_begun = self.has_begun or tick.role != "neither"
        looked = self._looked_at
        if looked is None or tick.elapsed - looked >= _OFTEN:
            self._looked_at = tick.elapsed
            self.facts = _facts_of(scheduler)
        self.tick = tick


def _tick_of(scheduler: Scheduler) -> Tick:
    elapsed, outage = scheduler.clock.elapsed(), scheduler.outage
    term = scheduler.leadership.term
    if term is None and scheduler.follows:
        leader, other = scheduler.follows, scheduler.leadership.other
        number = None if other is None else other.number
        return Tick(elapsed, "standby", leader, number, outage=outage)
    found = scheduler.timetable.first()
    first = None if found is None else (found[0].name, found[1])
    if term is None:
        return Tick(elapsed, "neither", first=first, outage=outage)
    name = scheduler.leadership.holder
    return Tick(elapsed, "leader", name, term.number, first, outage)


def _paused_in(scheduler: Scheduler) -> Collection[str]:
    return scheduler.pauses.known if scheduler.pauses else ()


def _facts_of(scheduler: Scheduler) -> Facts:
    return Facts(
        differs=scheduler.differs,
        digest=scheduler.digest,
        refused=[*islice(scheduler.refused.items(), MOST_NAMED)],
        held=[*islice(scheduler.held.items(), MOST_NAMED)],
        over=len(scheduler.timetable.over),
        paused=sum(name in scheduler.timetable for name in _paused_in(scheduler)),
    )
