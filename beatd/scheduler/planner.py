"""What one turn of the loop is to do: decisions, and the emissions they ask for."""

from collections.abc import Callable, Iterable, Sequence

from beatd.brokers.items import Emission, idle
from beatd.errors import MessageError
from beatd.event_log import EventLog
from beatd.ids import run_id
from beatd.instant import Instant, datetime_of
from beatd.scheduler.lost_writes import Lost
from beatd.scheduler.run_ends import IDLE, Busy, RunEnds
from beatd.scheduler.step import Step
from beatd.scheduler.takeover import Takeover
from beatd.timetable.entry import Due, Overlap
from beatd.timetable.policy import HOLD, Decision, Reason, decide

tell = EventLog(__name__)

PART = 20
"""The entries after which `on_part` is called."""


class Planner:
    """Applies the policies to what is due, and makes the messages of what is emitted.

    Nothing changes by that but which runs `RunEnds` knows.
    """

    def __init__(self, namespace: str, takeover: Takeover, run_ends: RunEnds) -> None:
        self._namespace = namespace
        self._takeover = takeover
        self._run_ends = run_ends

    def plan(
        self,
        batch: Sequence[Due],
        busy: Busy,
        now: Instant,
        on_part: Callable[[], object] = idle,
    ) -> Step:
        """Return the step for a batch of what is due."""
        if busy.runs:
            decided = [(due, _decision(due, now, busy)) for due in batch]
        else:
            decided = [(due, decide(due, now, busy=False)) for due in batch]
        return self.step(decided, now, busy, on_part)

    def step(
        self,
        decided: Sequence[tuple[Due, Decision]],
        now: Instant,
        busy: Busy = IDLE,
        on_part: Callable[[], object] = idle,
    ) -> Step:
        """Return the step that carries out these decisions.

        An entry whose message cannot be made now is refused in it, as the broker might.
        `on_part` is called now and then: the code of tasks may take long.
        """
        step = Step(decided, emissions := [], busy)
        for number, (due, decision) in enumerate(decided):
            if number % PART == 0:
                on_part()
            if not decision.emit:
                emissions += self._dropped(due, decision)
                continue
            for runs, slot in enumerate(decision.emit, due.mark.runs + 1):
                try:
                    emissions.append(self._emission(due, slot, runs, now))
                except MessageError as error:
                    step.refuse(due.entry.name, slot, str(error))
                    break  # later slots of an entry come after its earlier ones
        return step

    def again(self, lost: Iterable[Lost], now: Instant) -> Step | None:
        """Return the step that sends again, under the same ids, what was lost."""
        step = Step([], emissions := [])
        for entry, mark, slots, _ in lost:
            first = mark.runs - len(slots) + 1
            for runs, slot in enumerate(slots, first):
                due = Due(entry, mark, slot, slot, entry.schedule.next_after(slot))
                try:
                    emissions.append(self._emission(due, slot, runs, now))
                except MessageError as error:
                    step.refuse(entry.name, slot, str(error))
                    break
        emissions.sort(key=lambda emission: emission.mark.slot)
        return step if emissions or step.refused else None

    def _dropped(self, due: Due, decision: Decision) -> list[Emission]:
        """Return what says to the ledger that slots are dropped on purpose.

        It has to know, or they are due again after a restart.
        """
        if decision.until is None:
            return []
        return [Emission(due.entry.name, decision.mark_after(due.mark), route=None)]

    def _emission(self, due: Due, slot: Instant, runs: int, now: Instant) -> Emission:
        """Return the emission of a slot. Raises MessageError if it cannot be made."""
        entry = due.entry
        made = entry.message.made(
            id=run_id(self._namespace, entry.name, self._takeover.era, slot),
            now=now,
            slot=slot,
            expires=_expiry(due, slot, runs) if entry.expires_next else None,
        )
        if made.route is None:
            _say_nothing_sent(entry.name, slot)
        run = ""
        if entry.policy.overlap is not Overlap.ALLOW and made.route is not None:
            run = made.task_id
            self._run_ends.sent(entry.name, run, now)
        mark = due.mark.emitted(slot, runs)
        return Emission(entry.name, mark, made.route, made.message, run)


def _say_nothing_sent(name: str, slot: Instant) -> None:
    """Log that the task's own code has sent no message, and raised nothing."""
    tell.info(
        "emit.nothing",
        "%s: its task's code sends nothing for %s",
        name,
        f"{datetime_of(slot):%Y-%m-%dT%H:%M:%SZ}",
        entry=name,
        slot=slot,
    )


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
