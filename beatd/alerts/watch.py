"""Finds out what there is to tell of entries: records and states in, events out.

Pure in all but its own state: no clock, no broker. What happened comes as records of
the history, and what became of runs as the states that the results have, as in `beatd
history`: an alert never says what the history does not.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import msgspec

from beatd.alerts.event import ENDED, FAILING, STARTED, Event, ordinal
from beatd.alerts.state import EntryState, OpenRun, Seen
from beatd.config.alert_rules import AlertRule, AlertRules, as_written
from beatd.config.settings import AlertKind
from beatd.ids import run_id
from beatd.instant import SECOND, Instant, Span, datetime_of, delay
from beatd.results.base import READY_STATES, State
from beatd.text import counted
from beatd.timetable.pages import NOTHING_SENT, Record, What
from beatd.timetable.policy import Reason

LOOK: Span = 5 * SECOND
"""How often to ask what became of a run, at first: then after each quarter of its age.
"""

MOST_OPEN, MOST_OF_ENTRY = 10_000, 100
"""Runs that are asked for at a time, of all entries and of one."""

SEEN_GONE = 2
"""Looks after which a run counts as ended that a worker held, and holds no more."""

_WANTED = {str(Reason.PAUSED), str(Reason.REPLACED), NOTHING_SENT}
"""Reasons for which a slot is not sent because somebody wanted that."""

REFUSED = "refused"


@dataclass
class Watch:
    """What has been told of each entry, and which runs are open."""

    rules: AlertRules
    namespace: str
    zone: ZoneInfo
    offsets: Mapping[str, Span]
    """By entry, how long after its slots it is sent, unless that is 0."""
    knows_ends: bool = True
    """Whether there are results that tell how runs end."""
    states: dict[str, EntryState] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Entries whose states changed since this was last emptied."""
    unknown: set[str] = field(default_factory=set)
    """Entries of whose runs nobody told how they ended."""
    open: int = 0
    """How many runs are open."""
    _late: set[str] = field(default_factory=set)
    """Entries whose last slot was sent late."""

    def load(self, states: Mapping[str, EntryState]) -> None:
        """Go on from what another process, or term, has left."""
        self.states = dict(states)
        self.changed.clear()
        self.open = sum(len(state.runs) for state in self.states.values())

    def id_of(self, entry: str, run: OpenRun) -> str:
        """Return the task id of a run."""
        return run_id(self.namespace, entry, run.era, run.slot)

    # Records

    def take(self, entry: str, record: Record) -> Iterator[Event]:
        """Yield what a record of the history tells."""
        rule = self.rules.of(entry)
        if rule is None:
            return
        match record.what:
            case What.SENT:
                yield from self._sent(entry, record, rule)
            case What.DROPPED if record.why not in _WANTED:
                yield from self._missed(entry, record, rule, record.why)
            case What.UNCERTAIN:
                why = "uncertain: the broker lost what was sent"
                yield from self._missed(entry, record, rule, why)

    def _sent(self, entry: str, record: Record, rule: AlertRule) -> Iterator[Event]:
        late = record.late - self.offsets.get(entry, 0)
        if late <= rule.max_late:
            self._late.discard(entry)
        elif entry not in self._late:
            self._late.add(entry)
            limit = f"max_late is {as_written(rule.max_late)}"
            words = f"slot {self._when(record.slot)} was sent {delay(late)} late"
            yield from self._alert(
                AlertKind.LATE, entry, rule, record.at, f"{words}; {limit}", record
            )
        self._unsay(entry, AlertKind.MISSED)
        if not self.knows_ends and rule.ping:
            words = f"slot {self._when(record.slot)} was sent; how it ends is not known"
            id = run_id(self.namespace, entry, record.era, record.slot)
            yield Event(ENDED, entry, record.at, words, record.slot, id)
        if not (rule.watches_runs if self.knows_ends else rule.waits):
            return
        state = self._state(entry)
        run = OpenRun(record.slot, record.era, record.at)
        if any((one.slot, one.era) == (run.slot, run.era) for one in state.runs):
            return
        state.runs.append(run)
        self.open += 1
        self.changed.add(entry)
        if len(state.runs) > MOST_OF_ENTRY:
            self._give_up(entry, state.runs[0])
        while self.open > MOST_OPEN:
            oldest = next(name for name, one in self.states.items() if one.runs)
            self._give_up(oldest, self.states[oldest].runs[0])
        if self.knows_ends and rule.ping and rule.ping.start:
            words = f"slot {self._when(record.slot)} was sent"
            yield self._event(STARTED, entry, record.at, words, run)

    def _missed(
        self, entry: str, record: Record, rule: AlertRule, why: str
    ) -> Iterator[Event]:
        if AlertKind.MISSED in self._said(entry):
            return
        self._say(entry, AlertKind.MISSED)
        slots = f"slot {self._when(record.slot)} was"
        if record.last is not None:
            slots = (
                f"{counted(record.number, 'slot')} from {self._when(record.slot)}"
                f" to {self._when(record.reach)} were"
            )
        yield from self._alert(
            AlertKind.MISSED, entry, rule, record.at, f"{slots} not sent: {why}", record
        )

    # What is refused

    def refused(self, reasons: Mapping[str, str], now: Instant) -> Iterator[Event]:
        """Yield what there is to tell of entries that the broker refuses just now."""
        for entry, state in [*self.states.items()]:
            if REFUSED in state.said and entry not in reasons:
                self._unsay(entry, REFUSED)
        for entry, reason in reasons.items():
            rule = self.rules.of(entry)
            if rule is None or REFUSED in self._said(entry):
                continue
            self._say(entry, REFUSED)
            words = f"it is refused, and tried again: {reason}"
            event = Event(AlertKind.MISSED, entry, now, words, reason=reason)
            if AlertKind.MISSED in rule.kinds:
                yield event

    # Runs

    def to_ask(self, now: Instant) -> Iterator[tuple[str, OpenRun, AlertRule]]:
        """Yield the open runs about which it is time to ask."""
        for entry, state in self.states.items():
            rule = self.rules.of(entry) if state.runs else None
            if rule:
                for run in state.runs:
                    if run.ask_at <= now:
                        yield entry, run, rule

    def look(self, seen: Seen, now: Instant) -> Iterator[Event]:
        """Yield what there is to tell after a look at the runs of `to_ask`."""
        asked = sorted(self.to_ask(now), key=lambda one: one[1].sent)
        for entry, run, rule in asked:
            id = self.id_of(entry, run)
            state = seen.states.get(id, "")
            if state in READY_STATES:
                self._close(entry, run)
                why = seen.reasons.get(id, "")
                yield from self._ended(entry, run, rule, state, why, now)
                continue
            is_held = seen.held is not None and id in seen.held
            if is_held or state in _TAKEN:
                self._note_taken(entry, run, now)
            elif seen.held is not None and run.taken is not None and rule.waits:
                run.gone += 1
                if run.gone >= SEEN_GONE:
                    self._give_up(entry, run)
                    continue
            yield from self._goes_on(entry, run, rule, id in seen.waiting, now)
            run.ask_at = self._next_look(run, rule, now)

    def _note_taken(self, entry: str, run: OpenRun, now: Instant) -> None:
        run.gone = 0
        if run.taken is None:
            run.taken = now
            self.changed.add(entry)
            if not self.knows_ends:
                self._unsay(entry, AlertKind.NOT_TAKEN)

    def _goes_on(
        self, entry: str, run: OpenRun, rule: AlertRule, waits: bool, now: Instant
    ) -> Iterator[Event]:
        age = now - run.sent
        if waits and rule.max_wait is not None and age >= rule.max_wait:
            if not run.is_said:
                run.is_said = True
                self.changed.add(entry)
                words = (
                    f"nobody has taken the message of slot {self._when(run.slot)} for"
                    f" {delay(age)}; max_wait is {as_written(rule.max_wait)}"
                )
                yield from self._told(AlertKind.NOT_TAKEN, entry, run, rule, now, words)
        elif run.taken is not None and rule.max_run is not None and not run.is_long:
            age = now - run.taken
            if age >= rule.max_run and not run.gone:
                run.is_long = True
                self.changed.add(entry)
                words = (
                    f"the run of slot {self._when(run.slot)} goes on for"
                    f" {delay(age)}; max_run is {as_written(rule.max_run)}"
                )
                yield from self._told(AlertKind.TOO_LONG, entry, run, rule, now, words)

    def _told(
        self,
        kind: AlertKind,
        entry: str,
        run: OpenRun,
        rule: AlertRule,
        now: Instant,
        words: str,
    ) -> Iterator[Event]:
        if kind in rule.kinds and kind not in self._said(entry):
            self._say(entry, kind)
            yield self._event(kind, entry, now, words, run)

    def _ended(
        self,
        entry: str,
        run: OpenRun,
        rule: AlertRule,
        state: str,
        why: str,
        now: Instant,
    ) -> Iterator[Event]:
        slot = f"the run of slot {self._when(run.slot)}"
        if state == State.FAILURE:
            yield from self._failed(entry, run, rule, why, now)
        elif state == State.REVOKED:
            # Somebody cancelled it, or it expired: that says nothing of the task.
            yield self._event(ENDED, entry, now, f"{slot} was revoked", run)
        else:
            yield self._event(ENDED, entry, now, f"{slot} succeeded", run)
            yield from self._succeeded(entry, run, rule, now)

    def _succeeded(
        self, entry: str, run: OpenRun, rule: AlertRule, now: Instant
    ) -> Iterator[Event]:
        before = self._state(entry)
        over = [kind for kind in before.said if kind in _RECOVERS]
        if before.failures:
            before.failures = 0
            self.changed.add(entry)
        for kind in over:
            self._unsay(entry, kind)
        self._forget_if_well(entry)
        if over and AlertKind.RECOVERED in rule.kinds:
            told = " and ".join(kind.replace("_", " ") for kind in over)
            words = f"the run of slot {self._when(run.slot)} succeeded, after: {told}"
            yield self._event(AlertKind.RECOVERED, entry, now, words, run)

    def _failed(
        self, entry: str, run: OpenRun, rule: AlertRule, why: str, now: Instant
    ) -> Iterator[Event]:
        state = self._state(entry)
        state.failures += 1
        self.changed.add(entry)
        number = state.failures
        row = "" if number == 1 else f", the {ordinal(number)} in a row"
        words = f"the run of slot {self._when(run.slot)} failed{row}"
        words += f": {why}" if why else ""
        if number < rule.failures:
            limit = f"; {rule.failures} in a row are an alert"
            yield self._event(ENDED, entry, now, words + limit, run, number, why)
        elif AlertKind.FAILED in state.said:
            yield self._event(FAILING, entry, now, words, run, number, why)
        elif AlertKind.FAILED in rule.kinds:
            self._say(entry, AlertKind.FAILED)
            yield self._event(AlertKind.FAILED, entry, now, words, run, number, why)
        if rule.pause_after and number >= rule.pause_after and not state.is_paused:
            state.is_paused = True
            row = f"{counted(number, 'failure')}{' in a row' if number > 1 else ''}"
            note = f"{row}, the last one of slot {self._when(run.slot)}"
            words = f"it is paused until `beatd resume`: {note}"
            paused = self._event(AlertKind.PAUSED, entry, now, words, run, number)
            yield msgspec.structs.replace(paused, reason=note)

    # Pauses

    def paused(self) -> Collection[str]:
        """Return the entries that were paused from here."""
        return [name for name, state in self.states.items() if state.is_paused]

    def resumed(self, entry: str) -> None:
        """Begin to count anew for an entry that was paused from here."""
        state = self.states[entry]
        state.is_paused, state.failures = False, 0
        self.changed.add(entry)
        self._unsay(entry, AlertKind.FAILED)
        self._forget_if_well(entry)

    # Its own state

    def keep(self, has_entry: Callable[[str], bool]) -> None:
        """Forget what is known of entries that there are no more."""
        for entry in [name for name in self.states if not has_entry(name)]:
            self.open -= len(self.states.pop(entry).runs)
            self.changed.add(entry)

    def _next_look(self, run: OpenRun, rule: AlertRule, now: Instant) -> Instant:
        at = now + max(LOOK, (now - run.sent) // 4)
        if rule.max_wait is not None and not run.is_said and run.taken is None:
            at = min(at, max(run.sent + rule.max_wait, now + LOOK))
        if rule.max_run is not None and run.taken is not None and not run.is_long:
            at = min(at, max(run.taken + rule.max_run, now + LOOK))
        return at

    def _give_up(self, entry: str, run: OpenRun) -> None:
        """Ask no more about a run: nobody tells how it ended."""
        self._close(entry, run)
        self.unknown.add(entry)
        if not self.knows_ends:
            # No success will tell that it is well again.
            self._unsay(entry, AlertKind.NOT_TAKEN)
            self._unsay(entry, AlertKind.TOO_LONG)
        self._forget_if_well(entry)

    def _close(self, entry: str, run: OpenRun) -> None:
        self.states[entry].runs.remove(run)
        self.open -= 1
        self.changed.add(entry)

    def _state(self, entry: str) -> EntryState:
        state = self.states.get(entry)
        if state is None:
            state = self.states[entry] = EntryState(said=[], runs=[])
        return state

    def _said(self, entry: str) -> Collection[str]:
        state = self.states.get(entry)
        return state.said if state else ()

    def _say(self, entry: str, kind: str) -> None:
        said = self._state(entry).said
        if kind not in said:
            said.append(str(kind))
            self.changed.add(entry)

    def _unsay(self, entry: str, kind: str) -> None:
        if kind in self._said(entry):
            self.states[entry].said.remove(kind)
            self.changed.add(entry)
            self._forget_if_well(entry)

    def _forget_if_well(self, entry: str) -> None:
        if entry in self.states and not self.states[entry]:
            del self.states[entry]

    # Words

    def _alert(
        self,
        kind: AlertKind,
        entry: str,
        rule: AlertRule,
        at: Instant,
        words: str,
        record: Record,
    ) -> Iterator[Event]:
        if kind in rule.kinds:
            number = record.number if record.last is not None else 0
            yield Event(
                kind, entry, at, words, record.slot, number=number, reason=record.why
            )

    def _event(
        self,
        kind: str,
        entry: str,
        at: Instant,
        words: str,
        run: OpenRun,
        number: int = 0,
        reason: str = "",
    ) -> Event:
        id = self.id_of(entry, run)
        return Event(str(kind), entry, at, words, run.slot, id, number, reason)

    def _when(self, instant: Instant) -> str:
        moment = datetime_of(instant, self.zone)
        return f"{moment.day} {moment:%b %H:%M:%S %Z}"


_TAKEN = {State.RECEIVED, State.STARTED, State.RETRY}
_RECOVERS = {AlertKind.FAILED, AlertKind.NOT_TAKEN, AlertKind.TOO_LONG}
"""Alerts that the next run which succeeds puts right."""
