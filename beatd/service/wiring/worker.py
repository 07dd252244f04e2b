"""A worker of a config, in front of its broker, and the children of its pool."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from beatd import brokers, pools, signals
from beatd.background import Outage
from beatd.brokers.base import Broadcast
from beatd.clock import SystemClock
from beatd.config.loading import Config
from beatd.config.settings import Settings
from beatd.control.pidbox import Pidbox
from beatd.event_log import EventLog
from beatd.events.lamport import LamportClock
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.child import ChildMain
from beatd.pools.prefork.forkserver import spawned
from beatd.pools.prefork.forkserver_main import RunChild
from beatd.service.nodes import path_of
from beatd.service.wiring.choice import WorkerChoice, queues_of, router_of
from beatd.service.wiring.runtime import LoadedApp, runtime_of
from beatd.service.wiring.worker_parts import Surroundings, assemble, broker_outage
from beatd.worker.events import WorkerEvents
from beatd.worker.inbox import Crashed, WorkerEvent
from beatd.worker.loop import Worker
from beatd.worker.renewal import Modules, Renewed, describe
from beatd.worker.reporting import WorkerNode
from beatd.worker.revoked import StateFile

tell = EventLog(__name__)


def worker_of(
    config: Config,
    choice: WorkerChoice,
    loaded: LoadedApp,
    inbox: "SimpleQueue[WorkerEvent]",
    *,
    instructions: Callable[[Sequence[str]], object],
    begin_process: Callable[[], object],
) -> Worker:
    """Make a worker of a config, in front of its broker.

    `instructions` returns what a new interpreter has to know to import the same, and
    the modules that it is called with; `begin_process` is called first of all in each
    process of the pool. Raises ConfigError.
    """
    settings = config.settings
    hostname = loaded.hostname
    runtime = runtime_of(loaded, settings)
    broker = brokers.for_workers(settings, settings.read_urls)
    audience = broker if isinstance(broker, Broadcast) else None
    lamport, clock = LamportClock(), SystemClock()
    away = broker_outage(clock)
    modules = Modules()
    options = PoolOptions(
        size=choice.autoscale.least if choice.autoscale else _pool_size(settings),
        initialise=partial(_call_all, [begin_process, runtime.initialise]),
        max_tasks_per_child=settings.worker_max_tasks_per_child,
        max_memory_per_child=settings.worker_max_memory_per_child,
        alive_timeout=settings.worker_proc_alive_timeout,
        spawn=spawned(_interpreter(), lambda: instructions(modules.to_load())),
        fork=settings.worker_pool_start_method == "fork",
        on_renewed=lambda about: inbox.put(Renewed(about)),
        on_crash=lambda error: inbox.put(Crashed(error)),
    )
    pool = pools.create(
        settings.worker_pool, runtime.runner, inbox.put, options=options
    )
    around = Surroundings(
        name=hostname,
        identity=f"{hostname}:{os.getpid()}:{secrets.token_hex(4)}",
        queues=queues_of(config, choice),
        router=router_of(config, choice),
        broker=broker,
        pool=pool,
        tasks=runtime.tasks,
        settings=settings,
        given=config.given,
        inbox=inbox,
        results=runtime.results,
        chord_keeper=runtime.chord_keeper,
        autoscale=choice.autoscale,
        events=_events_of(settings, choice, audience, loaded, lamport, away),
        pidbox=_pidbox_of(settings, audience, hostname, lamport, inbox, away),
        state_file=_state_file_of(settings, hostname),
        lamport=lamport,
        modules=modules,
        clock=clock,
        away=away,
    )
    return assemble(around)


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

    And the bytes that describe their tasks; `modules` were asked for. `worker_of` says
    what `begin_process` is. Raises ConfigError.
    """
    runtime = runtime_of(loaded, settings)
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
    away: Outage,
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
        away=away,
    )


def _pidbox_of(
    settings: Settings,
    audience: Broadcast | None,
    hostname: str,
    lamport: LamportClock,
    inbox: "SimpleQueue[WorkerEvent]",
    away: Outage,
) -> Pidbox | None:
    if audience is None or not settings.worker_enable_remote_control:
        return None
    return Pidbox(audience, hostname, settings, lamport, inbox.put, away)


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


def _call_all(functions: Iterable[Callable[[], object]]) -> None:
    for function in functions:
        function()
