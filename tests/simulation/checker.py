"""What must have been queued, by an arithmetic of its own, and what was.

It shares no code with the scheduler: slots are found by looking at every second or
minute of the time, local times by the standard library alone.
"""

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from zoneinfo import ZoneInfo

from tests.simulation.plan import Fact

MINUTE = 60_000

ASKED_AGAIN = 5_000
"""In this time a process has asked the broker again, and waited for the answer."""


@dataclass
class Verdict:
    """What is wrong with the queues; nothing, if all lists are empty."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Messages for instants that no schedule names."""
    late: list[str] = field(default_factory=list)
    """Slots that were queued late although nothing was wrong."""
    uncertain: list[str] = field(default_factory=list)
    """Slots that are missing or doubled, and that the scheduler had named as such."""
    unknowable: list[str] = field(default_factory=list)
    """Slots that are doubled because the broker's data were lost, and so was, for good,
    the process that had emitted them: nothing that lives knows of them."""
    unrun: list[str] = field(default_factory=list)
    """Messages that no worker ran to the end, although the broker kept them."""
    rerun: list[str] = field(default_factory=list)
    """Messages that ran again, although they were acknowledged before."""
    mistaken: list[str] = field(default_factory=list)
    """Acts of workers that the broker did to other messages than they were for."""
    following: list[str] = field(default_factory=list)
    """Runs from which not one message follows, but none or several."""
    together: list[str] = field(default_factory=list)
    """Runs at the same time, against the overlap rule of their entry."""
    held: list[str] = field(default_factory=list)
    """Runs that hold up their entries for ever."""
    untold: list[str] = field(default_factory=list)
    """Slots of which the history says nothing, and does not say that it cannot."""
    differing: list[str] = field(default_factory=list)
    """The first calls that real brokers answered otherwise than memory did."""
    gone: int = 0
    """Messages that were not run because the broker's data were lost."""
    cut: int = 0
    """Messages that were not run because their worker ended between acknowledging them
    early and running them."""
    again: int = 0
    """Messages that were acknowledged early, and that another worker ran once more, as
    the broker was set back to a state in which they lay in their queue."""
    slots: int = 0
    runs: int = 0

    @property
    def wrong(self) -> list[str]:
        """All that breaks the promise, in words."""
        kinds = {
            "lost": self.lost,
            "doubled": self.doubled,
            "foreign": self.foreign,
            "late": self.late,
            "not run": self.unrun,
            "run again": self.rerun,
            "done to another message": self.mistaken,
            "followed": self.following,
            "together": self.together,
            "held": self.held,
            "not in the history": self.untold,
            "answered otherwise": self.differing,
        }
        return [f"{kind}: {one}" for kind, found in kinds.items() for one in found]


@dataclass(frozen=True)
class Told:
    """What the history says of one entry at the end."""

    since: int
    """Of slots up to this one it knows nothing."""
    until: int
    """The last slot of which the ledger says that it is decided."""
    spans: Sequence[tuple[int, int]]
    """The slots of which it says something: the first and the last of each record."""


@dataclass(frozen=True)
class Evidence:
    """What a simulation leaves to be judged."""

    begin: int
    end: int
    facts: Sequence[Fact]
    queued: Sequence[tuple[int, bytes, int]]
    """When each message was queued, the message, and when its sender last heard an
    answer: not even to this, perhaps."""
    troubles: Sequence[tuple[int, int]]
    """From when to when something was wrong, the time of recovery included."""
    rewound: Sequence["Rewind"] = ()
    """What schedulers set back. With right clocks there is nothing."""
    uncertain: Set[tuple[str, int]] = frozenset()
    """Entries and slots that schedulers have named as uncertain."""
    from_a_copy: Sequence[int] = ()
    """When a scheduler said that it goes on from a copy, and may emit once more what
    it had not seen: the one case that is left."""
    far: Sequence["Far"] = ()
    """When a clock showed a far year: so many slots are overdue that those of these
    seconds are dropped with them, by `max_catchup`."""
    deployed: Sequence[int] = ()
    """When the other one of the two configs was given out."""
    losses: Sequence[int] = ()
    """When the broker's data were emptied or set back."""
    told: Mapping[str, Told] = field(default_factory=dict)
    """By entry, what the history says."""
    history_lost: Sequence[tuple[int, int]] = ()
    """From which slot to which the history says that it was lost."""
    settled_after: int = 2 * MINUTE
    """How long after the beginning everything runs."""


@dataclass(frozen=True)
class Far:
    """A clock showed a far year."""

    begin: int
    end: int
    year: int
    """How far ahead it was, in milliseconds."""


@dataclass(frozen=True)
class Rewind:
    """The ledger was set back, for a clock that was, as a scheduler said before."""

    at: int
    """When it was said."""
    to: int
    """What the clock showed: entries go on after this."""
    high: int
    """How far the ledger was; slots up to this come again."""


@dataclass(frozen=True)
class Queued:
    """One message that came to the queue."""

    at: int
    id: str
    heard: int
    """When its sender last heard from the broker."""


def judge(evidence: Evidence) -> Verdict:
    """Compare what was queued with what the schedules name."""
    verdict = Verdict()
    found: dict[str, dict[int, list[Queued]]] = defaultdict(lambda: defaultdict(list))
    for when, message, heard in evidence.queued:
        entry, slot, task_id = _read(message)
        found[entry][slot].append(Queued(when, task_id, heard))
    facts = defaultdict(list)
    for fact in evidence.facts:
        facts[fact.name].append(fact)
    for name, some in facts.items():
        _judge_found(evidence, some, found[name], verdict)
        for fact in some:
            _judge_wanted(evidence, fact, found[name], verdict)
            _judge_told(evidence, fact, verdict)
    return verdict


def _judge_found(
    evidence: Evidence,
    facts: Sequence[Fact],
    found: dict[int, list[Queued]],
    verdict: Verdict,
) -> None:
    """Look at all that was queued under one name."""
    begin, end = evidence.begin - 10 * MINUTE, evidence.end + 10 * MINUTE
    allowed = {
        slot
        for fact in facts
        for slot in slots_of(fact, begin, end)
        if _may_hold(evidence, fact, slot)
    }
    named = sorted(allowed)
    came = sorted((one.at, slot) for slot, some in found.items() for one in some)
    for slot, queued in sorted(found.items()):
        times = [one.at for one in queued]
        words = f"{facts[0].name} {_text(slot)} queued at {_texts(times)}"
        if slot not in allowed and not _is_of_a_far_year(evidence, slot, times):
            verdict.foreign.append(words)
        doubled = [
            (one, again)
            for one, again in pairwise(queued)
            if one.id == again.id
            or not any(
                _has_set_back(rewind, slot, named, came)
                for rewind in evidence.rewound
                if one.at <= rewind.at <= again.at
            )
        ]
        if doubled:
            unsaid = [pair for pair in doubled if not _is_said(evidence, *pair)]
            if not unsaid:
                verdict.uncertain.append(words)
            elif all(_was_forgotten(evidence, *pair) for pair in unsaid):
                verdict.unknowable.append(words)
            else:
                _sort(verdict.doubled, verdict, evidence, facts[0], slot, words)
        at = min(times)
        is_calm = not _is_troubled(evidence, slot, slot + 5_000)
        is_sure = any(_must_hold(evidence, fact, slot) for fact in facts)
        is_held = facts[0].overlap != "allow"
        if is_calm and is_sure and at > slot + 5_000 and not is_held:
            verdict.late.append(words)
    verdict.slots += sum(map(len, found.values()))


def _judge_wanted(
    evidence: Evidence,
    fact: Fact,
    found: Mapping[int, Sequence[Queued]],
    verdict: Verdict,
) -> None:
    """Look for what should have been queued."""
    runs = sum(map(len, found.values()))
    if fact.max_runs is not None and runs > fact.max_runs:
        words = f"{fact.name} has {runs} runs of {fact.max_runs}"
        # A copy of the ledger has a count of runs, too, and lacks what was lost.
        named = sum(name == fact.name for name, _ in evidence.uncertain)
        is_known = not (evidence.from_a_copy or verdict.unknowable)
        is_known = is_known and runs > fact.max_runs + named
        (verdict.doubled if is_known else verdict.uncertain).append(words)
    settled = evidence.begin + evidence.settled_after
    wanted = [
        slot
        for slot in slots_of(fact, evidence.begin, evidence.end + 10 * MINUTE)
        if settled < slot < evidence.end - MINUTE and _must_hold(evidence, fact, slot)
    ]
    if fact.max_runs is not None:
        before = sum(slot <= settled for slot in found)
        # Slots of a far year are runs, and one that comes again is one more run.
        far = sum(slot > evidence.end + 10 * MINUTE for slot in found)
        again = sum(len(queued) - 1 for queued in found.values())
        wanted = wanted[: max(0, fact.max_runs - before - far - again)]
    emitted = sorted(found)
    for slot in wanted:
        if slot in found or (fact.overlap != "allow" and _is_held(fact, slot, emitted)):
            continue
        later = emitted[bisect_right(emitted, slot) :]
        is_given_way = (
            fact.coalesce and later and _is_troubled(evidence, slot, later[0] + 1)
        )
        if not (is_given_way or _is_far(evidence, slot, found)):
            words = f"{fact.name} {_text(slot)}, next queued {_texts(later[:1])}"
            _sort(verdict.lost, verdict, evidence, fact, slot, words)


def _judge_told(evidence: Evidence, fact: Fact, verdict: Verdict) -> None:
    """Look for each slot in the history, as far as that reaches."""
    told = evidence.told.get(fact.name)
    if told is None:
        return
    # A clock that was behind has begun the history before slots that came earlier.
    margin = WRONG if evidence.rewound else MINUTE
    begin = max(told.since + margin, evidence.begin + evidence.settled_after)
    for slot in slots_of(fact, begin, min(told.until, evidence.end) + 1):
        is_lost = any(first <= slot <= last for first, last in evidence.history_lost)
        is_told = any(first <= slot <= last for first, last in told.spans)
        if not (is_lost or is_told) and _must_hold(evidence, fact, slot):
            verdict.untold.append(f"{fact.name} {_text(slot)}")


def _is_far(
    evidence: Evidence, slot: int, found: Mapping[int, Sequence[Queued]]
) -> bool:
    """Return whether the slot was dropped with those of many years.

    It was overdue when a clock showed a far year, and the ledger was set back to an
    instant after it before the entry went on. Had a later slot come before that clock,
    this one had to come, too.
    """
    later = [
        one.at
        for other, queued in found.items()
        if slot < other <= evidence.end + 10 * MINUTE
        for one in queued
    ]
    goes_on = min(later, default=evidence.end)
    return any(
        far.begin <= rewind.at <= goes_on and slot <= rewind.to
        for far in evidence.far
        for rewind in evidence.rewound
    )


def _is_of_a_far_year(evidence: Evidence, slot: int, queued: Sequence[int]) -> bool:
    """Return whether a clock that showed a far year had named the slot by then."""
    return slot > evidence.end + 10 * MINUTE and any(
        far.begin <= min(queued) and slot <= far.end + far.year for far in evidence.far
    )


NEWS = 3 * MINUTE
"""How long after it was given out a config holds everywhere, whatever goes wrong."""

WRONG = 10 * MINUTE
"""By how much clocks may be wrong, and the slots of a config come early or late."""


def _config_at(evidence: Evidence, instant: int) -> int:
    return bisect_right(evidence.deployed, instant) % 2


def _may_hold(evidence: Evidence, fact: Fact, slot: int) -> bool:
    """Return whether a config with the entry may have held when the slot came."""
    if fact.config is None:
        return True
    times = [at for at in evidence.deployed if abs(at - slot) <= WRONG + NEWS]
    return bool(times) or _config_at(evidence, slot) == fact.config


def _must_hold(evidence: Evidence, fact: Fact, slot: int) -> bool:
    """Return whether a config with the entry held when the slot came, for sure."""
    if fact.config is None:
        return True
    margin = WRONG if evidence.rewound else MINUTE
    near = any(-margin <= slot - at <= NEWS + margin for at in evidence.deployed)
    return not near and _config_at(evidence, slot) == fact.config


def _has_set_back(
    rewind: Rewind, slot: int, named: Sequence[int], came: Sequence[tuple[int, int]]
) -> bool:
    """Return whether a slot that had come may come again, as a new run.

    Not if the entry has nothing to do before it: then it waits for the slot after.
    """
    if not rewind.to < slot <= rewind.high:
        return False
    before = bisect_right(came, rewind.at, key=itemgetter(0))
    following = named[bisect_right(named, rewind.to) :][:1]
    return not (following == [slot] and came[before - 1][1] == slot)


def _is_said(evidence: Evidence, one: Queued, again: Queued) -> bool:
    """Return whether a scheduler said in between that some may be emitted again."""
    return any(one.at < at <= again.at for at in evidence.from_a_copy)


def _was_forgotten(evidence: Evidence, one: Queued, again: Queued) -> bool:
    """Return whether nothing that lived could tell of the first message any more.

    Its sender has died, or stands still, or never heard the answer.
    """
    is_gone = one.heard < again.at + ASKED_AGAIN
    return is_gone and any(one.at < loss <= again.at for loss in evidence.losses)


def _is_held(fact: Fact, slot: int, emitted: Sequence[int]) -> bool:
    """Whether an overlap rule may have dropped the slot: others are near."""
    at = bisect_left(emitted, slot)
    near = emitted[max(0, at - 1) : at + 1]
    return any(abs(other - slot) <= 10 * fact.every for other in near)


def _sort(
    wrong: list[str],
    verdict: Verdict,
    evidence: Evidence,
    fact: Fact,
    slot: int,
    words: str,
) -> None:
    """Put a finding where it belongs: uncertain ones are named, not wrong."""
    is_uncertain = (fact.name, slot) in evidence.uncertain
    (verdict.uncertain if is_uncertain else wrong).append(words)


def _is_troubled(evidence: Evidence, first: int, last: int) -> bool:
    return any(begin <= last and end >= first for begin, end in evidence.troubles)


def slots_of(fact: Fact, begin: int, end: int) -> list[int]:
    """Return all slots that the entry has between two instants."""
    named = _interval(fact, begin, end) if fact.every else _daily(fact, begin, end)
    return [
        slot
        for slot in named
        if (fact.start is None or slot >= fact.start)
        and (fact.end is None or slot <= fact.end)
    ]


def _interval(fact: Fact, begin: int, end: int) -> Iterable[int]:
    first = begin - begin % 1000
    return (at for at in range(first, end, 1000) if at % fact.every == fact.offset)


def _daily(fact: Fact, begin: int, end: int) -> list[int]:
    """Look at each minute's reading of the local clock.

    At fixed times, a reading counts when it comes first; one that is skipped counts at
    the minute when the clock goes on.
    """
    zone = ZoneInfo(fact.zone)
    slots = []
    before = None
    # Readings of the last hours, so that second passes are known.
    seen: Counter[datetime] = Counter()
    for at in range(begin - begin % MINUTE - 180 * MINUTE, end, MINUTE):
        reading = datetime.fromtimestamp(at / 1000, UTC).astimezone(zone)
        reading = reading.replace(tzinfo=None, fold=0)
        if fact.hour is None:
            is_named = reading.minute in fact.minutes
        else:
            shown = [reading]
            while before is not None and (skipped := shown[-1] - _STEP) > before:
                shown.append(skipped)
            is_named = any(
                one.hour == fact.hour and one.minute in fact.minutes and not seen[one]
                for one in shown
            )
            seen.update(shown)
        if is_named and at >= begin:
            slots.append(at)
        before = reading
    return slots


_STEP = timedelta(minutes=1)


def _read(message: bytes) -> tuple[str, int, str]:
    """Return the entry, the slot and the id of a message, by its headers."""
    headers = json.loads(message)["headers"]
    slot = datetime.fromisoformat(headers["beatd_slot"])
    return headers["beatd_entry"], round(slot.timestamp() * 1000), headers["id"]


def _text(instant: int) -> str:
    return f"{datetime.fromtimestamp(instant / 1000, UTC):%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _texts(instants: Iterable[int]) -> str:
    return ", ".join(map(_text, instants)) or "never"
