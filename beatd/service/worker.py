"""A worker as a service, perhaps with a scheduler beside it: signals, status, exit."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from beatd import signals
from beatd.background import Service, start_thread
from beatd.config.loading import Config
from beatd.config.options import Options, Told
from beatd.config.switches import HEARTBEAT_INTERVAL, WORKER_NODE
from beatd.errors import ConfigError
from beatd.event_log import EventLog
from beatd.instant import span_of
from beatd.pools.prefork.forkserver_main import RunChild
from beatd.service import process
from beatd.service.http import Server, say_ended
from beatd.service.notify import Notify
from beatd.service.other_side import LOOK, watch_for_scheduler
from beatd.service.process import announce, on_signals, tell_of
from beatd.service.sockets import TCPListener, passed_by
from beatd.service.terminal import Banner, HangUp
from beatd.service.wiring.choice import WorkerChoice
from beatd.service.wiring.runtime import LoadedApp, loaded_app_of, tasks_of, unreached
from beatd.service.wiring.worker import run_child_of, worker_of
from beatd.service.worker_site import WorkerSite
from beatd.text import counted, escaped, is_encodable
from beatd.worker.autoscale import Autoscale
from beatd.worker.inbox import Crashed, Stop, WorkerEvent
from beatd.worker.loop import Worker

if TYPE_CHECKING:
    from beatd.service.beat import Beat

tell = EventLog(__name__)


def run_worker(options: Options, *, beat: bool) -> int:
    """Run a worker, and with `beat` a scheduler, until told to stop."""
    hang_up = HangUp.of_process()
    passed = passed_by(os.environ)
    program = process.begin(options, "worker")
    config, notify = program.config, Notify.from_environment()
    choice = choice_of(options)
    # Before the log is set up: what the user's modules do about it comes first.
    loaded = loaded_app_of(config, choice)
    with program.in_service(loaded.hostname) as log:
        tell_of(config)
        _tell_of_unreached(config)
        inbox: SimpleQueue[WorkerEvent] = SimpleQueue()
        worker = worker_of(
            config,
            choice,
            loaded,
            inbox,
            instructions=partial(_told, options),
            begin_process=log.begin_child,
        )
        scheduler = watch = None
        if beat:
            scheduler = _beside(options, config, program.kind, passed)
        else:
            watch = watch_for_scheduler(worker.broker, len(config.entries))
        service = WorkerService(
            worker,
            scheduler,
            inbox,
            notify,
            watch,
            config.settings.worker_http,
            hang_up,
        )
        about = _about(worker, config, loaded)
        service.run(partial(announce, options, config, *about))
        notify.stopping()
    return 0


def _beside(
    options: Options, config: Config, kind: str, passed: Sequence[socket.socket]
) -> "Beat":
    """Return the scheduler of a worker's process of this kind; say what it leaves out.

    `passed` are the sockets that systemd has passed.
    """
    # Imported here: a worker alone takes less memory without a scheduler's code.
    from beatd.service.beat import Beat, tell_of_others

    tell_of_others(config)
    return Beat(options, config, Notify(), SimpleQueue(), kind, passed)


def _about(worker: Worker, config: Config, loaded: LoadedApp) -> Sequence[str]:
    """Return what is said of a worker on a terminal."""
    queues = "queue" if len(worker.queues) == 1 else "queues"
    named = ", ".join(escaped(name) for name in worker.queues)
    tasks = [name for name in tasks_of(loaded.app) if not name.startswith("celery.")]
    return (
        f"worker {escaped(worker.name)}   pool {config.settings.worker_pool}"
        f", {worker.sizing.size} at a time"
        f"   {queues} {named}   {counted(len(tasks), 'task')}",
        "stop: Ctrl-C, which waits for running tasks; a second one ends them",
    )


def _tell_of_unreached(config: Config) -> None:
    """Say what a Celery app has that beatd's worker does not use."""
    for problem in unreached(config):
        tell.warning("app.unreached", "%s", problem)


def _told(options: Options, modules: Sequence[str]) -> Told:
    return Told(sys.path, options, list(modules))


def become_fork_server(told: Told) -> tuple[RunChild, bytes]:
    """Make this new interpreter one from which a worker's children can be forked.

    Returns what the children do, and the bytes that describe their tasks. User, working
    directory, umask and environment are the worker's already.
    """
    program = process.load_config(told.options, "worker")
    choice = choice_of(told.options)
    choice = replace(choice, include=[*choice.include, *told.modules])
    loaded = loaded_app_of(program.config, choice)
    log = program.begin_log(loaded.hostname)
    settings = program.config.settings
    return run_child_of(settings, loaded, told.modules, log.begin_child)


def choice_of(options: Options) -> WorkerChoice:
    """Return what only this worker is told."""
    return WorkerChoice(
        hostname=options.hostname or WORKER_NODE,
        queues=_listed("--queues", options.queues),
        exclude=_listed("--exclude-queues", options.exclude_queues),
        include=_listed("--include", options.include),
        autoscale=_autoscale(options),
        heartbeat_interval=options.heartbeat_interval or HEARTBEAT_INTERVAL,
    )


def _autoscale(options: Options) -> Autoscale | None:
    if options.autoscale is None:
        return None
    if options.autoscale_keepalive is None:
        return Autoscale(*options.autoscale)
    return Autoscale(*options.autoscale, span_of(options.autoscale_keepalive))


def _listed(option: str, text: str | None) -> list[str]:
    """Return the names that an option lists. Raises ConfigError."""
    if not is_encodable(text or ""):
        raise ConfigError(option, ["expected Unicode, without lone surrogates"])
    return [word.strip() for word in (text or "").split(",") if word.strip()]


@dataclass
class WorkerService:
    """A worker, perhaps with a scheduler in a thread beside it, and their signals."""

    worker: Worker
    beat: "Beat | None"
    inbox: "SimpleQueue[WorkerEvent]"
    notify: Notify
    watch: Service | None = None
    """Says if no scheduler is where the worker is."""
    http: str | None = None
    """The address at which the worker answers, if no scheduler does it beside it."""
    hang_up: HangUp = field(default_factory=HangUp)
    _banner: Banner | None = field(default=None, init=False)
    """Where to say that it stops, and has to wait."""
    _thread: threading.Thread | None = field(default=None, init=False)
    _interrupts: int = field(default=0, init=False)
    _failure: BaseException | None = field(default=None, init=False)
    _site: WorkerSite = field(init=False)
    _server: Server | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Raises ConfigError for an odd address."""
        self._site = WorkerSite(self.worker)
        if self.beat:
            self.beat.answering.site.worker_metrics = self._site.metrics
        elif self.http is not None:
            listener = TCPListener.of(self.http)
            self._server = Server([listener], self._site.respond, self.worker.clock)

    def run(self, announce: Callable[[], Banner]) -> None:
        """Work until told to stop; running tasks end first.

        A scheduler that fails ends the worker, too, and what it raised is raised here:
        whoever watches over the process starts both again.
        """
        colder = os.environ.get("REMAP_SIGTERM") == "SIGQUIT"  # Celery's name for it
        on_signals(
            {
                "SIGTERM": self._stop_cold if colder else self._stop_warm,
                "SIGINT": self._interrupt,
                "SIGQUIT": self._stop_cold,
                "SIGHUP": self.hang_up.handler(self._stop_warm, self._reload),
            }
        )
        self._banner = announce()
        if self.beat:
            self.beat.banner = self._banner
        self.worker.on_ready = self._ready
        self.worker.on_turn = self._tell
        try:
            self.worker.run()
        finally:
            if self.watch:
                self.watch.leave()
            if self._server:
                self._server.stop()
            if self.beat and self._thread:
                self.beat.stop()
                self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _ready(self) -> None:
        # Not before: the pool has forked by now, and may fork from a process without
        # threads only.
        if self.beat:
            signals.beat_embedded_init.send(self.beat.scheduler)
            schedule = partial(self._schedule, self.beat)
            thread = threading.Thread(target=schedule, name="beat")
            start_thread(thread)
            self._thread = thread
        if self.watch:
            self.watch.start("beatd-alone", self._crash, LOOK)
        if self._server:
            self._server.start(say_ended)
        self.notify.ready(self._status())

    def _crash(self, error: BaseException) -> None:
        self.inbox.put(Crashed(error))

    def _schedule(self, beat: "Beat") -> None:
        try:
            beat.run()
        except BaseException as error:  # raised again by `run`, in the main thread
            tell.critical(
                "beat.failed", "the scheduler failed, the worker stops: %r", error
            )
            self._failure = error
            self.inbox.put(Stop.WARM)

    def _status(self) -> str:
        """Return how the worker is: the second line of `systemctl status`."""
        worker = self.worker
        doing = (
            f"{counted(worker.held, 'task')} in hand, from {', '.join(worker.queues)}"
        )
        return f"{'draining' if worker.is_stopping else worker.name}: {doing}"

    def _tell(self) -> None:
        self._site.turned()
        if self._banner and self.worker.is_stopping:
            self._say_what_it_waits_for(self._banner)
            self._banner = None
        if not self.notify.address:
            return  # nobody listens: no status is made for each turn
        if self.worker.is_stopping:
            # Tasks may take longer than the manager would wait.
            self.notify.extend(5)
        self.notify.alive(self._status())

    def _say_what_it_waits_for(self, banner: Banner) -> None:
        # The terminal has ^C in that line by now.
        if running := len(self.worker.workload):
            waits = f"stopping: {counted(running, 'task')} running"
            banner.say("", f"{waits}; Ctrl-C again ends what runs")

    def _stop_warm(self) -> None:
        self._stop(Stop.WARM)

    def _stop_cold(self) -> None:
        self._stop(Stop.COLD)

    def _stop(self, stop: Stop) -> None:
        if self.beat:
            self.beat.stop()
        self.inbox.put(stop)

    def _interrupt(self) -> None:
        """Stop at Ctrl-C: once is warm, twice is cold."""
        self._interrupts += 1
        self._stop_warm() if self._interrupts == 1 else self._stop_cold()

    def _reload(self) -> None:
        if self.beat:
            self.beat.reload()
