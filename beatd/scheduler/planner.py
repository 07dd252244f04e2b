"""What one turn of the loop is to do: decisions, and the emissions they ask for."""

from collections.abc import Iterable, Sequence

from beatd.brokers.items import Emission
from beatd.ids import run_id
from beatd.instant import Instant
from beatd.scheduler.lost_writes import Lost
from beatd.scheduler.run_ends import IDLE, Busy, RunEnds
from beatd.scheduler.step import Step
from beatd.scheduler.takeover import Takeover
from beatd.timetable.entry import Due, Overlap
from beatd.timetable.policy import HOLD, Decision, Reason, decide


class Planner:
    """Applies the policies to what is due, and makes the messages of what is emitted.

    Nothing changes by that but which runs `RunEnds` knows.
    """

    def __init__(self, namespace: str, takeover: Takeover, run_ends: RunEnds) -> None:
        self._namespace = namespace
        self._takeover = takeover
        self._run_ends = run_ends

    def plan(self, batch: Sequence[Due], busy: Busy, now: Instant) -> Step:
        """Return the step for a batch of what is due."""
        if busy.runs:
            decided = [(due, _decision(due, now, busy)) for due in batch]
        else:
            decided = [(due, decide(due, now, busy=False)) for due in batch]
        return self.step(decided, now, busy)

    def step(
        self,
        decided: Sequence[tuple[Due, Decision]],
        now: Instant,
        busy: Busy = IDLE,
    ) -> Step:
        """Return the step that carries out these decisions."""
        emissions: list[Emission] = []
        for due, decision in decided:
            emissions += self._emissions(due, decision, now)
        return Step(decided, emissions, busy)

    def again(self, lost: Iterable[Lost], now: Instant) -> Step | None:
        """Return the step that sends again, under the same ids, what was lost."""
        emissions = []
        for entry, mark, slots, _ in lost:
            first = mark.runs - len(slots) + 1
            for runs, slot in enumerate(slots, first):
                due = Due(entry, mark, slot, slot, entry.schedule.next_after(slot))
                emissions.append(self._emission(due, slot, runs, now))
        emissions.sort(key=lambda emission: emission.mark.slot)
        return Step([], emissions) if emissions else None

    def _emissions(self, due: Due, decision: Decision, now: Instant) -> list[Emission]:
        """Return a decision's emissions, oldest first, each with the mark after it."""
        if not decision.emit:
            if decision.until is None:
                return []
            # Dropped on purpose: the ledger has to know, or the slots are due again
            # after a restart.
            return [Emission(due.entry.name, decision.mark_after(due.mark), route=None)]
        runs = due.mark.runs
        return [
            self._emission(due, slot, runs + number, now)
            for number, slot in enumerate(decision.emit, start=1)
        ]

    def _emission(self, due: Due, slot: Instant, runs: int, now: Instant) -> Emission:
        entry = due.entry
        task_id = run_id(self._namespace, entry.name, self._takeover.era, slot)
        message = entry.message.complete(
            id=task_id,
            tag=task_id,
            now=now,
            slot=slot,
            expires=_expiry(due, slot, runs) if entry.expires_next else None,
        )
        mark = due.mark.emitted(slot, runs)
        run = ""
        if entry.policy.overlap is not Overlap.ALLOW:
            run = entry.message.task_id or task_id
            self._run_ends.sent(entry.name, run, now)
        return Emission(entry.name, mark, entry.message.route, message, run)


def _decision(due: Due, now: Instant, busy: Busy) -> Decision:
    """Apply the policies to one entry; hold it while it is not known to be busy."""
    name = due.entry.name
    decision = decide(due, now, name in busy.runs)
    if name in busy.unsure and decision.drops(Reason.OVERLAP):
        return HOLD
    return decision


def _expiry(due: Due, slot: Instant, runs: int) -> Instant | None:
    """Return when the entry's next slot is emitted; None if `slot` is its last one."""
    entry, policy = due.entry, due.entry.policy
    following = due.following
    if slot != due.latest:
        following = entry.schedule.next_after(slot)
    if following is None or runs == policy.max_runs:
        return None
    if policy.end is not None and following > policy.end:
        return None
    return following + entry.offset
