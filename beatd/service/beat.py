"""The scheduler as a service: its signals, its status, its exit."""

import gc
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from beatd import signals
from beatd.alerts.desk import Desk
from beatd.clock import Wake
from beatd.config.loading import Config
from beatd.config.options import Options
from beatd.config.switches import BEAT_NODE
from beatd.event_log import EventLog
from beatd.instant import Instant, datetime_of, duration
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.pauses import Pauses
from beatd.schedules.zones import zone_of
from beatd.service import process
from beatd.service.nodes import has_ended, node_name
from beatd.service.notify import Notify
from beatd.service.other_side import LOOK, watch_for_workers
from beatd.service.process import announce, on_signals, tell_of
from beatd.service.reloading import ConfigLoader
from beatd.service.rereading import Taken, needs_restart, read_again, taken_from
from beatd.service.sockets import passed_by
from beatd.service.terminal import Banner, HangUp
from beatd.service.wiring.alerting import (
    desk_of,
    look_for_pauses,
    pauses_of,
    say_ended,
    setting_of,
)
from beatd.service.wiring.answering import Answering, answering_of
from beatd.service.wiring.looking import entries_elsewhere
from beatd.service.wiring.scheduler import (
    ask_results_aside,
    scheduler_of,
    watch_calls,
    write_aside,
)
from beatd.text import counted, escaped

tell = EventLog(__name__)

_GC_THRESHOLDS = 20_000, 20, 20
"""A batch of emissions makes some thousand objects, and hardly a cycle among them. By
Python's own thresholds the collector took a third of the time of an emission."""


def run_scheduler(options: Options) -> int:
    """Run the scheduler until it is told to stop; return the exit status."""
    gc.set_threshold(*_GC_THRESHOLDS)
    early: SimpleQueue[bool] = SimpleQueue()
    hang_up = HangUp.of_process()
    on_signals({"SIGHUP": partial(early.put, True)})  # else it ends the process
    passed = passed_by(os.environ)
    program = process.begin(options, "beat")
    config, notify = program.config, Notify.from_environment()
    with program.in_service(node_name(options.hostname or BEAT_NODE)):
        tell_of(config)
        tell_of_others(config)
        beat = Beat(options, config, notify, inbox=SimpleQueue(), passed=passed)
        hung_up = hang_up.handler(beat.stop, beat.reload)
        on_signals({"SIGTERM": beat.stop, "SIGINT": beat.stop, "SIGHUP": hung_up})
        if not early.empty():
            hung_up()
        beat.banner = announce(options, config, "stop: Ctrl-C")
        beat.run()
        notify.stopping()
    return 0


def tell_of_others(config: Config) -> None:
    """Say which entries other schedulers of the app keep: nobody schedules them."""
    for problem in entries_elsewhere(config):
        tell.warning("entries.elsewhere", "%s", problem)


@dataclass
class Beat:
    """A scheduler, and all that tells it to stop, to reload, to look."""

    options: Options
    config: Config
    notify: Notify
    inbox: SimpleQueue[Wake]
    kind: str = "beat"
    """Of the process: `beat` or `worker`."""
    passed: Sequence[socket.socket] = ()
    """Sockets that systemd has passed."""
    banner: Banner | None = None
    """Where to say who leads, and what comes next, once that is known."""
    scheduler: Scheduler = field(init=False)
    answering: Answering = field(init=False)
    desk: Desk = field(init=False)
    pauses: Pauses = field(init=False)
    _taken: Taken = field(init=False)
    """What the scheduler goes by now."""
    _loader: ConfigLoader = field(init=False)
    _failure: BaseException | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        began = self._taken = taken_from(self.config)
        self._loader = ConfigLoader(
            partial(read_again, self.options, self.kind),
            lambda taken: needs_restart(began.once, taken.once),
            on_begin=self.notify.reloading,
            on_loaded=partial(self.inbox.put, Wake.RELOAD),
        )
        self.scheduler = scheduler_of(self.config)
        self.scheduler.on_tick = self._tell
        self.pauses = pauses_of(self.scheduler)
        also = self.config.settings.worker_http if self.kind == "worker" else None
        self.answering = answering_of(
            self.config, self._taken, self.scheduler, self.passed, also
        )
        self.desk = desk_of(
            self.config.settings,
            self._taken,
            self.scheduler,
            self.answering.published,
        )

    def run(self) -> None:
        """Emit until told to stop, then give the lead back.

        Raises what ended one of the threads beside the loop.
        """
        wake = partial(self.inbox.put, Wake.LOOK)
        watch = self.scheduler.leadership.watch(wake)
        watch.start("beatd-lead", self._crash)
        calls = watch_calls(self.scheduler, self.config)
        if calls:
            calls.start("beatd-calls", self._crash)
        workers = None
        if self.kind == "beat":  # else a worker is here
            workers = watch_for_workers(self.scheduler.broker, self._leads)
        if workers:
            workers.start("beatd-alone", self._crash, LOOK)
        writer = write_aside(self.scheduler)
        writer.start("beatd-file", self._crash)
        paused = look_for_pauses(self.pauses, self._leads)
        paused.start("beatd-paused", self._crash)
        self._loader.start(self._crash)
        self.answering.start()
        self.desk.start(say_ended)
        aside = None
        if self.config.settings.result_url is not None:
            aside = ask_results_aside(self.scheduler, wake)
        self.notify.ready(self.status())
        signals.beat_init.send(self.scheduler)
        try:
            self.scheduler.run(self.inbox, self._use_loaded)
        finally:
            # None of them is waited for: a step of theirs may take long.
            watch.leave()
            if calls:
                calls.leave()
            if workers:
                workers.leave()
            paused.leave()
            writer.leave()
            self._loader.leave()
            if aside:
                aside.close()
            self.desk.leave()
            self.answering.stop()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self.inbox.put(Wake.STOP)

    def reload(self) -> None:
        self._loader.ask()

    def _leads(self) -> bool:
        return self.scheduler.leadership.term is not None

    def _crash(self, error: BaseException) -> None:
        self._failure = error
        self.stop()

    def status(self) -> str:
        """Return how the scheduler is: the second line of `systemctl status`."""
        scheduler = self.scheduler
        number = counted(len(self._taken.entries), "entry")
        if self._taken.bad:
            number += f", {len(self._taken.bad)} bad"
        if scheduler.refused:
            number += f", {len(scheduler.refused)} refused"
        if scheduler.held:
            number += f", {len(scheduler.held)} held"
        if scheduler.outage:
            return f"{number}; {scheduler.outage}"
        if scheduler.follows:
            if scheduler.differs:
                number += f"; degraded: {scheduler.differs}"
            return f"standby (leader: {scheduler.follows}); {number}"
        if scheduler.leadership.term is None:
            return f"starting; {number}"
        at = scheduler.timetable.next_at()
        when = f"; next at {_shown(at, self._taken.zone)}" if at else ""
        return f"leader; {number}{when}"

    def standing(self) -> str:
        """Return who leads, and what comes next, in words; empty until it is known."""
        scheduler = self.scheduler
        if scheduler.follows and not has_ended(scheduler.follows):
            return f"standby: {escaped(scheduler.follows)} leads"
        if scheduler.leadership.term is None:
            return ""
        words = f"leader: this process, term {scheduler.leadership.term.number}"
        at, now = scheduler.timetable.next_at(), scheduler.clock.now()
        if at is None:
            return f"{words}   next: no entry has a slot to come"
        (due,) = scheduler.timetable.due(at, 1)
        when = f"in {duration(at - now)}" if at > now else "now"
        return f"{words}   next: {escaped(due.entry.name)} {when}"

    def _tell(self, scheduler: Scheduler) -> None:
        if self.banner and (standing := self.standing()):
            self.banner.say(standing)
            self.banner = None
        self.answering.published.publish(scheduler)
        if self.notify.address:
            self.notify.alive(self.status())

    def _use_loaded(self) -> None:
        loaded = self._loader.take()
        if loaded.config is None:
            tell.error("config.error", "kept the old config: %s", loaded.problem)
            self.answering.reporter.problem = loaded.problem
        else:
            self._use(loaded.config, loaded.waits)
        self.notify.ready(self.status())
        self._loader.done()

    def _use(self, taken: Taken, waits: Sequence[str]) -> None:
        """Schedule by this config; `waits` are settings that wait for a restart."""
        if waits:
            tell.warning(
                "config.restart",
                "changed, and in effect from the next start on only: %s",
                ", ".join(waits),
                settings=waits,
            )
        self._taken = taken
        self.answering.reporter.take(taken, self.scheduler.clock.now())
        self.desk.use(setting_of(self.config.settings, taken))
        tell_of(taken)
        entries = {entry.name: entry for entry in taken.entries}
        bad = [bad.name for bad in taken.bad]
        self.scheduler.replace(entries, bad, taken.queues)
        tell.info("config.reloaded", "reloaded: %s", counted(len(entries), "entry"))


def _shown(instant: Instant, zone: str) -> str:
    return f"{datetime_of(instant, zone_of(zone)):%H:%M:%S %Z}"
