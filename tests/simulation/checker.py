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
    """Slots that are doubled because the broker's data and the process that had emitted
    them were both lost before: nothing that lives knows of them."""
    slots: int = 0

    @property
    def wrong(self) -> list[str]:
        """All that breaks the promise, in words."""
        kinds = {
            "lost": self.lost,
            "doubled": self.doubled,
            "foreign": self.foreign,
            "late": self.late,
        }
        return [f"{kind}: {one}" for kind, found in kinds.items() for one in found]


@dataclass(frozen=True)
class Evidence:
    """What a simulation leaves to be judged."""

    begin: int
    end: int
    facts: Sequence[Fact]
    queued: Sequence[tuple[int, bytes, int | None]]
    """When each message was queued, the message, and when its sender died, if so."""
    troubles: Sequence[tuple[int, int]]
    """From when to when something was wrong, the time of recovery included."""
    rewound: Sequence[tuple[int, int]] = ()
    """Which wall times some scheduler's clock has shown twice: from when to when."""
    uncertain: Set[tuple[str, int]] = frozenset()
    """Entries and slots that schedulers have named as uncertain."""
    from_a_copy: Sequence[int] = ()
    """When a scheduler said that it goes on from a copy, and may emit once more what
    it had not seen: the one case that is left."""
    losses: Sequence[int] = ()
    """When the broker's data were emptied or set back."""
    settled_after: int = 2 * MINUTE
    """How long after the beginning everything runs."""


def judge(evidence: Evidence) -> Verdict:
    """Compare what was queued with what the schedules name."""
    verdict = Verdict()
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    died: dict[tuple[str, int, int], int | None] = {}
    for when, message, sender_died in evidence.queued:
        entry, slot = _slot_of(message)
        found[entry][slot].append(when)
        died[entry, slot, when] = sender_died
    for fact in evidence.facts:
        _judge_one(evidence, fact, found[fact.name], died, verdict)
    return verdict


def _judge_one(
    evidence: Evidence,
    fact: Fact,
    found: dict[int, list[int]],
    died: Mapping[tuple[str, int, int], int | None],
    verdict: Verdict,
) -> None:
    named = slots_of(fact, evidence.begin - 10 * MINUTE, evidence.end + 10 * MINUTE)
    allowed = set(named)
    for slot, times in sorted(found.items()):
        words = f"{fact.name} {_text(slot)} queued at {_texts(times)}"
        if slot not in allowed:
            verdict.foreign.append(words)
        again = sum(first <= slot <= last for first, last in evidence.rewound)
        if len(times) > 1 + again:
            is_said = any(times[0] < at <= times[-1] for at in evidence.from_a_copy)
            senders_died = [died[fact.name, slot, at] for at in times]
            if is_said and len(times) == 2:
                verdict.uncertain.append(words)
            elif _was_forgotten(evidence, times, senders_died):
                verdict.unknowable.append(words)
            else:
                _sort(verdict.doubled, verdict, evidence, fact, slot, words)
        at = min(times)
        is_calm = not _is_troubled(evidence, slot, slot + 5_000)
        if is_calm and at > slot + 5_000 and fact.overlap == "allow":
            verdict.late.append(words)
    runs = sum(map(len, found.values()))
    if fact.max_runs is not None and len(found) > fact.max_runs:
        words = f"{fact.name} has {len(found)} slots of {fact.max_runs}"
        # A count of runs is in a copy of the ledger, too.
        is_known = not (evidence.from_a_copy or verdict.unknowable)
        (verdict.doubled if is_known else verdict.uncertain).append(words)
    verdict.slots += runs
    wanted = [
        slot
        for slot in named
        if evidence.begin + evidence.settled_after < slot < evidence.end - MINUTE
    ]
    if fact.max_runs is not None:
        before = sum(slot <= evidence.begin + evidence.settled_after for slot in found)
        wanted = wanted[: max(0, fact.max_runs - before)]
    emitted = sorted(found)
    for slot in wanted:
        if slot in found or (fact.overlap != "allow" and _is_held(fact, slot, emitted)):
            continue
        later = emitted[bisect_right(emitted, slot) :]
        is_given_way = (
            fact.coalesce and later and _is_troubled(evidence, slot, later[0] + 1)
        )
        if not is_given_way:
            words = f"{fact.name} {_text(slot)}, next queued {_texts(later[:1])}"
            _sort(verdict.lost, verdict, evidence, fact, slot, words)


def _was_forgotten(
    evidence: Evidence, times: Sequence[int], died: Sequence[int | None]
) -> bool:
    """Return whether at each time nothing that lived knew of the times before it.

    Or it ended before it had asked the broker again, and could have told.
    """
    return all(
        end is not None
        and end < after + ASKED_AGAIN
        and any(at < loss <= after for loss in evidence.losses)
        for (at, after), end in zip(pairwise(times), died, strict=False)
    )


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


def _slot_of(message: bytes) -> tuple[str, int]:
    """Return the entry and the slot of a message, by its headers."""
    headers = json.loads(message)["headers"]
    slot = datetime.fromisoformat(headers["beatd_slot"])
    return headers["beatd_entry"], round(slot.timestamp() * 1000)


def _text(instant: int) -> str:
    return f"{datetime.fromtimestamp(instant / 1000, UTC):%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _texts(instants: Iterable[int]) -> str:
    return ", ".join(map(_text, instants)) or "never"
