"""The worker's loop: takes deliveries, has them run, and settles them.

    broker -> Fetcher -> inbox -> Worker -> pool -> inbox -> Worker -> keep -> settle

Four threads beside the loop: the lease, the fetcher, and two stages, so that neither a
result backend nor a broker that is away keeps the loop from the pool. A delivery stays
in flight, under the worker's lease, until its result is kept and it is settled: a
worker that dies at any moment before that has it delivered again.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from beatd.brokers.base import Delivery, Done, Outgoing
from beatd.clock import Clock, SystemClock
from beatd.codec import shown
from beatd.errors import (
    BrokerUnavailable,
    MessageError,
    NotRegistered,
    Revoked,
    TimeLimitExceeded,
    WorkerLost,
)
from beatd.instant import SECOND, Instant, Span, span_of
from beatd.message import Envelope, read_envelope
from beatd.pools.base import Finished, Job, Lost, Pool, PoolEvent, Started, TimedOut
from beatd.results.base import Meta, ResultBackend, State, Stored
from beatd.routing import Route
from beatd.settings import Settings
from beatd.tasks import Registry, Task
from beatd.worker.autoscale import LOOK, Autoscale
from beatd.worker.intake import Fetcher, Lease, Room
from beatd.worker.report import (
    Fate,
    Report,
    ignores_result,
    keeps,
    limits_of,
    meta_of,
    one_line,
    option,
    read_report,
)
from beatd.worker.settle import (
    Acknowledge,
    Begin,
    Bury,
    Continue,
    Delay,
    GiveBack,
    Settlement,
    Settler,
    Source,
)
from beatd.worker.stage import Trouble

logger = logging.getLogger(__name__)

PATIENCE: Span = 5 * SECOND
"""How long a worker that stops waits for a broker or a result backend that is away."""

UNLIMITED = 10_000
"""Deliveries that a worker holds at most when the settings set no limit."""


# What comes into the inbox ----------------------------------------------------------


class Stop(Enum):
    """How the worker is to end."""

    WARM = "warm"  # let the tasks that run end
    COLD = "cold"  # at once: what runs is given back


@dataclass(frozen=True, slots=True)
class Fetched:
    """New deliveries."""

    deliveries: Sequence[Delivery]


@dataclass(frozen=True, slots=True)
class Settled:
    """These deliveries are done with, as far as was asked for."""

    settlements: Sequence[Settlement]


@dataclass(frozen=True, slots=True)
class Crashed:
    """A thread of the worker ended for a reason nobody foresaw."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing came for a while."""


WorkerEvent: TypeAlias = PoolEvent | Fetched | Settled | Crashed | Stop | TimePassed


@dataclass(slots=True)
class Held:
    """A delivery that is to run here, from its arrival until its run has ended."""

    delivery: Delivery
    said: Envelope
    task: Task[..., Any]
    early: bool
    """Acknowledged before its run."""
    losses: list[str] = field(default_factory=list)
    """How the processes ended that died with it."""

    @property
    def token(self) -> str:
        return self.delivery.token

    @property
    def label(self) -> str:
        return f"{one_line(self.said.name)}[{one_line(self.said.id)}]"


# The worker -------------------------------------------------------------------------


@dataclass
class Worker:
    """Takes deliveries, has the pool run them, and settles them.

    Each delivery that was taken is in `_waiting`, is in `_running` (in the pool, or
    about to be), or has a settlement on its way; its place in the room is cleared when
    it is settled for good.
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
    results: ResultBackend | None = None
    """None: nothing is kept."""
    autoscale: Autoscale | None = None
    """Decides the pool's size as the load changes; None: nobody does."""
    on_ready: Callable[[], object] = lambda: None
    on_turn: Callable[[], object] = lambda: None
    """Called each time the loop has turned, once a second at least: the watchdog."""
    clock: Clock = field(default_factory=SystemClock)

    _waiting: deque[Held] = field(default_factory=deque, init=False)
    _running: dict[str, Held] = field(default_factory=dict, init=False)
    _stop: Stop | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._limits = limits_of(self.settings)
        away = Trouble("the broker is away", "broker")
        self.room = Room(self.capacity)
        self.lease = Lease(
            self.broker,
            self.identity,
            span_of(self.settings.worker_lease_timeout),
            self._say_recovered,
            away,
        )
        self.fetcher = Fetcher(
            self.broker,
            self.identity,
            self.queues,
            self.lease,
            self.room,
            lambda deliveries: self.inbox.put(Fetched(deliveries)),
            away,
        )
        self.settler = Settler(
            self.broker,
            self.identity,
            self.results,
            lambda settlements: self.inbox.put(Settled(settlements)),
            away,
        )

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
        return len(self._running) + len(self._waiting)

    def run(self) -> None:
        """Work until told to stop."""
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
        try:
            while not self._is_over():
                self.handle(self._next())
                self.on_turn()
        finally:
            self._end()

    def _next(self) -> WorkerEvent:
        try:
            return self.inbox.get(timeout=LOOK / SECOND)
        except Empty:
            return TimePassed()

    def resize(self, size: int) -> None:
        """Run this many at the same time, one at least, and hold accordingly many."""
        before = self.capacity
        self.pool.resize(size)
        self.room.clear(self.capacity - before)

    def handle(self, event: WorkerEvent) -> None:
        """Do what one event asks for."""
        match event:
            case Started(token, pid):
                self._started(self._running[token], pid)
            case Finished(token, report):
                self._finished(self._running.pop(token), read_report(report))
            case TimedOut(token, limit):
                self._timed_out(self._running.pop(token), limit)
            case Lost(token, reason):
                self._lost(self._running.pop(token), reason)
            case Fetched(deliveries):
                for delivery in deliveries:
                    self._admit(delivery)
            case Settled(settlements):
                self._settled(settlements)
            case Stop():
                self._begin_to_stop(event)
            case Crashed(error):
                self._begin_to_stop(Stop.COLD)
                raise error
        self._fit_pool()
        self._feed()

    # Arrival

    def _admit(self, delivery: Delivery) -> None:
        """Decide about a new delivery: run it, or settle it at once."""
        if self._stop:
            self.settler.put(Settlement(delivery.token, GiveBack(delivery)))
            return
        most = self.settings.task_max_deliveries
        if delivery.deliveries > most + 1:
            # It ended the worker that was about to set it aside: not even look at it.
            self._bury(delivery, f"delivered {delivery.deliveries} times")
            return
        try:
            said = read_envelope(delivery.message, self._limits)
        except MessageError as error:
            self._bury(delivery, str(error))
            return
        now = self.clock.now()
        task = self.tasks.get(said.task)
        if task is None:
            self._bury_failed(delivery, said, None, NotRegistered(said.task))
        elif delivery.deliveries > most:
            times = f"{delivery.deliveries - 1} times"
            lost = WorkerLost(f"delivered {times}, and no worker lived to tell the end")
            self._bury_failed(delivery, said, task, lost)
        elif _has_expired(said, now):
            self._expire(delivery, said, task)
        elif said.eta is not None and said.eta > now:
            self.settler.put(Settlement(delivery.token, Delay(delivery, said.eta)))
        else:
            early = not option(task, "acks_late", self.settings)
            held = Held(delivery, said, task, early)
            logger.info("%s received", held.label, extra=_event("received", held))
            self._waiting.append(held)

    def _bury(self, delivery: Delivery, reason: str) -> None:
        logger.error(
            "set aside a message of queue %s: %s",
            shown(delivery.queue),
            one_line(reason),
            extra={"event": "task.buried", "queue": delivery.queue},
        )
        self.settler.put(Settlement(delivery.token, Bury(delivery, one_line(reason))))

    def _bury_failed(
        self,
        delivery: Delivery,
        said: Envelope,
        task: Task[..., Any] | None,
        error: Exception,
        history: Sequence[str] = (),
    ) -> None:
        """Keep a FAILURE, and set the message aside."""
        reason = one_line("; ".join([str(error), *history]))
        logger.error(
            "%s[%s] set aside: %s",
            one_line(said.name),
            one_line(said.id),
            reason,
            extra={"event": "task.buried", "task": said.task, "id": said.id},
        )
        act = Bury(delivery, reason, said.task, said.id)
        kept = self._meta(said, task, State.FAILURE, error)
        self.settler.put(Settlement(delivery.token, act, kept, _run_of(said)))

    def _expire(self, delivery: Delivery, said: Envelope, task: Task[..., Any]) -> None:
        logger.info(
            "%s[%s] has expired",
            one_line(said.name),
            one_line(said.id),
            extra={"event": "task.expired", "task": said.task, "id": said.id},
        )
        kept = self._meta(said, task, State.REVOKED, Revoked("expired"))
        self.settler.put(
            Settlement(delivery.token, Acknowledge(_done(delivery, said)), kept)
        )

    # Running

    def _fit_pool(self) -> None:
        """Make the pool as large as the load wants it, if that is asked for."""
        if self.autoscale is None or self._stop:
            return
        before = self.pool.size
        load = len(self._waiting) + len(self._running)
        size = self.autoscale.size(self.clock.elapsed(), load)
        if size != before:
            self.resize(size)
        if self.pool.size != before:
            event = {"event": "pool.resized", "size": size}
            logger.info("runs %d at a time, no longer %d", size, before, extra=event)

    def _feed(self) -> None:
        """Give the pool what it has room for."""
        jobs = []
        now = self.clock.now()
        while self._waiting and len(self._running) < self.pool.size:
            held = self._waiting.popleft()
            if _has_expired(held.said, now):
                self._expire(held.delivery, held.said, held.task)
                continue
            self._running[held.token] = held
            if held.early:
                self.settler.put(Settlement(held.token, Begin(held.delivery)))
            else:
                jobs.append(self._job(held))
        if jobs:
            self.pool.submit(jobs)

    def _job(self, held: Held) -> Job:
        said, task = held.said, held.task
        soft = option(task, "soft_time_limit", self.settings)
        return Job(
            held.token,
            held.delivery.message,
            held.delivery.deliveries + len(held.losses),
            said.time_limit or option(task, "time_limit", self.settings),
            said.soft_time_limit or soft,
        )

    def _started(self, held: Held, pid: int) -> None:
        if option(held.task, "track_started", self.settings):
            told = {"pid": pid, "hostname": self.name}
            kept = self._meta(held.said, held.task, State.STARTED, told)
            self.settler.put(Settlement(held.token, Continue(), kept))

    # Ends of runs

    def _finished(self, held: Held, report: Report) -> None:
        _say_finished(held, report)
        if report.fate is Fate.REQUEUED:
            self._finish(held, report.stored, sends=[_same_again(held)], over=False)
        elif report.fate is Fate.BURIED or self._is_refused(held, report):
            self._set_aside(held, report.reason, report.stored)
        else:
            self._finish(held, report.stored, report.sends, report.ends_run)

    def _is_refused(self, held: Held, report: Report) -> bool:
        """Say whether a failed run's message is not to be acknowledged."""
        failed = report.state == State.FAILURE
        return failed and not self._acknowledges(held, "task_acks_on_failure")

    def _acknowledges(self, held: Held, setting: str) -> bool:
        own = getattr(self.settings, setting)
        both = option(held.task, "acks_on_failure_or_timeout", self.settings)
        return bool(both if own is None else own)

    def _timed_out(self, held: Held, limit: float) -> None:
        _say(held, logging.ERROR, "timed_out", f"ended by force after {limit:g} s")
        error = TimeLimitExceeded(limit)
        kept = self._meta(held.said, held.task, State.FAILURE, error)
        if self._acknowledges(held, "task_acks_on_timeout"):
            self._finish(held, kept)
        else:
            self._set_aside(held, f"time limit of {limit:g} s", kept)

    def _lost(self, held: Held, reason: str) -> None:
        """Have it run once more, unless it was to run at most once or killed enough."""
        held.losses.append(reason)
        _say(held, logging.ERROR, "lost", f"its process is gone: {reason}")
        if self._stop and not held.early:
            self.settler.put(Settlement(held.token, GiveBack(held.delivery)))
            return
        again = option(held.task, "reject_on_worker_lost", self.settings)
        deliveries = held.delivery.deliveries + len(held.losses)
        if held.early or again is False:
            error = WorkerLost(f"Worker exited prematurely: {reason}")
            kept = self._meta(held.said, held.task, State.FAILURE, error)
            self._finish(held, kept)
        elif deliveries > self.settings.task_max_deliveries:
            error = WorkerLost(f"delivered {deliveries - 1} times, each time fatal")
            self._bury_failed(held.delivery, held.said, held.task, error, held.losses)
        else:
            self._waiting.append(held)

    def _finish(
        self,
        held: Held,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        over: bool = True,
    ) -> None:
        """Acknowledge the delivery, once its result is kept."""
        done = _done(held.delivery, held.said) if over else Done(held.delivery)
        # One that was acknowledged before its run is out of flight: nothing but this
        # tells that its run has ended.
        ended = _run_of(held.said) if over and held.early else None
        self.settler.put(Settlement(held.token, Acknowledge(done, sends), kept, ended))

    def _set_aside(self, held: Held, reason: str, kept: Meta | Stored | None) -> None:
        said = held.said
        act = Bury(held.delivery, one_line(reason), said.task, said.id)
        self.settler.put(Settlement(held.token, act, kept, _run_of(said)))

    def _meta(
        self,
        said: Envelope,
        task: Task[..., Any] | None,
        state: State,
        result: object,
    ) -> Meta | None:
        """Give what is to be kept of a state that the loop itself finds, if it is."""
        ignored = ignores_result(said, task, self.settings)
        if not keeps(state, ignored, task, self.settings):
            return None
        now = self.clock.now()
        return meta_of(said, state, result, self.settings, now=now, hostname=self.name)

    def _settled(self, settlements: Sequence[Settlement]) -> None:
        places = 0
        for settlement in settlements:
            if isinstance(settlement.act, Begin):
                self.pool.submit([self._job(self._running[settlement.token])])
            elif not isinstance(settlement.act, Continue):
                places += 1
        self.room.clear(places)

    # Beginning and end

    def _start(self) -> None:
        def crashed(error: BaseException) -> None:
            self.inbox.put(Crashed(error))

        self.settler.start(crashed)
        self.lease.start(crashed)
        self.fetcher.start(crashed)

    def _begin_to_stop(self, stop: Stop) -> None:
        """Take no more, give back what has not begun; COLD: have the pool end."""
        if self._stop is stop or self._stop is Stop.COLD:
            return
        self._stop = stop
        logger.info(
            "stopping, %s, with %d tasks running",
            stop.value,
            len(self._running),
            extra={"event": f"stop.{stop.value}"},
        )
        self.fetcher.stop()
        while self._waiting:
            held = self._waiting.popleft()
            self.settler.put(Settlement(held.token, GiveBack(held.delivery)))
        if stop is Stop.COLD:
            self.pool.kill()

    def _is_over(self) -> bool:
        if self._stop is Stop.COLD:
            return self.inbox.empty()
        return self._stop is Stop.WARM and not self._running and self.inbox.empty()

    def _end(self) -> None:
        """Settle what ended, give the rest back, and end the lease."""
        self.fetcher.stop()
        settled = self.settler.stop(PATIENCE)
        self.lease.stop()
        if self._stop is not Stop.COLD:
            self.pool.stop()
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

    def _say_recovered(self, number: int) -> None:
        logger.warning(
            "gave back %d deliveries of workers that died",
            number,
            extra={"event": "worker.recovered"},
        )


def _run_of(said: Envelope) -> tuple[str, str] | None:
    """Give entry and task id, if this is the run of an entry."""
    return (said.beatd_entry, said.id) if said.beatd_entry else None


def _has_expired(said: Envelope, now: Instant) -> bool:
    return said.expires is not None and said.expires <= now


def _done(delivery: Delivery, said: Envelope) -> Done:
    return Done(delivery, *(_run_of(said) or ("", "")))


def _same_again(held: Held) -> Outgoing:
    queue = held.delivery.queue
    route = Route(queue, routing_key=queue, priority=held.said.priority)
    return Outgoing(route, held.delivery.message)


def _event(name: str, held: Held) -> dict[str, object]:
    return {"event": f"task.{name}", "task": held.said.task, "id": held.said.id}


def _say(held: Held, level: int, event: str, words: str) -> None:
    logger.log(level, "%s %s", held.label, words, extra=_event(event, held))


def _say_finished(held: Held, report: Report) -> None:
    after = f"after {report.seconds:.3f} s"
    if report.fate is Fate.REQUEUED:
        _say(held, logging.INFO, "requeued", f"goes back to its queue: {report.reason}")
    elif report.fate is Fate.BURIED:
        _say(held, logging.ERROR, "buried", f"set aside: {report.reason}")
    elif report.state == State.SUCCESS:
        _say(held, logging.INFO, "succeeded", f"succeeded {after}")
    elif report.state == State.RETRY:
        _say(held, logging.INFO, "retried", f"is tried again: {report.reason}")
    elif report.state == State.FAILURE:
        level = logging.ERROR if report.traceback else logging.INFO
        text = f"failed {after}: {report.reason}\n{report.traceback}"
        _say(held, level, "failed", text.rstrip())
    else:
        _say(held, logging.INFO, "ignored", f"ended {after}: {report.reason}")
