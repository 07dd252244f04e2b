"""What a worker consists of, and which part works with which: made here, and only here.

What lies around a worker is handed in: by worker.py as the settings want it, by tests
as they need it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from beatd.background import Backoff, Outage
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.control.pidbox import Pidbox
from beatd.events.lamport import LamportClock
from beatd.instant import span_of
from beatd.pools.base import Pool
from beatd.results.base import Keeper
from beatd.routing import Router
from beatd.runs.report import limits_of
from beatd.tasks import Registry
from beatd.worker.admission import Admission
from beatd.worker.autoscale import Autoscale
from beatd.worker.backlog import Backlog
from beatd.worker.commands import Controlled, execute
from beatd.worker.events import WorkerEvents
from beatd.worker.fetcher import Intake
from beatd.worker.inbox import (
    Fetched,
    KnownAsRevoked,
    LeaseLost,
    Settled,
    Stop,
    WorkerEvent,
)
from beatd.worker.loop import Worker
from beatd.worker.outcomes import Outcomes
from beatd.worker.renewal import Modules, Renewal
from beatd.worker.reporting import TaskReporter, WorkerNode
from beatd.worker.revoked import Revocations, StateFile, mingle
from beatd.worker.settle import EndRecorder, Settler, WorkerBroker
from beatd.worker.sizing import Sizing
from beatd.worker.stopping import Stopping
from beatd.worker.unkept import Unkept
from beatd.worker.window import PrefetchWindow
from beatd.worker.workload import Workload


def broker_outage(clock: Clock) -> Outage:
    """Return the outage of a worker's broker, which all its threads tell of."""
    meanwhile = "trying again about once a second"
    return Outage("the broker is away", "broker", clock, meanwhile)


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What lies around a worker, and what it is to know of itself."""

    name: str
    """For people, and in results: `celery@host`."""
    identity: str
    """The name of the lease: no other worker has had it, or ever will."""
    queues: Sequence[str]
    router: Router
    broker: WorkerBroker
    pool: Pool
    tasks: Registry
    settings: Settings
    given: Collection[str]
    """The settings that were set, by name; the others have their defaults."""
    inbox: "SimpleQueue[WorkerEvent]"
    """Where the pool puts its events."""
    results: Keeper | None
    """None: nothing is kept."""
    chord_keeper: EndRecorder | None
    autoscale: Autoscale | None = None
    """None: the pool keeps its size."""
    events: WorkerEvents | None = None
    pidbox: Pidbox | None = None
    """Events and remote control; None where the broker carries none."""
    state_file: StateFile | None = None
    lamport: LamportClock
    modules: Modules
    clock: Clock
    away: Outage | None = None
    """Of the broker, if events and remote control know of it, too."""


def assemble(around: Surroundings) -> Worker:
    """Return a worker that is made of what lies around it: broker, pool, results."""
    settings, pool, clock = around.settings, around.pool, around.clock
    away = around.away or broker_outage(clock)
    sizing = Sizing(
        pool=pool, autoscale=around.autoscale, settings=settings, clock=clock
    )
    window = sizing.window
    revocations = Revocations(
        file=around.state_file, results=around.results, settings=settings, clock=clock
    )
    intake = _intake(around, window, away, revocations)
    unkept = Unkept(free=intake.have_run)
    settler = _settler(around, intake, unkept, away)
    node = WorkerNode(around.name)
    reporter = TaskReporter(around.events, node)
    outcomes = Outcomes(
        hostname=around.name,
        settings=settings,
        reporter=reporter,
        settle=settler.put,
        delaying=intake.delaying,
        clock=clock,
    )
    admission = Admission(
        tasks=around.tasks,
        settings=settings,
        limits=limits_of(settings),
        revocations=revocations,
        outcomes=outcomes,
        clock=clock,
    )
    backlog = Backlog(
        tasks=around.tasks,
        settings=settings,
        window=window,
        drops=admission.drops,
        clock=clock,
    )
    workload = Workload(
        pool=pool, settings=settings, acknowledge=outcomes.acknowledged, clock=clock
    )
    renewal = Renewal(
        pool=pool,
        modules=around.modules,
        tasks=around.tasks,
        on_changed=backlog.limit_rate,
    )
    controlled = _controlled(
        around, intake, backlog, workload, revocations, sizing, renewal
    )
    return Worker(
        node=node,
        identity=around.identity,
        queues=around.queues,
        inbox=around.inbox,
        clock=clock,
        broker=around.broker,
        window=window,
        intake=intake,
        admission=admission,
        backlog=backlog,
        workload=workload,
        pool=pool,
        sizing=sizing,
        renewal=renewal,
        reporter=reporter,
        outcomes=outcomes,
        settler=settler,
        unkept=unkept,
        revocations=revocations,
        execute=partial(execute, controlled),
        events=around.events,
        pidbox=around.pidbox,
        stopping=Stopping(span_of(settings.worker_soft_shutdown_timeout)),
        ends_runs_when_cut_off=(
            settings.worker_cancel_long_running_tasks_on_connection_loss
        ),
    )


def _intake(
    around: Surroundings,
    window: PrefetchWindow,
    away: Outage,
    revocations: Revocations,
) -> Intake:
    inbox = around.inbox
    return Intake(
        broker=around.broker,
        worker=around.identity,
        queues=around.queues,
        router=around.router,
        window=window,
        settings=around.settings,
        deliver=lambda deliveries, lease: inbox.put(Fetched(deliveries, lease)),
        on_lost=lambda: inbox.put(LeaseLost()),
        away=away,
        prepare=_mingling(around.settings, around.pidbox, revocations.known(), inbox),
        pool_size=lambda: around.pool.size,
        clock=around.clock,
    )


def _settler(
    around: Surroundings, intake: Intake, unkept: Unkept, away: Outage
) -> Settler:
    return Settler(
        broker=around.broker,
        worker=around.identity,
        results=around.results,
        settled=lambda settlements: around.inbox.put(Settled(settlements)),
        away=away,
        clock=around.clock,
        chord_keeper=around.chord_keeper,
        backoff=Backoff(
            around.settings.result_backend_base_sleep_between_retries_ms,
            around.settings.result_backend_max_sleep_between_retries_ms,
        ),
        left=intake.leave_in_flight,
        unkept=unkept.add,
    )


def _controlled(
    around: Surroundings,
    intake: Intake,
    backlog: Backlog,
    workload: Workload,
    revocations: Revocations,
    sizing: Sizing,
    renewal: Renewal,
) -> Controlled:
    return Controlled(
        name=around.name,
        tasks=around.tasks,
        settings=around.settings,
        given=around.given,
        router=around.router,
        lamport=around.lamport,
        events=around.events,
        intake=intake,
        backlog=backlog,
        workload=workload,
        revocations=revocations,
        pool=around.pool,
        sizing=sizing,
        renewal=renewal,
        shut_down=partial(around.inbox.put, Stop.WARM),
        clock=around.clock,
        began=around.clock.elapsed(),
    )


def _mingling(
    settings: Settings,
    pidbox: Pidbox | None,
    known: Sequence[str],
    inbox: "SimpleQueue[WorkerEvent]",
) -> Callable[[], object]:
    """Return what a worker does before it takes anything: its inbox learns first."""
    if pidbox is None or not settings.worker_enable_mingle:
        return lambda: None

    def learn(task_ids: Sequence[str]) -> None:
        inbox.put(KnownAsRevoked(task_ids))

    return partial(mingle, pidbox.ask_for_revoked, known, learn)
