"""The entries of one simulation: plain facts, for the scheduler and for the checker.

The checker reads nothing but these facts; what the scheduler makes of them is in
`entry_of`, and only there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from zoneinfo import ZoneInfo

from beatd.instant import MINUTE, SECOND, Instant, Span, instant_of
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.schedules import cron
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry, Overlap, Policy

TASK = "sim.run"

EARLY_TASK = "sim.early"
"""Its messages are acknowledged before it runs."""

MAX_CATCHUP = 100
"""More than are ever overdue, but for a clock that shows a far year."""

CLOCK_CHANGES = [
    ("Europe/Paris", datetime(2027, 3, 28, 1, tzinfo=UTC)),
    ("Europe/Paris", datetime(2027, 10, 31, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2027, 3, 14, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2027, 11, 7, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 4, 3, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 10, 2, 15, 30, tzinfo=UTC)),
]
"""Clocks go forward or back at these instants; half an hour in the last zone."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry: `every` milliseconds, or at the minutes (and hours) of a local day."""

    name: str
    every: Span = 0
    offset: Span = 0
    minutes: Sequence[int] = ()
    hour: int | None = None
    """None: at these minutes of any hour, in both passes of one that comes twice."""
    zone: str = "UTC"
    coalesce: bool = True
    start: Instant | None = None
    end: Instant | None = None
    max_runs: int | None = None
    overlap: str = "allow"
    early: bool = False
    """Whether a message is acknowledged before its run."""
    config: int | None = None
    """In which of the two configs, that take turns, the entry is; None: in both."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where in time a simulation begins, and with which entries."""

    begin: Instant
    facts: Sequence[Fact] = field(default_factory=list)


def plan_of(random: Random, length: Span, *, has_workers: bool) -> Plan:
    """Draw a plan whose hours have a clock change in them.

    Overlap rules are only drawn where workers end the runs.
    """
    zone, change = random.choice(CLOCK_CHANGES)
    begin = instant_of(change) - random.randrange(length * 3 // 4)
    begin -= begin % MINUTE
    soon = begin + length // 3
    facts = [
        Fact("quick", every=10 * SECOND, coalesce=False),
        Fact("half", every=30 * SECOND, offset=7 * SECOND, coalesce=False),
        Fact("minute", every=MINUTE),
        Fact("odd", every=random.choice([17, 47, 101]) * SECOND),
        Fact("wild", minutes=range(0, 60, 2), zone=zone, coalesce=False),
        Fact("wild5", minutes=range(0, 60, 5), zone=zone),
        Fact("few", every=MINUTE, max_runs=5, coalesce=False),
        Fact("from", every=MINUTE, start=soon, coalesce=False),
        Fact("till", every=20 * SECOND, end=soon, coalesce=False),
    ]
    facts += [
        # Another schedule under the same name, and an entry that comes and goes.
        Fact("moves", every=20 * SECOND, coalesce=False, config=0),
        Fact("moves", every=30 * SECOND, offset=5 * SECOND, coalesce=False, config=1),
        Fact("comes", every=15 * SECOND, offset=SECOND, coalesce=False, config=1),
    ]
    local = change.astimezone(ZoneInfo(zone)).hour
    for number in range(3):
        hour = (local - random.randrange(-1, 2)) % 24
        minutes = sorted(random.sample(range(60), 3))
        name = f"fixed{number}"
        facts.append(Fact(name, minutes=minutes, hour=hour, zone=zone, coalesce=False))
    if has_workers:
        facts += [
            Fact("early", every=15 * SECOND, coalesce=False, early=True),
            Fact("skip", every=20 * SECOND, overlap="skip"),
            Fact("skips", every=10 * SECOND, overlap="skip", early=True),
            Fact("queue", every=20 * SECOND, overlap="queue_one"),
        ]
    return Plan(begin, facts)


def configs_of(plan: Plan) -> list[list[Entry]]:
    """Return the entries of the two configs."""
    return [
        [entry_of(fact) for fact in plan.facts if fact.config in (None, config)]
        for config in (0, 1)
    ]


def entry_of(fact: Fact) -> Entry:
    """Return the entry of a fact, as a config would have it."""
    zone = ZoneInfo(fact.zone)
    task = EARLY_TASK if fact.early else TASK
    message = template(
        MessageFormat(), Route("celery"), task, [fact.name], entry=fact.name, zone=zone
    )
    policy = Policy(
        coalesce=fact.coalesce,
        max_catchup=MAX_CATCHUP,
        start=fact.start,
        end=fact.end,
        max_runs=fact.max_runs,
        overlap=Overlap(fact.overlap),
    )
    return Entry(fact.name, _schedule_of(fact, zone), message, policy)


def _schedule_of(fact: Fact, zone: ZoneInfo) -> Schedule:
    if fact.every:
        return Every(fact.every, fact.offset)
    minutes = ",".join(map(str, fact.minutes))
    if fact.hour is None:
        step = fact.minutes[1] - fact.minutes[0]
        return cron(f"*/{step} * * * *").in_zone(zone)
    return cron(f"{minutes} {fact.hour} * * *").in_zone(zone)
