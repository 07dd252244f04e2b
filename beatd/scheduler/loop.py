"""The loop that emits each slot once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from beatd.background import Backoff, Outage
from beatd.brokers.base import Emitter
from beatd.brokers.items import Emission, Emitted, Outcome, Term
from beatd.clock import Clock, Wake
from beatd.errors import BrokerUnavailable, LedgerMoved, TermOver
from beatd.event_log import EventLog
from beatd.instant import SECOND, Instant, Span
from beatd.routing import Queue
from beatd.scheduler.calls_watch import Making
from beatd.scheduler.chronicle import Chronicle, PageReader
from beatd.scheduler.configs import Configs
from beatd.scheduler.emission_log import log_emissions
from beatd.scheduler.leadership import STANDBY_LOOK, Leadership
from beatd.scheduler.ledger_file import LedgerFile
from beatd.scheduler.pauses import Pauses
from beatd.scheduler.planner import Planner
from beatd.scheduler.progress import Progress
from beatd.scheduler.pulse import Pulse
from beatd.scheduler.reload import NewConfig
from beatd.scheduler.run_ends import RunEnds
from beatd.scheduler.step import BATCH, Step
from beatd.scheduler.takeover import Takeover
from beatd.text import counted
from beatd.timetable.entry import Entry
from beatd.timetable.timetable import CLOCK_TOLERANCE, Timetable

tell = EventLog(__name__)

LONGEST_NAP: Span = SECOND
"""The loop turns at least this often: to see a stepped clock, to hold the lead."""


class EmissionListener(Protocol):
    """Is told what was emitted, and never makes the scheduler wait."""

    def emitted(self, emissions: Sequence[Emission]) -> None:
        """Take note of emissions whose messages were just put on queues."""
        ...

    def close(self) -> None:
        """Take no more notes: nothing will be emitted."""
        ...


@dataclass
class Scheduler:
    """Emits each slot of the timetable once, for as long as this process leads.

    Why once: the broker writes a message and the ledger's new row in one step, under a
    term, and never queues a slot that its ledger has. A slot that was emitted but not
    noted here, because an answer was lost or a process died, is sent again, and the
    broker passes over it. Nothing is emitted under a term that has not begun: before
    that, the timetable may not agree with the ledger. A slot that the broker refuses is
    in no ledger, and stays due here with all later ones of its entry.
    """

    takeover: Takeover
    timetable: Timetable
    leadership: Leadership
    broker: Emitter
    file: LedgerFile
    clock: Clock
    namespace: str
    ended: Callable[[Collection[str]], Collection[str]] = lambda task_ids: ()
    """Returns the given task ids that have a result: Celery's workers do not tell the
    broker that a run has ended. The service has it answer at once, with what was heard
    last (`AskedAside`)."""
    unanswered: Callable[[Collection[str]], Collection[str]] = lambda task_ids: ()
    """Returns the given task ids about which nothing was heard yet, and soon will be:
    slots that depend on that are held for so long."""
    result_ttl: Span | None = None
    """How long results are kept: nobody else tells of runs of Celery's workers."""
    listener: EmissionListener | None = None
    pauses: Pauses | None = None
    """The entries that are paused while beatd runs; None: none ever are."""
    has_ended: Callable[[str], bool] = lambda leader: False
    """Returns whether the process of that name is gone: it may have the lead still."""
    write_file: Callable[[], object] | None = None
    """Has another thread write soon what the file was told: the emission does not wait
    for it. None: the loop writes it."""
    on_tick: Callable[["Scheduler"], None] = lambda scheduler: None
    """Called at the end of each turn of the loop: watchdog, status."""
    pulse: Pulse = field(default_factory=Pulse)
    longest_nap: Span = LONGEST_NAP
    standby_look: Span = STANDBY_LOOK

    standing_by: str = field(default="", init=False)
    """The name of the process that leads instead; empty while none is known."""
    _term: Term | None = field(default=None, init=False)
    """The term that has begun; None without one, and when it has to begin anew."""
    _unanswered: Step | None = field(default=None, init=False)
    """The step under way, kept until the broker has answered for all of it."""
    _offset: Span = field(default=0, init=False)
    """The most that the wall clock was ahead of the monotonic one in this term."""
    _due_since: Span | None = field(default=None, init=False)
    """Since when each turn has left something due; None if the last one has not."""
    _outage: Outage = field(init=False)
    _standby_outage: Outage = field(init=False)
    """Where another one leads, nothing is due here that is not emitted."""
    _backoff: Backoff = field(default_factory=Backoff, init=False)
    _planner: Planner = field(init=False)
    _progress: Progress = field(init=False)
    _run_ends: RunEnds = field(init=False)
    _chronicle: Chronicle = field(init=False)
    _configs: Configs = field(init=False)

    def __post_init__(self) -> None:
        self._chronicle = Chronicle(self.broker, self.clock, self.takeover.history)
        self._configs = Configs(self.leadership.lead, self.file, self.clock)
        self._run_ends = RunEnds(self.broker, self.clock, self.result_ttl)
        self._planner = Planner(
            self.namespace,
            self.takeover,
            self._run_ends,
            self.clock,
            # Each step renews the lead.
            longest=min(SECOND, self.leadership.ttl // 3),
            paused=lambda: self.pauses.known if self.pauses else (),
        )
        self._progress = Progress(
            self.timetable,
            self.file,
            self.clock,
            self.pulse,
            self._chronicle.tell,
            lambda entry: self.pauses.note_of(entry) if self.pauses else "",
        )
        again = "trying again about once a second"
        meanwhile = f"{again}; what is due meanwhile is emitted then"
        self._outage = Outage("stopped emitting", "broker", self.clock, meanwhile)
        meanwhile = f"{again}; until then this standby could not take over"
        what = "cannot reach the broker"
        self._standby_outage = Outage(what, "broker", self.clock, meanwhile)

    @property
    def outage(self) -> str:
        """Why nothing can be emitted just now; empty when all is well."""
        return self._outage.reason or self._standby_outage.reason

    def have_pages_read(self, reader: PageReader) -> None:
        """Have somebody told what the pages of the history say."""
        self._chronicle.reader = reader

    @property
    def making(self) -> Making | None:
        """What the loop makes in this moment; for other threads to look at."""
        return self._planner.making

    @property
    def refused(self) -> Mapping[str, str]:
        """By entry, why the broker refuses its emission."""
        return self._progress.refused

    @property
    def held(self) -> Mapping[str, str]:
        """By entry, why an overlap rule has let none of its slots through for long."""
        return self._progress.held

    @property
    def differs(self) -> str:
        """What nobody emits, as a scheduler with another config leads."""
        return self._configs.problem

    @property
    def digest(self) -> str:
        """What stands for the entries of this scheduler; empty until it is known."""
        return self._configs.digest

    @property
    def era(self) -> int:
        """The clock era, part of the ids of all that is emitted."""
        return self.takeover.era

    def run(self, inbox: SimpleQueue[Wake], reload: Callable[[], None]) -> None:
        """Tick until told to stop; call `reload` when told to reload."""
        now = wake_at = self.clock.now()
        try:
            # A clock that is set back within a tick must not make the nap longer.
            while (
                wake := self.clock.wait(inbox, wake_at, at_most=wake_at - now)
            ) is not Wake.STOP:
                if wake is Wake.RELOAD:
                    reload()
                elif wake is Wake.LOOK:
                    self._progress.end_holds(self.clock.now())
                now = self.clock.now()
                wake_at = self.tick(now)
                self.on_tick(self)
        finally:
            # Also after a fault of ours: the process may live on, as a worker.
            self.stop()

    def tick(self, now: Instant) -> Instant:
        """Emit one batch of what is due at `now`; return when to look again."""
        try:
            wake_at = self._turn(now)
        except TermOver:
            self.leadership.lose()
            return now + self.standby_look
        except LedgerMoved as error:
            tell.warning("ledger.moved", "%s; the term begins anew", error)
            self._term = None
            # A second writer under this term would move it again and again.
            return now + self._backoff.lengthen()
        except BrokerUnavailable as error:
            # What was not emitted is still due, here or with the next leader.
            outage = self._standby_outage if self.follows else self._outage
            outage.meet(error)
            return now + self._backoff.lengthen()
        self._outage.end()
        self._standby_outage.end()
        self._backoff.reset()
        return wake_at

    def _turn(self, now: Instant) -> Instant:
        """Do what `tick` does, with every error of the broker let through."""
        # Read at the same moment as `now`: beginning a term may take long.
        offset = now - self.clock.elapsed()
        term = self._lead()
        if term is None:
            self._stand_by()
            return now + self.standby_look
        if term != self._term or self._clock_was_set_back(offset):
            # Read anew: the lead may have been long in coming, and what another process
            # emitted meanwhile is not ahead of the clock.
            now = self.clock.now()
            self._begin(term, now)
            self._offset = offset
        elif self._clock_jumped(offset):
            # Left half-way, this is done by the beginning of a term.
            self._term = None
            self.timetable.catch_up(now, partial(self.leadership.keep, term))
            self._term = term
        self._emit(term, now)
        if self.takeover.configs.waiting:
            self._go_over(term, now)
        nap = min(self.longest_nap, self.leadership.ttl // 3)
        wake_at = min(self.timetable.next_at() or now + nap, now + nap)
        elapsed = self.clock.elapsed()
        if wake_at > now:
            self._due_since = None
        elif self._due_since is None:
            self._due_since = elapsed
        if self._due_since is None or elapsed - self._due_since >= SECOND:
            # What nobody waits for goes on while nothing is due, or once a second: no
            # batch of a burst that is shorter waits for it.
            if self._due_since is not None:
                self._due_since = elapsed
            if not self._configs.announce(term, self.takeover.configs.entries):
                wake_at = now
            if self._chronicle.fold(term, now, self.era):
                wake_at = now
            (self.write_file or self.file.flush)()
        return now if self.takeover.configs.waiting else wake_at

    def _emit(self, term: Term, now: Instant) -> None:
        """Emit one batch of what is due, then move the timetable on."""
        # A step whose answer is lost is sent again as it was: what got through is
        # known to the broker's ledger, and counted once.
        step = self._unanswered = self._unanswered or self._decide(now)
        while part := step.next_part():
            sent = step.sent + len(part)
            if step.refused:
                part = [emission for emission in part if step.is_open(emission)]
            asked, edition = self.clock.elapsed(), self.takeover.edition.following
            page = self._chronicle.page(step, part, now, self.era)
            ttl = self.leadership.ttl
            try:
                outcomes = self.broker.emit(term, part, ttl, edition, page)
            except BrokerUnavailable:
                if step.asked_under is None:
                    self.takeover.lost_writes.recent.add(edition.version, step.decided)
                step.asked_under = term
                raise
            self.takeover.edition = edition
            self.leadership.renewed(asked)
            step.sent = sent
            step.note(part, outcomes)
            answered = self.clock.now(), self.clock.elapsed()
            self.pulse.note_answers(part, outcomes, *answered, self.timetable.offset)
            log_emissions(
                part,
                outcomes,
                now,
                entries=self.takeover.configs.entries,
                timetable=self.timetable,
                namespace=self.namespace,
                era=self.era,
            )
            if self.listener:
                self.listener.emitted(_queued(part, outcomes))
        # Only now, after the broker answered: a crash before this line emits the
        # batch again, and the broker's ledger knows it.
        self._unanswered = None
        version = None
        if step.emissions:
            version = self.takeover.edition.version
            self.takeover.lost_writes.recent.add(version, step.carried_out())
        self._progress.note(step, now, version)
        self.pulse.refused += len(step.refused)
        if step.surprises:
            self._meet_another_emitter(step.surprises)

    def _meet_another_emitter(self, known: Sequence[Emission]) -> None:
        """Say that the ledger had slots that this term did not emit; lead anew.

        Raises TermOver.
        """
        tell.warning(
            "emit.known_at_first",
            "the broker's ledger has %s already that this scheduler sent for the"
            " first time, of %s first of all: something else writes to it; a new term"
            " begins, from what the ledger says",
            counted(len(known), "slot"),
            known[0].entry,
            entry=known[0].entry,
            slot=known[0].mark.slot,
        )
        self.leadership.doubt()
        raise TermOver("the ledger has slots that this term did not emit")

    def _decide(self, now: Instant) -> Step:
        """Apply the policies to one batch of what is due; nothing has changed yet."""
        batch = self.timetable.due(self._due_by(now), BATCH)
        busy = self._run_ends.busy(batch, now, self.ended, self.unanswered)
        return self._planner.plan(batch, busy, now)

    # Leadership

    def _lead(self) -> Term | None:
        """Return the term under which this process leads; None while it stands by."""
        if self.takeover.aside.is_on:
            return None
        return self.leadership.hold(self.file.highest_term())

    def _clock_was_set_back(self, offset: Span) -> bool:
        """Return whether the wall clock lost time against the monotonic clock."""
        return offset < self._offset - CLOCK_TOLERANCE

    def _clock_jumped(self, offset: Span) -> bool:
        """Return whether the wall clock gained time against the monotonic clock."""
        before, self._offset = self._offset, max(self._offset, offset)
        return offset > before + CLOCK_TOLERANCE

    @property
    def follows(self) -> str:
        """Return who leads instead, if it is certain that anybody does; else empty."""
        return "" if self.takeover.aside.is_on else self.standing_by

    def _begin(self, term: Term, now: Instant) -> None:
        """Begin a term, renewing the lead between the parts of the work."""
        # A beginning that fails half-way is done anew.
        self._term = None
        if self._unanswered and self._unanswered.asked_under == term:
            # The request may yet arrive, after marks were set back or rows written.
            self._unanswered = None
            self.leadership.doubt()
            raise TermOver("an emission may arrive late: a new term begins")
        # A step without an answer is forgotten: the ledger, which is read now, has what
        # got through of it, and the rest is due again.
        self.standing_by, self._unanswered = "", None
        keep = partial(self.leadership.keep, term)
        if self.pauses:
            self.pauses.look()
        for _ in self.takeover.begin(term, now, on_part=keep):
            keep()
        self._configs.begin_term()
        self._progress.begin_term()
        self._chronicle.begin_term()
        self._chronicle.tell(*self.takeover.lost_writes.take_told())
        self._run_ends.keep(self.timetable)
        lost, self.takeover.lost = self.takeover.lost, []
        self._unanswered = self._planner.again(lost, now, keep)
        self._term = term
        self.pulse.terms += 1

    def _stand_by(self) -> None:
        """Leave the file to the process that leads, and keep a copy of its ledger."""
        self._term = None
        self.takeover.leave_out_configs(self.leadership.told, self.clock.now())
        self._progress.end_term()
        if not self.standing_by:
            # `Takeover.begin` locks the file first of all, even if it then fails.
            self.file.flush()
            self.file.unlock()
            self._note_leader(is_known=not self.takeover.aside.is_on)
        if self.takeover.refresh_is_due:
            self._note_leader(is_known=True)
            self.takeover.refresh()
        if self._configs.agree(self.leadership.holder, self.takeover.configs.last):
            self.takeover.configs.follow_leader()

    def _note_leader(self, *, is_known: bool) -> None:
        """Note who leads; say so if that changed, and if there is one for certain."""
        before, leader = self.standing_by, self.leadership.leader()
        if not is_known:
            leader = leader or "another"  # that is waited for
        self.standing_by = leader
        if not is_known or leader in ("", before):
            return
        if self.has_ended(leader):
            words = "%s has the lead still and does not run any more: it runs out soon"
            tell.info("lead.left_over", words, leader)
        else:
            tell.info("standby", "standing by: %s leads", leader)

    # A reload

    def _due_by(self, now: Instant) -> Instant:
        """Return the instant up to which slots are those of the present config."""
        waiting = self.takeover.configs.waiting
        return min(now, waiting[0].at) if waiting else now

    def _go_over(self, term: Term, now: Instant) -> None:
        """Go over to the next config, if all that was due by the present one is done.

        Slots that an overlap rule or the broker holds up are not waited for: they stay
        due if they are slots of the next config, too, and else are dropped.
        """
        at = self._due_by(now)
        if self.timetable.due(at, 1):
            return
        new = self.takeover.configs.waiting[0]
        decided = [*new.last_decisions(self.timetable, at)]
        if decided:
            self._unanswered = self._planner.step(decided, now)
            self._emit(term, now)
        self.takeover.configs.go_over()
        self._begin(term, now)

    # From outside of the loop

    def replace(
        self,
        entries: Mapping[str, Entry],
        keep: Collection[str],
        queues: Collection[Queue],
    ) -> None:
        """Schedule these entries from now on; unchanged ones keep their place.

        What is due by now by the earlier ones is emitted or dropped first. Without the
        lead or a broker that waits until there are both.
        """
        new = NewConfig(entries, keep, queues, self.clock.now())
        self.takeover.configs.add(new)
        if not (self.takeover.has_begun or self.standing_by):
            # No config holds yet.
            self.takeover.configs.go_over()
            self._term = None
        if self.outage:
            tell.warning(
                "reload.waits",
                "the new config waits until the broker answers: what is due by now is"
                " emitted by the earlier one first",
            )

    def stop(self) -> None:
        """Write the file, and give the lead back without waiting for a lost broker."""
        try:
            self.file.flush()
        finally:
            # If the broker is away, asking it would only last until the time-out.
            if not self.outage:
                self._resign()
            self.leadership.let_go()
            self.file.unlock()
            if self.listener:
                self.listener.close()

    def _resign(self) -> None:
        try:
            self.leadership.resign()
        except BrokerUnavailable as error:
            tell.warning(
                "lead.left",
                "could not give the lead back, it runs out by itself: %s",
                error,
            )


def _queued(
    emissions: Sequence[Emission], outcomes: Sequence[Emitted]
) -> list[Emission]:
    """Return those emissions that put a message on a queue."""
    pairs = zip(emissions, outcomes, strict=True)
    return [emission for emission, outcome in pairs if outcome is Outcome.QUEUED]
