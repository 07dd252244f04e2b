"""What came to the queues, against what had to come."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from beatd.instant import MINUTE, Instant
from tests.simulation.expected import slots_of_cron, slots_of_interval
from tests.simulation.plan import PLAN, SETTLING, Plan, Run

RECOVERY = 3 * MINUTE
"""How long after a trouble a late slot may still give way to a later one."""


@dataclass
class Verdict:
    """What is wrong with a history; all empty when nothing is."""

    slots: int = 0
    """How many slots had to come."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.unexpected)


def verdict_of(run: Run, plan: Plan = PLAN) -> Verdict:
    """Compare the queues of a run with the slots of its plan."""
    came = _came(run.broker.came)
    verdict = Verdict()
    begin, end = run.start + SETTLING, run.end - SETTLING // 2
    for name in [*plan.crons, *plan.intervals]:
        got = came.get(name, Counter())
        slots = _slots(plan, name, begin, end)
        verdict.slots += len(slots)
        lost = [slot for slot in slots if slot not in got]
        if name in plan.coalesced:
            lost = [slot for slot in lost if not _may_give_way(run, slot)]
        wrong = [slot for slot in got if begin <= slot <= end and slot not in slots]
        doubled = [slot for slot, number in got.items() if number > 1]
        for words, some in (
            (verdict.lost, lost),
            (verdict.unexpected, wrong),
            (verdict.doubled, doubled),
        ):
            words += [f"{name} {_shown(slot)}" for slot in sorted(some)]
    return verdict


def _slots(plan: Plan, name: str, begin: Instant, end: Instant) -> set[Instant]:
    if name in plan.crons:
        return set(slots_of_cron(*plan.crons[name], begin, end))
    return set(slots_of_interval(plan.intervals[name], begin, end))


def _came(messages: Sequence[tuple[Instant, bytes]]) -> Mapping[str, Counter[Instant]]:
    """Return by entry how often each slot came."""
    came: dict[str, Counter[Instant]] = {}
    for _, message in messages:
        headers = json.loads(message)["headers"]
        slot = datetime.fromisoformat(headers["beatd_slot"])
        slots = came.setdefault(headers["beatd_entry"], Counter())
        slots[round(slot.timestamp() * 1000)] += 1
    return came


def _may_give_way(run: Run, slot: Instant) -> bool:
    """Return whether something was wrong about the time of the slot."""
    return any(
        since - MINUTE <= slot <= until + RECOVERY for since, until in run.troubles
    )


def _shown(slot: Instant) -> str:
    return f"{datetime.fromtimestamp(slot / 1000).astimezone():%Y-%m-%dT%H:%M:%S%z}"
