"""Hand-written stand-ins, and builders that need only what a test is about."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from beatd.brokers.base import Emission, Emitted, Outcome, Term, idle
from beatd.brokers.memory import MemoryBroker
from beatd.clock import Wake
from beatd.errors import BrokerUnavailable
from beatd.instant import MINUTE, SECOND, Instant, Span
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.scheduler.leadership import Leadership
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.takeover import Takeover
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry, Policy
from beatd.timetable.ledger import LedgerCopy, Mark
from beatd.timetable.timetable import Timetable

NOON: Instant = 1_800_014_400_000
"""2027-01-15T12:00:00Z, a Friday."""


class FakeClock:
    """A clock whose waiting takes no time; it says STOP at `end`."""

    def __init__(self, now: Instant = NOON, end: Instant | None = None) -> None:
        self.time = now
        self.end = end
        self.passed: Span = 0

    def now(self) -> Instant:
        return self.time

    def elapsed(self) -> Span:
        return self.passed

    def go_to(self, instant: Instant) -> None:
        """Let time pass until `instant`."""
        self.passed += max(0, instant - self.time)
        self.time = max(self.time, instant)

    def step(self, length: Span) -> None:
        """Set the wall clock, as an administrator does; no time passes."""
        self.time += length

    def wait(self, inbox: SimpleQueue[Wake], until: Instant) -> Wake:
        try:
            return inbox.get_nowait()
        except Empty:
            if self.end is not None and max(until, self.time) >= self.end:
                self.go_to(self.end)
                return Wake.STOP
            self.go_to(until)
            return Wake.ON_TIME


class FlakyBroker(MemoryBroker):
    """A broker in memory that can be down, or lose its answers."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.down = False
        self.loses_answers = False
        self.emitted: list[Emission] = []

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | None:
        self._answer()
        return super().acquire(holder, ttl, floor)

    def renew(self, term: Term, ttl: Span) -> bool:
        self._answer()
        return super().renew(term, ttl)

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        self._answer()
        return super().read_ledger(on_part)

    def write_ledger(
        self, term: Term, marks: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        self._answer()
        super().write_ledger(term, marks, gone, era)

    def emit(self, term: Term, batch: Sequence[Emission], ttl: Span) -> list[Emitted]:
        self._answer()
        outcomes = super().emit(term, batch, ttl)
        self.emitted += [
            emission
            for emission, outcome in zip(batch, outcomes, strict=True)
            if outcome is Outcome.QUEUED
        ]
        if self.loses_answers:
            raise BrokerUnavailable("the connection was cut")
        return outcomes

    def lose_all(self) -> None:
        """Forget everything, like a server that comes back without its data."""
        self.__dict__.update(vars(MemoryBroker(self._clock)))

    def slots(self, entry: str | None = None) -> list[Instant]:
        """Return the slots that were queued, in order."""
        return [
            emission.mark.slot
            for emission in self.emitted
            if entry in (None, emission.entry)
        ]

    def _answer(self) -> None:
        if self.down:
            raise BrokerUnavailable("nobody answers")


class FakeFile:
    """A schedule file in memory."""

    def __init__(self) -> None:
        self.marks: dict[str, Mark] = {}
        self.dropped: dict[tuple[str, str], int] = {}
        self.refused: dict[str, str] = {}
        self.era = 0
        self.term = 0
        self.locked = False

    def try_lock(self) -> bool:
        self.locked = True
        return True

    def unlock(self) -> None:
        self.locked = False

    def read(self) -> LedgerCopy:
        return LedgerCopy(dict(self.marks), self.era)

    def highest_term(self) -> int:
        return self.term

    def rewrite(
        self, marks: Mapping[str, Mark], gone: Collection[str], era: int, term: int
    ) -> None:
        self.marks.update(marks)
        for name in gone:
            self.marks.pop(name, None)
        self.era, self.term, self.refused = era, term, {}

    def record(
        self, marks: Mapping[str, Mark], dropped: Mapping[tuple[str, str], int]
    ) -> None:
        self.marks.update(marks)
        for key, number in dropped.items():
            self.dropped[key] = self.dropped.get(key, 0) + number

    def note_refused(self, refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)

    def flush(self) -> None:
        pass


@dataclass(eq=False)
class CountedSchedule:
    """Every minute, counting how often it is asked."""

    fingerprint: str = "counted"
    wildcard: bool = True
    asked: list[str] = field(default_factory=list)

    def next_after(self, instant: Instant) -> Instant | None:
        self.asked.append("next_after")
        return Every(MINUTE).next_after(instant)

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        self.asked.append("last_until")
        return Every(MINUTE).last_until(instant, since)

    def count(self, first: Instant, last: Instant) -> int:
        self.asked.append("count")
        return Every(MINUTE).count(first, last)


PLAIN = template(MessageFormat(), Route("celery"), "tasks.plain")


def entry(name: str, schedule: Schedule, *, offset: Span = 0, **policy: Any) -> Entry:
    """Build an entry whose message does not matter."""
    return Entry(name, schedule, PLAIN, policy=Policy(**policy), offset=offset)


TTL: Span = 5 * SECOND
"""How long the lead of a test's scheduler lives."""


def scheduler_of(
    *entries: Entry,
    broker: FlakyBroker,
    clock: FakeClock,
    file: FakeFile | None = None,
    ttl: Span = TTL,
) -> Scheduler:
    """Build a scheduler of these entries."""
    file = file or FakeFile()
    timetable = Timetable()
    leadership = Leadership(broker, clock, "here", ttl)
    takeover = Takeover(
        entries={one.name: one for one in entries},
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
    )
    return Scheduler(
        takeover=takeover,
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        namespace="test",
    )
