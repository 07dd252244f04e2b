"""What a worker consists of, and which part works with which: made here, and only here.

What lies around a worker is handed in: by worker.py as the settings want it, by tests
as they need it.
"""

from collections.abc import Callable, Sequence
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
from beatd.worker.fetcher import Intake, PrefetchWindow
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
from beatd.worker.sizing import Sizing, capacity_of
from beatd.worker.stopping import Stopping
from beatd.worker.workload import Workload


def assemble(
    *,
    name: str,
    identity: str,
    queues: Sequence[str],
    router: Router,
    broker: WorkerBroker,
    pool: Pool,
    tasks: Registry,
    settings: Settings,
    inbox: "SimpleQueue[WorkerEvent]",
    results: Keeper | None,
    chord_keeper: EndRecorder | None,
    autoscale: Autoscale | None = None,
    events: WorkerEvents | None = None,
    pidbox: Pidbox | None = None,
    state_file: StateFile | None = None,
    lamport: LamportClock,
    modules: Modules,
    clock: Clock,
) -> Worker:
    """Return a worker that is made of what lies around it: broker, pool, results.

    No two workers have the same `identity`, now or ever: it is the name of a lease.
    """
    revocations = Revocations(
        file=state_file, results=results, settings=settings, clock=clock
    )
    away = Outage("the broker is away", "broker", clock)
    window = PrefetchWindow(capacity_of(settings, pool, autoscale))
    intake = Intake(
        broker=broker,
        worker=identity,
        queues=queues,
        router=router,
        window=window,
        settings=settings,
        deliver=lambda deliveries, lease: inbox.put(Fetched(deliveries, lease)),
        on_lost=lambda: inbox.put(LeaseLost()),
        away=away,
        prepare=_mingling(settings, pidbox, revocations.known(), inbox),
        clock=clock,
    )
    settler = Settler(
        broker=broker,
        worker=identity,
        results=results,
        settled=lambda settlements: inbox.put(Settled(settlements)),
        away=away,
        renew=intake.lease.renew,
        chord_keeper=chord_keeper,
        backoff=Backoff(
            settings.result_backend_base_sleep_between_retries_ms,
            settings.result_backend_max_sleep_between_retries_ms,
        ),
    )
    node = WorkerNode(name)
    reporter = TaskReporter(events, node)
    outcomes = Outcomes(
        hostname=name,
        settings=settings,
        reporter=reporter,
        settle=settler.put,
        clock=clock,
    )
    admission = Admission(
        tasks=tasks,
        settings=settings,
        limits=limits_of(settings),
        revocations=revocations,
        outcomes=outcomes,
        clock=clock,
    )
    backlog = Backlog(
        tasks=tasks,
        settings=settings,
        window=window,
        drops=admission.drops,
        clock=clock,
    )
    workload = Workload(
        pool=pool, settings=settings, acknowledge=outcomes.acknowledged, clock=clock
    )
    sizing = Sizing(
        pool=pool, window=window, autoscale=autoscale, settings=settings, clock=clock
    )
    renewal = Renewal(
        pool=pool, modules=modules, tasks=tasks, on_changed=backlog.limit_rate
    )
    controlled = Controlled(
        name=name,
        tasks=tasks,
        settings=settings,
        router=router,
        lamport=lamport,
        events=events,
        intake=intake,
        backlog=backlog,
        workload=workload,
        revocations=revocations,
        pool=pool,
        sizing=sizing,
        renewal=renewal,
        shut_down=partial(inbox.put, Stop.WARM),
        clock=clock,
        began=clock.elapsed(),
    )
    return Worker(
        node=node,
        identity=identity,
        queues=queues,
        inbox=inbox,
        clock=clock,
        broker=broker,
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
        revocations=revocations,
        execute=partial(execute, controlled),
        events=events,
        pidbox=pidbox,
        stopping=Stopping(span_of(settings.worker_soft_shutdown_timeout)),
        ends_runs_when_cut_off=(
            settings.worker_cancel_long_running_tasks_on_connection_loss
        ),
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
