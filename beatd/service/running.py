"""Running as a service: options, process, signals, status, exit."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue

from beatd import signals
from beatd.background import start_thread
from beatd.clock import Wake
from beatd.config.loading import Config, load
from beatd.config.options import Options, Told
from beatd.config.settings import Settings, mask_url
from beatd.config.switches import BEAT_NODE, HEARTBEAT_INTERVAL, WORKER_NODE
from beatd.errors import ConfigError
from beatd.event_log import EventLog
from beatd.instant import Instant, datetime_of, span_of
from beatd.pools.prefork.forkserver_main import RunChild
from beatd.scheduler.loop import Scheduler
from beatd.service import daemon, process, wiring
from beatd.service.nodes import node_name
from beatd.service.notify import Notify
from beatd.service.reloading import ConfigLoader
from beatd.text import counted, is_encodable
from beatd.version import __version__
from beatd.worker.autoscale import Autoscale
from beatd.worker.inbox import Stop, WorkerEvent
from beatd.worker.loop import Worker

tell = EventLog(__name__)


def run_scheduler(options: Options) -> int:
    """Run the scheduler until it is told to stop; return the exit status."""
    program = process.begin(options, "beat")
    config, notify = program.config, Notify.from_environment()
    with program.in_service(node_name(options.hostname or BEAT_NODE)):
        _tell_of(config)
        _tell_of_others(config)
        beat = _Beat(options, config, notify, inbox=SimpleQueue())
        _on_signals({"SIGTERM": beat.stop, "SIGINT": beat.stop, "SIGHUP": beat.reload})
        _announce(options, config)
        beat.run()
        notify.stopping()
    return 0


def run_worker(options: Options, *, beat: bool) -> int:
    """Run a worker, and with `beat` a scheduler, until told to stop."""
    program = process.begin(options, "worker")
    config, notify = program.config, Notify.from_environment()
    choice = choice_of(options)
    # Before the log is set up: what the user's modules do about it comes first.
    loaded = wiring.loaded_app_of(config, choice)
    with program.in_service(loaded.hostname) as log:
        _tell_of(config)
        if beat:
            _tell_of_others(config)
        inbox: SimpleQueue[WorkerEvent] = SimpleQueue()
        worker = wiring.worker_of(
            config,
            choice,
            loaded,
            inbox,
            instructions=partial(_told, options),
            begin_process=log.begin_child,
        )
        scheduler = _Beat(options, config, Notify(), SimpleQueue()) if beat else None
        WorkerService(worker, scheduler, inbox, notify).run(
            partial(_announce, options, config)
        )
        notify.stopping()
    return 0


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
    loaded = wiring.loaded_app_of(program.config, choice)
    log = program.begin_log(loaded.hostname)
    settings = program.config.settings
    return wiring.run_child_of(settings, loaded, told.modules, log.begin_child)


def choice_of(options: Options) -> wiring.WorkerChoice:
    """Return what only this worker is told."""
    return wiring.WorkerChoice(
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
    beat: "_Beat | None"
    inbox: "SimpleQueue[WorkerEvent]"
    notify: Notify
    _thread: threading.Thread | None = field(default=None, init=False)
    _interrupts: int = field(default=0, init=False)
    _failure: BaseException | None = field(default=None, init=False)

    def run(self, announce: Callable[[], None]) -> None:
        """Work until told to stop; running tasks end first.

        A scheduler that fails ends the worker, too, and what it raised is raised here:
        whoever watches over the process starts both again.
        """
        colder = os.environ.get("REMAP_SIGTERM") == "SIGQUIT"  # Celery's name for it
        _on_signals(
            {
                "SIGTERM": self._stop_cold if colder else self._stop_warm,
                "SIGINT": self._interrupt,
                "SIGQUIT": self._stop_cold,
                "SIGHUP": self._reload,
            }
        )
        announce()
        self.worker.on_ready = self._ready
        self.worker.on_turn = self._tell
        try:
            self.worker.run()
        finally:
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
        self.notify.ready(self._status())

    def _schedule(self, beat: "_Beat") -> None:
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
        if not self.notify.address:
            return  # nobody listens: no status is made for each turn
        if self.worker.is_stopping:
            # Tasks may take longer than the manager would wait.
            self.notify.extend(5)
        self.notify.alive(self._status())

    def _stop_warm(self) -> None:
        self._stop(Stop.WARM)

    def _stop_cold(self) -> None:
        self._stop(Stop.COLD)

    def _stop(self, stop: Stop) -> None:
        if self.beat:
            self.beat.stop()
        self.inbox.put(stop)

    def _interrupt(self) -> None:
        """Ctrl-C: once is warm, twice is cold."""
        self._interrupts += 1
        self._stop_warm() if self._interrupts == 1 else self._stop_cold()

    def _reload(self) -> None:
        if self.beat:
            self.beat.reload()


@dataclass
class _Beat:
    """A scheduler, and all that tells it to stop, to reload, to look."""

    options: Options
    config: Config
    notify: Notify
    inbox: SimpleQueue[Wake]
    scheduler: Scheduler = field(init=False)
    _began: Settings = field(init=False)
    """What is taken once, was taken from these."""
    _loader: ConfigLoader = field(init=False)
    _failure: BaseException | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._began = self.config.settings
        self._loader = ConfigLoader(
            self._load,
            lambda config: wiring.needs_restart(self._began, config.settings),
            on_begin=self.notify.reloading,
            on_loaded=partial(self.inbox.put, Wake.RELOAD),
        )
        self.scheduler = wiring.scheduler_of(self.config)
        self.scheduler.on_tick = self._tell

    def run(self) -> None:
        """Emit until told to stop, then give the lead back.

        Raises what ended one of the threads beside the loop.
        """
        wake = partial(self.inbox.put, Wake.LOOK)
        watch = self.scheduler.leadership.watch(wake)
        watch.start("beatd-lead", self._crash)
        self._loader.start(self._crash)
        aside = None
        if self._began.result_url is not None:
            aside = wiring.ask_results_aside(self.scheduler, wake)
        self.notify.ready(self.status())
        signals.beat_init.send(self.scheduler)
        try:
            self.scheduler.run(self.inbox, self._use_loaded)
        finally:
            # Neither is waited for: a step of theirs may take long.
            watch.leave()
            self._loader.leave()
            if aside:
                aside.close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self.inbox.put(Wake.STOP)

    def reload(self) -> None:
        self._loader.ask()

    def _crash(self, error: BaseException) -> None:
        self._failure = error
        self.stop()

    def status(self) -> str:
        """Return how the scheduler is: the second line of `systemctl status`."""
        scheduler = self.scheduler
        number = counted(len(self.config.entries), "entry")
        if self.config.bad:
            number += f", {len(self.config.bad)} bad"
        if scheduler.refused:
            number += f", {len(scheduler.refused)} refused"
        if scheduler.held:
            number += f", {len(scheduler.held)} held"
        if scheduler.outage:
            return f"{number}; {scheduler.outage}"
        if scheduler.standing_by:
            if scheduler.differs:
                number += f"; degraded: {scheduler.differs}"
            return f"standby (leader: {scheduler.standing_by}); {number}"
        if scheduler.leadership.term is None:
            return f"starting; {number}"
        at = scheduler.timetable.next_at()
        when = f"; next at {_shown(at, self.config.settings)}" if at else ""
        return f"leader; {number}{when}"

    def _tell(self, scheduler: Scheduler) -> None:
        if self.notify.address:
            self.notify.alive(self.status())

    def _load(self) -> Config:
        return load(self.options.wanted(), strict=bool(self.options.strict))

    def _use_loaded(self) -> None:
        loaded = self._loader.take()
        if loaded.config is None:
            tell.error("config.error", "kept the old config: %s", loaded.problem)
        else:
            self._use(loaded.config, loaded.waits)
        self.notify.ready(self.status())

    def _use(self, config: Config, waits: Sequence[str]) -> None:
        """Schedule by this config; `waits` are settings that wait for a restart."""
        if waits:
            tell.warning(
                "config.restart",
                "changed, and in effect from the next start on only: %s",
                ", ".join(waits),
                settings=waits,
            )
        self.config = config
        _tell_of(config)
        entries = {entry.name: entry for entry in config.entries}
        bad = [bad.name for bad in config.bad]
        self.scheduler.replace(entries, bad, config.router.queues.values())
        tell.info("config.reloaded", "reloaded: %s", counted(len(entries), "entry"))


def _tell_of(config: Config) -> None:
    """Name what is left out of a config, what is odd in it, and what does nothing."""
    for bad in config.bad:
        for problem in bad.problems:
            tell.error(
                "entry.bad",
                "entry %r is left out: %s",
                bad.name,
                problem,
                entry=bad.name,
            )
    for problem in config.warnings:
        tell.warning("config.warning", "%s", problem)
    if config.unused:
        words = ", ".join(config.unused)
        tell.debug(
            "config.unused",
            "accepted, without effect: %s",
            words,
            settings=config.unused,
        )


def _tell_of_others(config: Config) -> None:
    """Say which entries other schedulers of the app keep: nobody schedules them."""
    for problem in wiring.entries_elsewhere(config):
        tell.warning("entries.elsewhere", "%s", problem)


def _on_signals(handlers: Mapping[str, Callable[[], None]]) -> None:
    """Let signals do one thing each: SimpleQueue.put is safe there, little else is."""
    for name, handler in handlers.items():
        signal.signal(getattr(signal, name), lambda *_, handle=handler: handle())


def _announce(options: Options, config: Config) -> None:
    """Say on a terminal what runs; elsewhere one line of the log says it."""
    daemon.begun()
    settings = config.settings
    broker = mask_url(settings.write_urls[0])
    number = counted(len(config.entries), "entry")
    terminal = sys.__stderr__  # and not what tasks print to
    if options.quiet or not terminal or not terminal.isatty():
        tell.info(
            "start",
            "beatd %s: config %s, broker %s, %s, pid %d on %s",
            __version__,
            config.source.name,
            broker,
            number,
            os.getpid(),
            socket.gethostname(),
        )
        return
    lines = [
        f"beatd {__version__}   config {config.source.name}"
        f"   state {settings.beat_schedule_filename}",
        f"broker {broker}   zone {settings.zone}   {number}",
        "stop: Ctrl-C",
    ]
    terminal.write("\n".join(lines) + "\n")


def _shown(instant: Instant, settings: Settings) -> str:
    return f"{datetime_of(instant, settings.zone):%H:%M:%S %Z}"
