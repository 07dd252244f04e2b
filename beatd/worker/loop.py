"""The worker's loop: takes deliveries, has them run, and settles them.

    broker -> Intake -> inbox -> Worker -> pool -> inbox -> Worker -> keep -> settle

What waits for its run is in backlog.py, which deliveries run at all is decided in
admission.py, and what becomes of each in ends.py. Here they meet.

Threads beside the loop: the lease, the fetcher, and the stages of settling, so that
neither a result backend nor a broker that is away keeps the loop from the pool. A
delivery stays in flight, under the worker's lease, until its result is kept and it is
settled: a worker that dies at any moment before that has it delivered again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from signal import SIGTERM

from beatd import signals
from beatd.background import Backoff, Outage
from beatd.brokers.base import Delivery
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.control.pidbox import Command, Pidbox
from beatd.errors import BrokerUnavailable
from beatd.events.lamport import LamportClock
from beatd.instant import SECOND, Span, span_of
from beatd.pools.base import (
    Finished,
    Job,
    Lost,
    Pool,
    ProcessPool,
    Returned,
    Started,
    TimedOut,
)
from beatd.results.base import Keeper
from beatd.routing import Router
from beatd.runs.report import limits_of, option, read_report
from beatd.tasks import Registry
from beatd.worker.admission import Admission
from beatd.worker.autoscale import LOOK, Autoscale
from beatd.worker.backlog import Backlog
from beatd.worker.commands import execute
from beatd.worker.events import Load, WorkerEvents
from beatd.worker.fetcher import Intake, PrefetchWindow
from beatd.worker.in_flight import InFlight
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
from beatd.worker.renewal import About, Modules, Renewed, learn, understand
from beatd.worker.reporting import TaskReporter
from beatd.worker.revoked import Revocations, StateFile
from beatd.worker.settle import (
    Begin,
    Continue,
    EndRecorder,
    Settlement,
    Settler,
    Source,
)

logger = logging.getLogger(__name__)

PATIENCE: Span = 5 * SECOND
"""How long a worker that stops waits for a broker or a result backend that is away."""

_SHUTDOWNS = {
    Stop.WARM: ("SIGTERM", "Warm"),
    Stop.SOFT: ("SIGQUIT", "Cold"),
    Stop.COLD: ("SIGQUIT", "Cold"),
}
"""The words of Celery's signal `worker_shutting_down`."""

UNLIMITED = 10_000
"""Deliveries that a worker holds at most when the settings set no limit."""


@dataclass
class Worker:
    """Takes deliveries, has the pool run them, and settles them.

    Each delivery that was taken is in `backlog`, is in `_running` (in the pool, or
    about to be), or has a settlement on its way; its place in the room is cleared when
    it is settled for good, and meanwhile while a rate limit has it wait.
    """

    name: str
    """For people, and in results: `celery@host`."""
    identity: str
    """The lease's name, no other process's, now or ever."""
    queues: Sequence[str]
    broker: Source
    pool: Pool
    tasks: Registry
    settings: Settings
    inbox: "SimpleQueue[WorkerEvent]"
    """Where the pool puts its events, and whoever wants the worker to stop."""
    results: Keeper | None = None
    """None: nothing is kept."""
    autoscale: Autoscale | None = None
    """Decides the pool's size as the load changes; None: nobody does."""
    router: Router = field(default_factory=Router)
    """Knows the queues."""
    events: WorkerEvents | None = None
    pidbox: Pidbox | None = None
    """Events for monitors and remote control; None where the broker carries none."""
    state_file: StateFile | None = None
    """Keeps the revoked ids over restarts."""
    lamport: LamportClock = field(default_factory=LamportClock)
    modules: Modules = field(default_factory=Modules)
    """What the pool's processes import besides what the settings name."""
    conductor: EndRecorder | None = None
    """Knows what follows from ends of runs that their own processes cannot tell."""
    on_ready: Callable[[], object] = lambda: None
    on_turn: Callable[[], object] = lambda: None
    """Called each time the loop has turned, once a second at least: the watchdog."""
    clock: Clock = field(default_factory=SystemClock)

    _running: dict[str, InFlight] = field(default_factory=dict, init=False)
    _stop: Stop | None = field(default=None, init=False)
    _cold_at: Span = field(default=0, init=False)
    """When a soft stop is over, by the clock that only goes forward."""

    def __post_init__(self) -> None:
        settings, clock, tasks = self.settings, self.clock, self.tasks
        away = Outage("the broker is away", "broker", clock)
        self._began = clock.elapsed()
        self.total: Counter[str] = Counter()
        self.tell = TaskReporter(self.events, self)
        self.revocations = Revocations(self.state_file, self.results, settings, clock)
        self.room = PrefetchWindow(self.capacity)
        self.intake = Intake(
            self.broker,
            self.identity,
            self.queues,
            self.router,
            self.room,
            settings,
            lambda deliveries, lease: self.inbox.put(Fetched(deliveries, lease)),
            lambda: self.inbox.put(LeaseLost()),
            away,
            partial(self._mingle, self.revocations.known()),
            clock,
        )
        self.settler = Settler(
            self.broker,
            self.identity,
            self.results,
            lambda settlements: self.inbox.put(Settled(settlements)),
            away,
            self.intake.lease.renew,
            self.conductor,
            Backoff(
                self.settings.result_backend_base_sleep_between_retries_ms,
                self.settings.result_backend_max_sleep_between_retries_ms,
            ),
        )
        self.ends = Outcomes(self.name, settings, self.tell, self.settler.put, clock)
        self.admission = Admission(
            tasks, settings, limits_of(settings), self.revocations, self.ends, clock
        )
        self.backlog = Backlog(tasks, settings, self.room, clock)

    @property
    def hostname(self) -> str:
        """Give its name, as receivers of signals ask for it."""
        return self.name

    @property
    def capacity(self) -> int:
        """How many deliveries the worker holds at most."""
        # For the pool to grow there has to be more than it runs now.
        places = self.autoscale.most if self.autoscale else self.pool.size
        if self.settings.worker_disable_prefetch:
            return places
        multiplier = self.settings.worker_prefetch_multiplier
        return places * multiplier if multiplier else UNLIMITED

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, and waits for what runs."""
        return self._stop is not None

    @property
    def held(self) -> int:
        """How many tasks run, or wait here for their turn."""
        return len(self._running) + len(self.backlog)

    def run(self) -> None:
        """Work until told to stop."""
        signals.worker_init.send(self)
        self.pool.start()  # before there is any other thread: it may fork
        self._start()
        logger.info(
            "%s is ready: %d at a time, from %s",
            self.name,
            self.pool.size,
            ", ".join(self.queues),
            extra={"event": "worker.ready"},
        )
        self.on_ready()
        signals.worker_ready.send(self)
        try:
            while not self._is_over():
                self.handle(self._next())
                self.on_turn()
        except BaseException:
            # Nobody foresaw it: what runs is for other workers, and at once.
            self._begin_to_stop(Stop.COLD)
            raise
        finally:
            self._end()
            signals.worker_shutdown.send(self)

    def _next(self) -> WorkerEvent:
        try:
            return self.inbox.get(timeout=self._patience() / SECOND)
        except Empty:
            return TimePassed()

    def _patience(self) -> float:
        """Give how long to wait for something to happen."""
        if self._stop is Stop.SOFT:
            return max(min(self._cold_at - self.clock.elapsed(), LOOK), 0)
        due = self.backlog.due_in()
        if due is None or len(self._running) >= self.pool.demand:
            return LOOK
        return min(due, LOOK)

    def handle(self, event: WorkerEvent) -> None:
        """Do what one event asks for."""
        match event:
            case Started(token, pid):
                self._started(self._running[token], pid)
            case Finished(token, report):
                self.ends.finished(self._running.pop(token), read_report(report))
            case TimedOut(token, limit):
                self.ends.timed_out(self._running.pop(token), limit)
            case Lost(token, reason):
                self._lost(self._running.pop(token), reason)
            case Returned(tokens):
                self._take_back([self._running.pop(token) for token in tokens])
            case Renewed(about):
                self._learn(understand(about))
            case Fetched(deliveries, lease):
                self._take(deliveries, lease)
            case LeaseLost():
                self._lease_lost()
            case Settled(settlements):
                self._settled(settlements)
            case Command():
                execute(self, event)
            case KnownAsRevoked(task_ids):
                self.revocations.learn(task_ids)
            case Stop():
                self._told_to_stop(event)
            case Crashed(error):
                raise error
        if self._cancels and self.intake.lease.has_run_out():
            self._let_go()
        if self._stop is Stop.SOFT and self.clock.elapsed() >= self._cold_at:
            self._begin_to_stop(Stop.COLD)
        self._fit_pool()
        self._feed()

    # Deliveries

    def _take(self, deliveries: Sequence[Delivery], lease: int) -> None:
        # Under a lease that is over others have them; or they came under the next one,
        # if it began while they were asked for, and nobody else can have them yet.
        is_known = lease == self.intake.lease.number
        for delivery in deliveries:
            if self._stop or not is_known:
                self.ends.given_back(delivery)
            elif held := self.admission.admit(delivery):
                self.tell.received(held.said)
                self.backlog.add(held)

    def _lease_lost(self) -> None:
        """Begin nothing that others have: it is theirs, or goes back to them."""
        unbegun = self.backlog.take_out(lambda held: not held.acknowledged)
        for held in self.running():
            if held.must_be_acknowledged:
                unbegun.append(self._running.pop(held.token))
            elif held.began is None and not held.acknowledged:
                held.let_go = True
        self.pool.recall()
        for held in unbegun:
            self.ends.given_back(held.delivery)
        logger.warning(
            "was cut off for longer than its lease: others may run the %d tasks that it"
            " holds, and %d more that it leaves to them",
            self.held,
            len(unbegun),
            extra={"event": "lease.lost"},
        )
        if self._cancels:
            self._let_go()

    def _let_go(self) -> None:
        """Have nothing run on, or begin, that others may run: it goes back to them."""
        for held in self.backlog.take_out(lambda held: not held.early):
            self.ends.given_back(held.delivery)
        for held in self.running():
            if not held.early and not held.let_go:
                held.let_go = True
                if isinstance(self.pool, ProcessPool):
                    self.pool.terminate(held.token, SIGTERM)

    @property
    def _cancels(self) -> bool:
        return self.settings.worker_cancel_long_running_tasks_on_connection_loss

    # Runs

    def _fit_pool(self) -> None:
        """Make the pool as large as the load wants it, if that is asked for."""
        if self.autoscale is None or self._stop:
            return
        before = self.pool.size
        load = self.backlog.ready + len(self._running)
        size = self.autoscale.size(self.clock.elapsed(), load)
        if size != before:
            self.resize(size)
        if self.pool.size != before:
            event = {"event": "pool.resized", "size": size}
            logger.info("runs %d at a time, no longer %d", size, before, extra=event)

    def _feed(self) -> None:
        """Give the pool what it has room for."""
        jobs = []
        while len(self._running) < self.pool.demand and (
            held := self.backlog.next(self.admission.drops)
        ):
            self._running[held.token] = held
            if held.must_be_acknowledged:
                self.settler.put(Settlement(held.token, Begin(held.delivery)))
            else:
                jobs.append(self._job(held))
        if jobs:
            self.pool.submit(jobs)

    def _job(self, held: InFlight) -> Job:
        said, task = held.said, held.task
        soft = option(task, "soft_time_limit", self.settings)
        return Job(
            held.token,
            held.delivery.message,
            held.delivery.deliveries + len(held.losses),
            said.time_limit or option(task, "time_limit", self.settings),
            said.soft_time_limit or soft,
        )

    def _started(self, held: InFlight, pid: int) -> None:
        held.began, held.pid = self.clock.now(), pid
        self.total[held.said.task] += 1
        self.ends.started(held)

    def _lost(self, held: InFlight, reason: str) -> None:
        if held.terminated is not None:
            self.ends.terminated(held, held.terminated)
        elif held.let_go:
            self.tell.let_go(held)
            self.ends.given_back(held.delivery)
        elif self._stop and not held.early:
            self.tell.lost(held, reason)
            self.ends.given_back(held.delivery)
        elif self.ends.lost(held, reason):
            held.began = held.pid = None
            self.backlog.add(held)

    def _take_back(self, unbegun: Sequence[InFlight]) -> None:
        """Have these wait here, or others have them when this worker ends."""
        if self._stop:
            self._give_up(unbegun)
            return
        self._give_up([held for held in unbegun if held.let_go])
        self.backlog.put_back([held for held in unbegun if not held.let_go])

    def _give_up(self, unbegun: Sequence[InFlight]) -> None:
        """Let others run these; those that nobody else will get run here."""
        for held in unbegun:
            if held.acknowledged:
                self._run_acknowledged(held)
            else:
                self.ends.given_back(held.delivery)

    def _run_acknowledged(self, held: InFlight) -> None:
        """Have it run here and now; when it is too late for that, say so."""
        self._running[held.token] = held
        if self._stop is Stop.COLD:
            self._lose(held)
        else:
            self.pool.submit([self._job(held)])

    def _lose(self, held: InFlight) -> None:
        """Tell the end of one that no pool has any more."""
        reason = "the worker was stopped before it began"
        self._lost(self._running.pop(held.token), reason)

    def _settled(self, settlements: Sequence[Settlement]) -> None:
        places = 0
        for settlement in settlements:
            if isinstance(settlement.act, Begin):
                if held := self._running.get(settlement.token):
                    self._begin(held)
            elif not isinstance(settlement.act, Continue):
                places += 1
        self.room.clear(places)

    def _begin(self, held: InFlight) -> None:
        """Have it run, now that it is acknowledged."""
        held.acknowledged = True
        if self.admission.drops_revoked(held):
            del self._running[held.token]
        else:
            self._run_acknowledged(held)

    # For remote control: commands.py

    @property
    def uptime(self) -> int:
        """Give the seconds since its start."""
        return (self.clock.elapsed() - self._began) // SECOND

    def running(self) -> list[InFlight]:
        """Give what the pool has, or is about to have."""
        return list(self._running.values())

    def revoke(self, task_ids: Collection[str]) -> Callable[[], object]:
        """Let these not begin any more; give what is left to do, which takes time."""
        self._recall()
        running = {held.said.id for held in self.running()}
        return self.revocations.revoke(task_ids, running)

    def revoke_stamps(self, stamps: Collection[tuple[str, str]]) -> None:
        """Let nothing that carries one of these begin any more."""
        self._recall()
        self.revocations.revoke_stamps(stamps)

    def _recall(self) -> None:
        """Have the pool give back what has not begun, to be decided about again."""
        if any(held.began is None for held in self.running()):
            self.pool.recall()

    def terminate(self, held: InFlight, number: int) -> None:
        """End a run by a signal. Raises NotImplementedError if the pool cannot."""
        if not isinstance(self.pool, ProcessPool):
            raise NotImplementedError("this pool cannot end a run that has begun")
        self.pool.terminate(held.token, number)
        held.terminated = number

    def resize(self, size: int) -> None:
        """Run this many at the same time, one at least, and hold accordingly many."""
        before = self.capacity
        self.pool.resize(size)
        self.room.clear(self.capacity - before)

    def renew(self, modules: Sequence[str], *, fresh: bool) -> bool:
        """Have new processes run what follows; False if the pool has none."""
        self.modules.asked = modules
        return isinstance(self.pool, ProcessPool) and self.pool.renew(fresh=fresh)

    def _learn(self, about: About) -> None:
        """Go by what the pool's new processes say of their tasks."""
        self.modules.loaded = about.modules
        for name in learn(self.tasks, about):
            self.backlog.limit_rate(name)

    def scale_between(self, most: int, least: int) -> None:
        """Let the pool's size follow the load between these bounds."""
        assert self.autoscale
        before = self.capacity
        self.autoscale.most, self.autoscale.least = most, least
        self.room.clear(self.capacity - before)

    def shut_down(self) -> None:
        """Let what runs end, and end."""
        self.inbox.put(Stop.WARM)

    # Beginning and end

    def _mingle(self, revoked: Sequence[str]) -> None:
        """Learn from other workers what was revoked; in the thread that takes."""
        if not (self.pidbox and self.settings.worker_enable_mingle):
            return
        try:
            known = self.pidbox.ask_for_revoked(revoked)
        except BrokerUnavailable as error:
            words = "cannot ask other workers what was revoked: %s"
            logger.warning(words, error, extra={"event": "control.mingle"})
            return
        # Before what is taken: it may be among them.
        self.inbox.put(KnownAsRevoked(known))

    def _start(self) -> None:
        def crashed(error: BaseException) -> None:
            self.inbox.put(Crashed(error))

        if self.events:
            self.events.start(self._load, crashed)
        if self.pidbox:
            self.pidbox.start(crashed)
        self.settler.start(crashed)
        self.intake.start(crashed)

    def _load(self) -> Load:
        active = sum(held.began is not None for held in self.running())
        return Load(active, self.total.total())

    def _told_to_stop(self, stop: Stop) -> None:
        """Stop as far as that goes beyond how it stops already.

        A cold stop leaves what runs some time, where the settings give it any; who asks
        again does not want to wait.
        """
        grace = self.settings.worker_soft_shutdown_timeout
        if (
            stop is Stop.COLD
            and grace
            and self._running
            and self._stop is not Stop.SOFT
        ):
            stop = Stop.SOFT
            self._cold_at = self.clock.elapsed() + span_of(grace)
        if self._stop is None or stop is not Stop.WARM:
            self._begin_to_stop(stop)

    def _begin_to_stop(self, stop: Stop) -> None:
        """Take no more, give back what has not begun; COLD: have the pool end."""
        if self._stop is Stop.COLD:
            return
        if self._stop is None:
            # By which signal of the system it is asked for, usually.
            asked, how = _SHUTDOWNS[stop]
            signals.worker_shutting_down.send(self.name, sig=asked, how=how, exitcode=0)
        self._stop = stop
        logger.info(
            "stopping, %s, with %d tasks running",
            stop.value,
            len(self._running),
            extra={"event": f"stop.{stop.value}"},
        )
        self.intake.fetcher.stop()
        if stop is Stop.COLD:
            self.pool.kill()
            for held in self.running():
                if held.must_be_acknowledged:
                    held.acknowledged = True  # soon, if not already
                    self._lose(held)
        else:
            self.pool.recall()
        self._give_up(self.backlog.clear())

    def _is_over(self) -> bool:
        if self._stop is None or not self.inbox.empty():
            return False
        return self._stop is Stop.COLD or not self._running

    def _end(self) -> None:
        """Settle what ended, give the rest back, and end the lease."""
        self.intake.fetcher.stop()
        if self.pidbox:
            self.pidbox.stop()
        settled = self.settler.stop(PATIENCE)
        if self._stop is not Stop.COLD:
            self.pool.stop()
        self.intake.lease.stop()
        if self.events:
            self.events.stop()
        try:
            self.broker.leave(self.identity)
        except BrokerUnavailable as error:
            settled = False
            logger.warning("%s", error, extra={"event": "broker.lost"})
        if not settled:
            logger.warning(
                "not all that ended could be settled: it is delivered again when the"
                " lease has run out",
                extra={"event": "stop.unsettled"},
            )
