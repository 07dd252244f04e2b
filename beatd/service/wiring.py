"""From settings to the objects that do the work: scheduler and worker are made here.

Neither of them calls a constructor that does I/O: what they use is handed in, and tests
compose by hand, with fakes. Others connect for themselves: an application when it first
sends or reads something (app/connections.py), and commands that look at what lies on a
broker (cli/). A test holds the list.
"""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from beatd import brokers, pools, results, signals
from beatd.app import Beatd
from beatd.brokers.base import Broadcast, Broker
from beatd.celery_apps.reading import prepare_app, registry_of
from beatd.celery_apps.results import CeleryChordKeeper, CeleryResults
from beatd.celery_apps.runner import CeleryRunner
from beatd.celery_apps.signals import pass_on_beat
from beatd.clock import SystemClock
from beatd.config.loading import Config
from beatd.config.settings import Settings, mask
from beatd.config.switches import HEARTBEAT_INTERVAL, WORKER_NODE
from beatd.control.pidbox import Pidbox
from beatd.errors import ConfigError, MessageError
from beatd.event_log import EventLog
from beatd.events.event import EventFactory
from beatd.events.lamport import LamportClock
from beatd.events.sent import TaskSentEvents
from beatd.events.zone import local_time, machine_zone
from beatd.instant import span_of
from beatd.pools.base import AsyncRunner
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.child import ChildMain
from beatd.pools.prefork.forkserver import spawned
from beatd.pools.prefork.forkserver_main import RunChild
from beatd.results.base import Keeper
from beatd.results.ended import EndedRuns
from beatd.routing import Queue, Router, worker_direct
from beatd.runs.builtin import add_builtin_tasks
from beatd.runs.chords import ChordKeeper, in_a_thread
from beatd.runs.execute import executor_for
from beatd.runs.report import limits_of
from beatd.scheduler.leadership import Leadership
from beatd.scheduler.loop import LONGEST_NAP, EmissionListener, Scheduler
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.scheduler.takeover import Takeover
from beatd.service.nodes import node_name, path_of
from beatd.tasks import Registry
from beatd.timetable.timetable import Timetable
from beatd.worker.assembly import assemble
from beatd.worker.autoscale import Autoscale
from beatd.worker.events import WorkerEvents
from beatd.worker.inbox import Crashed, WorkerEvent
from beatd.worker.loop import Worker
from beatd.worker.renewal import Modules, Renewed, describe
from beatd.worker.reporting import WorkerNode
from beatd.worker.revoked import StateFile
from beatd.worker.settle import EndRecorder

tell = EventLog(__name__)


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """What one worker is told beside the settings that all share."""

    hostname: str = WORKER_NODE
    queues: Sequence[str] = ()
    """Empty: all that are declared."""
    exclude: Collection[str] = ()
    include: Sequence[str] = ()
    """Modules to import besides those of the settings."""
    autoscale: Autoscale | None = None
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    """Seconds between heartbeats."""


def scheduler_of(config: Config) -> Scheduler:
    """Make the scheduler of a config, in front of its broker.

    Raises ConfigError, and ScheduleFileError for a schedule file that cannot be used.
    """
    settings = config.settings
    clock = SystemClock()
    app = config.source.app
    if app is not None and not isinstance(app, Beatd):
        pass_on_beat()
    file = ScheduleFile(
        Path(settings.beat_schedule_filename),
        namespace=settings.beat_namespace,
        timezone=str(settings.zone),
        clock=clock,
    )
    broker = _one_broker(settings)
    nap = span_of(settings.beat_max_loop_interval) or LONGEST_NAP
    timetable = Timetable()
    leadership = Leadership(
        broker,
        clock,
        holder=f"{socket.gethostname()} pid {os.getpid()}",
        ttl=span_of(settings.beat_lock_timeout),
    )
    takeover = Takeover(
        entries={entry.name: entry for entry in config.entries},
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        keep=[bad.name for bad in config.bad],
        queues=config.router.queues.values(),
        declare=broker.declare,
        on_declared=partial(_warn_of_risks, broker),
    )
    return Scheduler(
        takeover=takeover,
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        namespace=settings.beat_namespace,
        ended=_ended_by(settings),
        witness=_witness_of(config, broker),
        longest_nap=min(nap, LONGEST_NAP),
    )


TAKEN_ONCE = (
    *("beat_namespace", "beat_schedule_filename", "beat_lock_timeout"),
    *("beat_max_loop_interval", "beat_logfile", "beat_pidfile"),
    *("beat_uid", "beat_gid", "beat_umask", "beat_executable"),
    *("broker_transport_options", "broker_use_ssl", "broker_connection_timeout"),
    *("task_send_sent_event", "event_exchange", "event_serializer"),
    *("result_backend_transport_options", "redis_backend_use_ssl"),
    *("redis_max_connections", "redis_socket_timeout", "redis_socket_connect_timeout"),
    *("result_serializer", "result_accept_content", "accept_content"),
    *("worker_log_format", "worker_log_datefmt", "worker_log_color"),
    *("worker_hijack_root_logger", "worker_redirect_stdouts"),
    "worker_redirect_stdouts_level",
)
"""What a scheduler's process takes from the settings when it begins, beside its
addresses."""


def needs_restart(began: Settings, now: Settings) -> list[str]:
    """Name what a scheduler took once, when it began, and what differs in it now."""
    once = {
        "broker_url": (began.write_urls[:1], now.write_urls[:1]),
        "result_backend": (began.result_url, now.result_url),
    }
    once |= {name: (getattr(began, name), getattr(now, name)) for name in TAKEN_ONCE}
    return [name for name, (old, new) in once.items() if old != new]


def _one_broker(settings: Settings) -> Broker:
    """Return the broker at the first address, the only one that a scheduler uses.

    That each slot is queued once takes one ledger, and one leader: two schedulers may
    reach different addresses.
    """
    first, *others = settings.write_urls
    if others:
        tell.warning(
            "broker.addresses",
            "the scheduler uses only %s, the first of %d broker addresses",
            mask(first),
            1 + len(others),
        )
    return brokers.of_settings(settings, [first])


def _warn_of_risks(broker: Broker) -> None:
    """Say what the broker may do to its queues."""
    for risk in broker.risks():
        tell.warning("broker.risk", "broker: %s", risk)


def _witness_of(config: Config, broker: Broker) -> EmissionListener | None:
    if not (config.settings.task_send_sent_event and isinstance(broker, Broadcast)):
        return None
    return TaskSentEvents(broker, EventFactory(config.format.origin, config.settings))


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """The app whose tasks a worker runs, all its modules imported."""

    app: object
    hostname: str
    machine_zone: tzinfo
    """Local time before it became that of the settings."""


def loaded_app_of(config: Config, choice: WorkerChoice) -> LoadedApp:
    """Import the tasks that a worker runs.

    Raises ConfigError for modules that cannot be imported.
    """
    settings = config.settings
    own_zone = machine_zone()
    # Before any module of the user's is imported: it may ask what time it is.
    local_time(str(settings.zone))
    hostname = node_name(choice.hostname)
    app = config.source.app or Beatd()
    if isinstance(app, Beatd):
        app.use(settings)
        app.import_tasks(choice.include)
        add_builtin_tasks(app.tasks)
    else:
        prepare_app(app, settings, hostname, choice.include)
    return LoadedApp(app, hostname, own_zone)


def worker_of(
    config: Config,
    choice: WorkerChoice,
    loaded: LoadedApp,
    inbox: "SimpleQueue[WorkerEvent]",
    *,
    tell: Callable[[Sequence[str]], object],
    begin_process: Callable[[], object],
) -> Worker:
    """Make a worker of a config, in front of its broker.

    `tell` gives what a new interpreter has to know that is to import the same, and
    these modules; `begin_process` is called first of all in each process of the pool.
    Raises ConfigError.
    """
    settings = config.settings
    hostname = loaded.hostname
    runtime = _runtime_of(loaded, settings)
    broker = brokers.of_settings(settings, settings.read_urls)
    audience = broker if isinstance(broker, Broadcast) else None
    lamport = LamportClock()
    modules = Modules()
    options = PoolOptions(
        size=choice.autoscale.least if choice.autoscale else _pool_size(settings),
        initialise=partial(_call_all, [begin_process, runtime.initialise]),
        max_tasks_per_child=settings.worker_max_tasks_per_child,
        max_memory_per_child=settings.worker_max_memory_per_child,
        alive_timeout=settings.worker_proc_alive_timeout,
        spawn=spawned(_interpreter(), lambda: tell(modules.to_load())),
        fork=settings.worker_pool_start_method == "fork",
        on_renewed=lambda about: inbox.put(Renewed(about)),
        on_crash=lambda error: inbox.put(Crashed(error)),
    )
    pool = pools.create(
        settings.worker_pool, runtime.runner, inbox.put, options=options
    )
    return assemble(
        name=hostname,
        identity=f"{hostname}:{os.getpid()}:{secrets.token_hex(4)}",
        queues=queues_of(config, choice),
        router=router_of(config, choice),
        broker=broker,
        pool=pool,
        tasks=runtime.tasks,
        settings=settings,
        inbox=inbox,
        results=runtime.results,
        conductor=runtime.conductor,
        autoscale=choice.autoscale,
        events=_events_of(settings, choice, audience, loaded, lamport),
        pidbox=_pidbox_of(settings, audience, hostname, lamport, inbox),
        state_file=_state_file_of(settings, hostname),
        lamport=lamport,
        modules=modules,
        clock=SystemClock(),
    )


def _interpreter() -> Sequence[str]:
    """Return the command of a new interpreter that the pool forks children from."""
    # As multiprocessing does, so that `python -O` and the like go on meaning the same.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # nothing public
    return [sys.executable, *flags, "-m", "beatd.spawned"]


def run_child_of(
    settings: Settings,
    loaded: LoadedApp,
    modules: Sequence[str],
    begin_process: Callable[[], object],
) -> tuple[RunChild, bytes]:
    """Return what children that are forked from a new interpreter do.

    And what is to be said of their tasks; `modules` were asked for. `worker_of` says
    what `begin_process` is. Raises ConfigError.
    """
    runtime = _runtime_of(loaded, settings)
    # What its handlers prepare in the worker's process, children are to have here too.
    signals.worker_init.send(WorkerNode(loaded.hostname))
    child = ChildMain(
        runtime.runner,
        partial(_call_all, [begin_process, runtime.initialise]),
        settings.worker_max_tasks_per_child,
        settings.worker_max_memory_per_child,
    )
    return child.run, describe(runtime.tasks, modules)


def _events_of(
    settings: Settings,
    choice: WorkerChoice,
    audience: Broadcast | None,
    loaded: LoadedApp,
    lamport: LamportClock,
) -> WorkerEvents | None:
    if audience is None:
        if settings.worker_send_task_events:
            words = "this broker carries no events: -E and monitors need Redis"
            tell.warning("events.none", words)
        return None
    beats = settings.worker_enable_heartbeat
    return WorkerEvents(
        audience,
        loaded.hostname,
        settings,
        lamport,
        machine_zone=loaded.machine_zone,
        interval=choice.heartbeat_interval if beats else None,
        enabled=settings.worker_send_task_events,
    )


def _pidbox_of(
    settings: Settings,
    audience: Broadcast | None,
    hostname: str,
    lamport: LamportClock,
    inbox: "SimpleQueue[WorkerEvent]",
) -> Pidbox | None:
    if audience is None or not settings.worker_enable_remote_control:
        return None
    return Pidbox(audience, hostname, settings, lamport, inbox.put)


def _state_file_of(settings: Settings, hostname: str) -> StateFile | None:
    if not settings.worker_state_db:
        return None
    return StateFile(Path(path_of(settings.worker_state_db, hostname)))


def _pool_size(settings: Settings) -> int:
    asked = settings.worker_concurrency
    if isinstance(asked, int) and asked:
        return asked
    # Those that we may run on, not all that the machine has.
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a worker runs: an app's tasks, and what is needed to run them."""

    tasks: Registry
    runner: AsyncRunner
    results: Keeper | None
    conductor: EndRecorder
    initialise: Callable[[], object]


def _runtime_of(loaded: LoadedApp, settings: Settings) -> Runtime:
    app = loaded.app
    if not isinstance(app, Beatd):
        return _celery_runtime_of(app, loaded.hostname, settings)
    limits = limits_of(settings)
    executor = executor_for(app, loaded.hostname, limits)
    kept = results.connect(settings) if settings.result_url else None
    continuations = replace(executor.continuations, apart=in_a_thread)
    conductor = ChordKeeper(kept, continuations, limits)
    return Runtime(
        app.tasks, executor, kept, conductor, signals.worker_process_init.send
    )


def _celery_runtime_of(app: object, hostname: str, settings: Settings) -> Runtime:
    limits = limits_of(settings)
    runner = CeleryRunner(app, limits, hostname)
    kept = CeleryResults(app) if settings.result_url else None
    conductor = CeleryChordKeeper(app, limits)
    tasks = registry_of(app)
    return Runtime(tasks, runner, kept, conductor, runner.initialise)


def _call_all(functions: Iterable[Callable[[], object]]) -> None:
    for function in functions:
        function()


def queues_of(config: Config, choice: WorkerChoice) -> Sequence[str]:
    """Name the queues that a worker takes from.

    Raises ConfigError when that is none, or one that is unknown and must be known.
    """
    declared = list(config.router.queues)
    wanted = [name for name in choice.queues or declared if name not in choice.exclude]
    try:
        for name in wanted:
            config.router.queue(name)
    except MessageError as error:
        raise ConfigError("-Q", [str(error)]) from error
    if own := _own_queue(config, choice):
        wanted.append(own.name)
    if not wanted:
        raise ConfigError("-Q, -X", ["no queue is left to take from"])
    return wanted


def router_of(config: Config, choice: WorkerChoice) -> Router:
    """Return the router of all queues, with the one that is the worker's own."""
    own = _own_queue(config, choice)
    return config.router.including(own) if own else config.router


def _own_queue(config: Config, choice: WorkerChoice) -> Queue | None:
    if not config.settings.worker_direct:
        return None
    return worker_direct(node_name(choice.hostname))


def _ended_by(settings: Settings) -> Callable[[Collection[str]], Collection[str]]:
    """Let results say which runs ended: foreign workers tell the broker nothing."""
    if settings.result_url is None:
        return lambda task_ids: ()
    return EndedRuns(lambda: results.connect(settings)).among
