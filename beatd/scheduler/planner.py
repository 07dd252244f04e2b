"""What one turn of the loop is to do: decisions, and the emissions they ask for."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from beatd.background import Faults
from beatd.brokers.items import Emission
from beatd.clock import Clock
from beatd.errors import MessageError
from beatd.event_log import EventLog, stamp
from beatd.ids import run_ids
from beatd.instant import LATEST, SECOND, Instant, Span
from beatd.message import EntryMessage, Made
from beatd.scheduler.calls_watch import Making
from beatd.scheduler.lost_writes import Lost
from beatd.scheduler.run_ends import IDLE, Busy, RunEnds
from beatd.scheduler.step import Step
from beatd.scheduler.takeover import Takeover
from beatd.text import counted
from beatd.timetable.entry import Due, Entry, Overlap
from beatd.timetable.ledger import Mark
from beatd.timetable.policy import HOLD, Decision, Reason, decide, slots_dropped

tell = EventLog(__name__)


class _Late(NamedTuple):
    """The last message of a step that ended early, or why it cannot be made."""

    id: str
    of: EntryMessage
    found: Emission | MessageError


class _Sending(NamedTuple):
    """What the emissions of one slot have in common, of entries that are due alike."""

    mark: Mark
    """Each entry's mark once the slot is emitted."""
    id_of: Callable[[str], str]
    """Returns the task id of an entry's run."""
    expires: Instant | None
    """When that slot's message expires if it does with the next slot."""


class Planner:
    """Applies the policies to what is due, and makes the messages of what is emitted.

    Nothing changes by that but which runs `RunEnds` knows.
    """

    def __init__(
        self,
        namespace: str,
        takeover: Takeover,
        run_ends: RunEnds,
        clock: Clock,
        longest: Span,
        paused: Callable[[], Collection[str]] = lambda: (),
    ) -> None:
        """A step ends early once its messages have taken `longest` to make.

        `paused` returns the entries whose slots are dropped for now.
        """
        self._paused = paused
        self._namespace = namespace
        self._takeover = takeover
        self._run_ends = run_ends
        self._clock = clock
        self._longest = longest
        self._elapsed: Span = 0
        """When the last message was made, or the first one was begun."""
        self._ends_at: Span = 0
        """When the step that is being made is to end."""
        self._late: dict[str, _Late] = {}
        """By entry, what may have been made in vain."""
        self._slow = Faults(clock)
        self.making: Making | None = None
        """What is being made in this moment; for other threads to look at."""

    def plan(self, batch: Sequence[Due], busy: Busy, now: Instant) -> Step:
        """Return the step for a batch of what is due, or for the first part of it."""
        if self._late:
            names = {entry.name for due in batch for entry in due.entries}
            self._late = {k: late for k, late in self._late.items() if k in names}
        paused = self._paused()
        decided = []
        for due in batch:
            for part in due.apart(paused, busy.runs):
                decide = _paused if part.entry.name in paused else _decision
                decided.append((part, decide(part, now, busy)))
        return self.step(decided, now, busy)

    def step(
        self,
        decided: Sequence[tuple[Due, Decision]],
        now: Instant,
        busy: Busy = IDLE,
    ) -> Step:
        """Return the step that carries out these decisions.

        An entry whose message cannot be made now is refused in it, as the broker might.
        Where the code of tasks takes long, only the first decisions are in it.
        """
        step = Step(decided, [], busy)
        self._elapsed = self._clock.elapsed()
        self._ends_at = self._elapsed + self._longest
        for number, (due, decision) in enumerate(decided):
            sendings = [
                self._sending(due, slot, runs)
                for runs, slot in enumerate(decision.emit, due.mark.runs + 1)
            ]
            moved = None if sendings else _moved(due, decision)
            drops = [
                (drop, slots_dropped(due.entry.schedule, drop))
                for drop in decision.dropped
            ]
            for place, entry in enumerate(due.entries):
                if moved:
                    # The ledger has to know, or they are due again after a restart.
                    step.moved.add((entry.name, moved.slot))
                    step.emissions.append(Emission(entry.name, moved, route=None))
                if drops:
                    step.drops[entry.name, (moved or sendings[0].mark).slot] = drops
                ended = self._send(step, entry, sendings, now)
                if ended is not None:
                    step.decided = [
                        *decided[:number],
                        *_until(due, decision, place, ended),
                    ]
                    return step
        return step

    def again(
        self, lost: Iterable[Lost], now: Instant, keep: Callable[[], object]
    ) -> Step | None:
        """Return the step that sends again, under the same ids, what was lost.

        `keep` renews the lead, if it is time.
        """
        step = Step([], [])
        for entry, mark, slots, _ in lost:
            first = mark.runs - len(slots) + 1
            for runs, slot in enumerate(slots, first):
                due = Due([entry], mark, slot, slot, entry.schedule.next_after(slot))
                keep()
                self._elapsed = self._clock.elapsed()
                self._ends_at = LATEST  # nothing is due before all of it is sent
                self._send(step, entry, [self._sending(due, slot, runs)], now)
                if entry.name in step.refused:
                    break
        step.emissions.sort(key=lambda emission: emission.mark.slot)
        return step if step.emissions or step.refused else None

    def _send(
        self, step: Step, entry: Entry, sendings: Sequence[_Sending], now: Instant
    ) -> Instant | None:
        """Add the emissions of an entry to a step.

        Returns the slot with which the step has to end, if it has taken too long.
        """
        for sending in sendings:
            since = self._elapsed
            self.making = entry.name, since
            found: Emission | MessageError
            try:
                found = self._emission(entry, sending, now)
                step.emissions.append(found)
            except MessageError as error:
                step.refuse(entry.name, sending.mark.slot, str(error))
                found = error
            self.making = None
            self._elapsed = self._clock.elapsed()
            if self._elapsed >= self._ends_at:
                self._say_slow(entry.name, self._elapsed - since)
                self._keep_late(entry, sending, found)
                return sending.mark.slot
            if isinstance(found, MessageError):
                break  # later slots of an entry come after its earlier ones
        return None

    def _emission(self, entry: Entry, sending: _Sending, now: Instant) -> Emission:
        """Return the emission of a slot. Raises MessageError if it cannot be made."""
        slot = sending.mark.slot
        id = sending.id_of(entry.name)
        made = self._take_late(entry, id) if self._late else None
        if made is None:
            made = entry.message.made(
                id=id,
                now=now,
                slot=slot,
                expires=sending.expires if entry.expires_next else None,
            )
        if made.route is None:
            _say_nothing_sent(entry.name, slot)
        run = ""
        if entry.policy.overlap is not Overlap.ALLOW and made.route is not None:
            run = made.task_id
            self._run_ends.sent(entry.name, run, now)
        return Emission(entry.name, sending.mark, made.route, made.message, run)

    def _keep_late(
        self, entry: Entry, sending: _Sending, found: Emission | MessageError
    ) -> None:
        """Keep what came last in a step: by now the lead may have run out.

        What takes longer to make than a lead lives would be made again under each term,
        and no term would emit anything.
        """
        id = sending.id_of(entry.name)
        self._late[entry.name] = _Late(id, entry.message, found)

    def _take_late(self, entry: Entry, id: str) -> Made | None:
        """Return the message that was kept, if it is this one: the step ends with it.

        Raises MessageError if it could not be made.
        """
        late = self._late.pop(entry.name, None)
        if late is None or late.id != id or late.of is not entry.message:
            return None
        self._ends_at = self._clock.elapsed()
        if isinstance(late.found, MessageError):
            raise late.found
        return Made(late.found.message, late.found.route, late.found.run)

    def _sending(self, due: Due, slot: Instant, runs: int) -> _Sending:
        expires = None
        if any(entry.expires_next for entry in due.entries):
            expires = _expiry(due, slot, runs)
        id_of = run_ids(self._namespace, self._takeover.era, slot)
        return _Sending(due.mark.emitted(slot, runs), id_of, expires)

    def _say_slow(self, name: str, took: Span) -> None:
        if took >= self._longest and (number := self._slow.meet()):
            tell.warning(
                "emit.slow",
                "%s: its task's code took %.1f s to make a message (%s): meanwhile"
                " nothing is emitted, of any entry",
                name,
                took / SECOND,
                counted(number, "such call"),
                entry=name,
                took=took,
            )


def _say_nothing_sent(name: str, slot: Instant) -> None:
    """Log that the task's own code has sent no message, and raised nothing."""
    tell.info(
        "emit.nothing",
        "%s: its task's code sends nothing for %s",
        name,
        stamp(slot),
        entry=name,
        slot=slot,
    )


def _paused(due: Due, now: Instant, busy: Busy) -> Decision:
    """Return what becomes of entries as if the config had paused them."""
    policy = replace(due.entry.policy, enabled=False)
    paused = due.of(replace(due.entry, policy=policy))
    return decide(paused, now, busy=False)


def _decision(due: Due, now: Instant, busy: Busy) -> Decision:
    """Apply the policies; hold an entry while it is not known to be busy."""
    name = due.entry.name
    decision = decide(due, now, name in busy.runs)
    if name in busy.unsure and decision.drops(Reason.OVERLAP):
        return HOLD
    return decision


def _until(
    due: Due, decision: Decision, place: int, slot: Instant
) -> Iterator[tuple[Due, Decision]]:
    """Yield the parts of a decision that end with this slot of the entry at a place."""
    if place:
        yield due.of(*due.entries[:place]), decision
    yield due.of(due.entries[place]), decision.up_to(slot)


def _moved(due: Due, decision: Decision) -> Mark | None:
    """Return the mark once slots are dropped on purpose; None if no slot is decided."""
    return None if decision.until is None else decision.mark_after(due.mark)


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
