"""The worker's loop: takes deliveries, has them run, and settles them.

    broker -> Intake -> inbox -> Worker -> pool -> inbox -> Worker -> keep -> settle

Runs that wait are in backlog.py, runs that the pool has in workload.py. admission.py
decides which deliveries run at all, outcomes.py what becomes of each. Here they meet.

Threads beside the loop: the lease, the fetcher, and the threads that settle, so that
neither a result backend nor a broker that is away keeps the loop from the pool. A
delivery stays in flight, under the worker's lease, until its result is stored and the
delivery is settled: if the worker dies at any moment before that, the message is
delivered again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from signal import SIGTERM

from beatd import signals
from beatd.brokers.items import Begin, Delivery, Effect
from beatd.clock import Clock
from beatd.control.pidbox import Command, Pidbox
from beatd.errors import BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.pools.base import (
    Finished,
    Lost,
    Pool,
    ProcessPool,
    Returned,
    Several,
    Started,
    TimedOut,
    Turn,
)
from beatd.runs.report import read_report
from beatd.text import counted
from beatd.worker.admission import Admission
from beatd.worker.autoscale import LOOK
from beatd.worker.backlog import Backlog
from beatd.worker.events import Load, WorkerEvents
from beatd.worker.fetcher import Intake
from beatd.worker.in_flight import InFlight, InFlightState
from beatd.worker.inbox import (
    Crashed,
    Fetched,
    KnownAsRevoked,
    LeaseLost,
    Settled,
    Stop,
    TimePassed,
    WorkerEvent,
)
from beatd.worker.outcomes import Outcomes
from beatd.worker.renewal import Renewal, Renewed, understand
from beatd.worker.reporting import TaskReporter, WorkerNode
from beatd.worker.revoked import Revocations
from beatd.worker.settle import Settler, WorkerBroker
from beatd.worker.settlement import Continue, Settlement
from beatd.worker.sizing import Sizing
from beatd.worker.stopping import SHUTDOWNS, Stopping
from beatd.worker.throughput import AHEAD
from beatd.worker.unkept import Unkept
from beatd.worker.window import PrefetchWindow
from beatd.worker.workload import Workload

tell = EventLog(__name__)

PATIENCE: Span = 5 * SECOND
"""How long a worker that stops waits for a broker or a result backend that is away."""

LONGEST_WAIT: Span = 2 * AHEAD
"""What has waited here for so long is given back, if the worker should hold less."""


@dataclass(kw_only=True)
class Worker:
    """Takes deliveries, has the pool run them, and settles them.

    Each delivery that was taken is in `backlog`, is in `workload` (in the pool, or
    about to be), or has a settlement on its way. It has a place in the window until it
    is settled for good, but none while a rate limit makes it wait, and none once it is
    in `unkept`.
    """

    node: WorkerNode
    identity: str
    """The name of the worker's lease; no other process ever has the same."""
    queues: Sequence[str]
    inbox: "SimpleQueue[WorkerEvent]"
    """Where the pool and the threads put their events, and signal handlers a Stop."""
    clock: Clock

    broker: WorkerBroker
    window: PrefetchWindow
    intake: Intake
    admission: Admission
    backlog: Backlog
    workload: Workload
    pool: Pool
    sizing: Sizing
    renewal: Renewal
    reporter: TaskReporter
    outcomes: Outcomes
    settler: Settler
    unkept: Unkept

    revocations: Revocations
    execute: Callable[[Command], object]
    """Executes a command of remote control, and answers it."""
    events: WorkerEvents | None = None
    pidbox: Pidbox | None = None
    """Events for monitors and remote control; None where the broker carries none."""

    stopping: Stopping
    ends_runs_when_cut_off: bool = False
    """Whether running tasks are ended when the worker was cut off for too long."""

    gone: int = field(default=0, init=False)
    """How many runs did not begin, as their deliveries were not this worker's then."""

    on_ready: Callable[[], object] = lambda: None
    on_turn: Callable[[], object] = lambda: None
    """Called after each turn of the loop, at least once a second: for the watchdog."""

    @property
    def name(self) -> str:
        """Return the worker's name for people and in results: `celery@host`."""
        return self.node.name

    @property
    def is_stopping(self) -> bool:
        """Whether the worker was told to stop."""
        return self.stopping.how is not None

    @property
    def held(self) -> int:
        """How many tasks run, or wait here for their turn."""
        return len(self.workload) + len(self.backlog)

    def run(self) -> None:
        """Work until told to stop."""
        signals.worker_init.send(self.node)
        self.pool.start()  # before there is any other thread: it may fork
        self._start()
        tell.info(
            "worker.ready",
            "%s is ready: %d at a time, from %s",
            self.name,
            self.sizing.size,
            ", ".join(self.queues),
        )
        self.on_ready()
        signals.worker_ready.send(self.node)
        try:
            while not self._is_over():
                self.handle(*self._next())
                self.on_turn()
        except BaseException:
            # An unforeseen error: what runs goes to other workers, at once.
            self._begin_to_stop(Stop.COLD)
            raise
        finally:
            self._end()
            signals.worker_shutdown.send(self.node)

    def _next(self) -> list[WorkerEvent]:
        """Wait for an event; return it, and all others that lie ready."""
        try:
            first = self.inbox.get(timeout=self._patience() / SECOND)
        except Empty:
            return [TimePassed()]
        # Nobody else takes events out.
        return [first, *(self.inbox.get() for _ in range(self.inbox.qsize()))]

    def _patience(self) -> float:
        """Return how long to wait for something to happen."""
        if self.stopping.how is Stop.SOFT:
            return self.stopping.left(self.clock.elapsed(), LOOK)
        # What waits is to be looked at when the pool has been at long runs for so long.
        wait = AHEAD if self.backlog.ready and self.sizing.is_measured else LOOK
        due = self.backlog.due_in()
        if due is None or self.workload.room <= 0:
            return wait
        return min(wait, due)

    def handle(self, *events: WorkerEvent) -> None:
        """Act on events of the inbox, then on what they leave to be done."""
        for event in events:
            self._act_on(event)
        if self.ends_runs_when_cut_off and self.intake.lease.has_run_out():
            self._let_go()
        if not self.is_stopping:
            self.sizing.follow(self._load)
        elif self.stopping.has_run_out(self.clock.elapsed()):
            self._begin_to_stop(Stop.COLD)
        self.workload.fill(self.backlog.next)
        if self.sizing.is_measured:
            self._give_back_surplus()
        self.outcomes.hand_over()

    def _act_on(self, event: WorkerEvent) -> None:
        match event:
            case Started(token, pid):
                self.outcomes.started(self.workload.started(token, pid))
            case Finished(token, report):
                self.outcomes.finished(self._ended(token), read_report(report))
            case TimedOut(token, limit):
                self.outcomes.timed_out(self._ended(token), limit)
            case Lost(token, reason):
                self._lost(self._ended(token), reason)
            case Returned(tokens):
                self._take_back([self.workload.remove(token) for token in tokens])
            case Several(events):
                for each in events:
                    self._act_on(each)
            case Turn(take):
                self.outcomes.hand_over()  # the turn may take long
                take()
            case Renewed(about):
                self.renewal.end(understand(about))
            case Fetched(deliveries, lease):
                self._take(deliveries, lease)
            case LeaseLost():
                self._lease_lost()
            case Settled(settlements):
                self._settled(settlements)
            case Command():
                self.execute(event)
            case KnownAsRevoked(task_ids):
                self.revocations.learn(task_ids)
            case Stop():
                self._told_to_stop(event)
            case Crashed(error):
                raise error

    def _load(self) -> int:
        """Return how much there is to do for the pool, now."""
        return self.backlog.ready + len(self.workload)

    # Deliveries

    def _take(self, deliveries: Sequence[Delivery], lease: int) -> None:
        # If another lease began meanwhile, these deliveries belong to the one before,
        # and other workers have them by now; or to the new one, and are still ours. To
        # give them back is right in both cases.
        is_known = lease == self.intake.lease.number
        for delivery in deliveries:
            # A queue may have been cancelled while it was being asked.
            is_wanted = is_known and self.intake.takes_from(delivery.queue)
            if self.is_stopping or not is_wanted:
                self.outcomes.given_back(delivery)
            elif run := self.admission.admit(delivery):
                self.reporter.received(run.envelope)
                self.backlog.add(run)

    def _lease_lost(self) -> None:
        """Give back what has not begun: other workers may have it by now.

        Of what is being acknowledged the broker's answer will tell whose it is.
        """
        unbegun = self.backlog.take_out(lambda run: not run.acknowledged)
        for run in self.workload:
            if run.state is InFlightState.GIVEN:
                run.let_go = not run.early
        self.pool.recall()
        for run in unbegun:
            self.outcomes.given_back(run.delivery)
        tell.warning(
            "lease.lost",
            "was cut off for longer than its lease: others may run the %s that it"
            " holds, and %d more that it leaves to them",
            counted(self.held, "task"),
            len(unbegun),
        )
        if self.ends_runs_when_cut_off:
            self._let_go()

    def _let_go(self) -> None:
        """End or give back all runs that other workers may run, too."""
        for run in self.backlog.take_out(lambda run: not run.early):
            self.outcomes.given_back(run.delivery)
        for run in self.workload:
            if not run.early and not run.let_go:
                run.let_go = True
                if isinstance(self.pool, ProcessPool):
                    self.pool.terminate(run.token, SIGTERM)

    def _give_back_surplus(self) -> None:
        """Let other workers have what would wait here for longer than it should."""
        self.sizing.measure(len(self.workload))
        if self.backlog.waited() < LONGEST_WAIT:
            return
        surplus = self.sizing.surplus(self.backlog.ready, len(self.workload))
        if surplus:
            for run in self.backlog.take_last(surplus):
                self.outcomes.given_back(run.delivery)

    # Runs

    def _ended(self, token: str) -> InFlight:
        """Return a run that the pool has ended, and count it."""
        self.sizing.ended()
        return self.workload.remove(token)

    def _lost(self, run: InFlight, reason: str) -> None:
        """Settle a run whose process died, or let it wait for another process."""
        if run.terminated is not None:
            self.outcomes.terminated(run, run.terminated)
        elif run.let_go:
            self.reporter.let_go(run)
            self.outcomes.given_back(run.delivery)
        elif self.is_stopping and not run.early:
            self.reporter.lost(run, reason)
            self.outcomes.given_back(run.delivery)
        elif self.outcomes.lost(run, reason):
            run.become(InFlightState.WAITING)
            self.backlog.add(run)

    def _take_back(self, unbegun: Sequence[InFlight]) -> None:
        """Put runs that the pool returned into the backlog, or give them back."""
        for run in unbegun:
            run.become(InFlightState.RETURNED)
        if self.is_stopping:
            self._give_up(unbegun)
            return
        self._give_up([run for run in unbegun if run.let_go])
        self.backlog.put_back([run for run in unbegun if not run.let_go])

    def _give_up(self, unbegun: Sequence[InFlight]) -> None:
        """Give these runs back; run here those that are acknowledged already."""
        for run in unbegun:
            if not run.acknowledged:
                self.outcomes.given_back(run.delivery)
            elif self.stopping.how is Stop.COLD:
                self._lose(run)
            else:
                run.become(InFlightState.GIVEN)
                self.workload.give([run])

    def _lose(self, run: InFlight) -> None:
        """End a run that is acknowledged, but that the pool will not run any more."""
        self._lost(run, "the worker was stopped before it began")

    def _settled(self, settlements: Sequence[Settlement]) -> None:
        ended: list[str] = []
        ready: list[InFlight] = []
        for settlement in settlements:
            match settlement.act:
                case Begin():
                    if run := self.workload.get(settlement.token):
                        if not self._is_acknowledged(run, settlement.effect):
                            ended.append(run.token)
                        elif self._may_begin(run):
                            ready.append(run)
                case Continue():
                    pass
                case _:
                    ended.append(settlement.token)
        self.workload.give(ready)
        self.intake.settled(ended)
        self.window.clear(len(ended) - self.unkept.settled(ended))

    def _is_acknowledged(self, run: InFlight, effect: Effect) -> bool:
        """Return whether the delivery of a run is acknowledged, before it begins.

        If it is not, the run never begins here: it is forgotten.
        """
        if effect is Effect.DONE:
            return True
        self.workload.remove(run.token)
        if effect is Effect.GONE:
            self.gone += 1
            self.reporter.gone(run, self.gone)
        return False

    def _may_begin(self, run: InFlight) -> bool:
        """Return whether a run that is acknowledged may begin; it is settled if not."""
        run.become(InFlightState.GIVEN)
        if self.stopping.how is Stop.COLD:
            self._lose(self.workload.remove(run.token))
        elif self.admission.drops_acknowledged(run):
            self.workload.remove(run.token)
        else:
            return True
        return False

    # Beginning and end

    def _start(self) -> None:
        def crashed(error: BaseException) -> None:
            self.inbox.put(Crashed(error))

        if self.events:
            self.events.start(self.monitored_load, crashed)
        if self.pidbox:
            self.pidbox.start(crashed)
        self.settler.start(crashed)
        self.intake.start(crashed)

    def monitored_load(self) -> Load:
        """Return how much the worker does; any thread may ask."""
        return Load(len(self.workload.begun), self.workload.total.total())

    def _told_to_stop(self, stop: Stop) -> None:
        """Stop in this way, unless the worker already stops in a harder one."""
        now, is_busy = self.clock.elapsed(), len(self.workload) > 0
        if how := self.stopping.told(stop, now, is_busy=is_busy):
            self._begin_to_stop(how)

    def _begin_to_stop(self, stop: Stop) -> None:
        """Fetch no more, give back what has not begun; COLD: kill the pool, too."""
        if self.stopping.how is Stop.COLD:
            return
        if not self.is_stopping:
            # The signal of the system that usually asks for this stop.
            asked, how = SHUTDOWNS[stop]
            signals.worker_shutting_down.send(self.name, sig=asked, how=how, exitcode=0)
        self.stopping.how = stop
        tell.info(
            f"stop.{stop.value}",
            "stopping, %s, with %s running",
            stop.value,
            counted(len(self.workload), "task"),
        )
        self.intake.fetcher.stop()
        if stop is Stop.COLD:
            self.pool.kill()
        else:
            self.pool.recall()
        self._give_up(self.backlog.clear())

    def _is_over(self) -> bool:
        if not self.is_stopping or not self.inbox.empty():
            return False
        return self.stopping.how is Stop.COLD or not self.workload

    def _end(self) -> None:
        """Settle what ended, stop all threads, and end the lease."""
        self.intake.fetcher.stop()
        if self.pidbox:
            self.pidbox.stop()
        until = self.clock.elapsed() + PATIENCE
        self.outcomes.hand_over()
        self._await_acknowledged(until)
        settled = self.settler.stop(max(until - self.clock.elapsed(), 0))
        if self.stopping.how is not Stop.COLD:
            self.pool.stop()
        self.intake.restoring.stop()
        self.intake.lease.stop()
        if self.events:
            self.events.stop()
        when = "now"
        try:
            self.broker.leave(self.identity)
        except BrokerUnavailable as error:
            settled, when = False, "when the lease has run out"
            tell.warning("broker.lost", "%s", error)
        if not settled:
            words = "what ended and could not be settled is delivered again %s"
            tell.warning("stop.unsettled", words, when)

    def _await_acknowledged(self, until: Span) -> None:
        """Have those runs fail that a cold stop met between acknowledgement and pool.

        Which these are, the broker's answers tell: others run what is not acknowledged.
        """
        while self.workload.is_acknowledging and self.clock.elapsed() < until:
            for event in self._next():
                if isinstance(event, Settled):
                    self._settled(event.settlements)
            self.outcomes.hand_over()
