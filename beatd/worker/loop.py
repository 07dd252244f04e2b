"""The worker's loop: takes deliveries, has them run, and settles them.

    broker -> Fetcher -> inbox -> Worker -> pool -> inbox -> Worker -> keep -> settle

Four threads beside the loop: the lease, the fetcher, and two stages, so that neither a
result backend nor a broker that is away keeps the loop from the pool. A delivery stays
in flight, under the worker's lease, until its result is kept and it is settled: a
worker that dies at any moment before that has it delivered again.
"""

import logging
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from beatd import signals
from beatd.brokers.base import Delivery, Done, Outgoing
from beatd.clock import Clock, SystemClock
from beatd.errors import (
    BrokerUnavailable,
    MessageError,
    NotRegistered,
    ResultUnavailable,
    TimeLimitExceeded,
    WorkerLost,
)
from beatd.errors import Revoked as RevokedError
from beatd.instant import SECOND, Instant, Span, datetime_of, span_of
from beatd.message import Envelope, read_envelope
from beatd.pools.base import Finished, Job, Lost, Pool, PoolEvent, Started, TimedOut
from beatd.results.base import Keeper, Meta, State, Stored
from beatd.routing import Queue, Route, Router
from beatd.settings import Settings
from beatd.tasks import Registry, Task
from beatd.worker.autoscale import LOOK, Autoscale
from beatd.worker.commands import obey
from beatd.worker.conductor import Failed
from beatd.worker.control import Command, Pidbox
from beatd.worker.events import Events, Load
from beatd.worker.held import Held, stamps_of
from beatd.worker.intake import Fetcher, Lease, Room
from beatd.worker.lamport import LamportClock
from beatd.worker.rate import Turns, rate_of
from beatd.worker.report import (
    Aftermath,
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
from beatd.worker.revoked import Revoked, StateFile
from beatd.worker.settle import (
    Acknowledge,
    Begin,
    Bury,
    Continue,
    Delay,
    Follower,
    GiveBack,
    Settlement,
    Settler,
    Source,
)
from beatd.worker.stage import Trouble
from beatd.worker.telling import Telling

logger = logging.getLogger(__name__)

PATIENCE: Span = 5 * SECOND
"""How long a worker that stops waits for a broker or a result backend that is away."""

UNLIMITED = 10_000
"""Deliveries that a worker holds at most when the settings set no limit."""

MOST_ASIDE = 1_000
"""Deliveries that a rate limit may have wait beside those that the worker may hold."""

MOST_DELAYED = 1_000
"""Messages for later that are looked at."""

UNBEGUN = ("PENDING", "RECEIVED", "RETRY", "REJECTED")
"""States of runs that can be revoked: no worker has them."""


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


@dataclass(frozen=True, slots=True)
class KnownAsRevoked:
    """What other workers say must not run."""

    task_ids: Sequence[str]


WorkerEvent: TypeAlias = (
    PoolEvent
    | Fetched
    | Settled
    | Command
    | KnownAsRevoked
    | Crashed
    | Stop
    | TimePassed
)


# The worker -------------------------------------------------------------------------


@dataclass
class Worker:
    """Takes deliveries, has the pool run them, and settles them.

    Each delivery that was taken is in `_waiting`, is in `_turns` (as its task's rate
    limit has it wait), is in `_running` (in the pool, or about to be), or has a
    settlement on its way; its place in the room is cleared when it is settled for good,
    and meanwhile while a rate limit has it wait.
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
    events: Events | None = None
    pidbox: Pidbox | None = None
    """Events for monitors and remote control; None where the broker carries none."""
    state_file: StateFile | None = None
    """Keeps the revoked ids over restarts."""
    lamport: LamportClock = field(default_factory=LamportClock)
    conductor: Follower | None = None
    """Knows what follows from ends of runs that their own processes cannot tell."""
    on_ready: Callable[[], object] = lambda: None
    on_turn: Callable[[], object] = lambda: None
    """Called each time the loop has turned, once a second at least: the watchdog."""
    clock: Clock = field(default_factory=SystemClock)

    _waiting: deque[Held] = field(default_factory=deque, init=False)
    _turns: Turns[Held] = field(default_factory=Turns, init=False)
    _running: dict[str, Held] = field(default_factory=dict, init=False)
    _stop: Stop | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._limits = limits_of(self.settings)
        self._began = self.clock.elapsed()
        self.tell = Telling(self.events)
        self.total: Counter[str] = Counter()
        self.revoked: Revoked[str] = Revoked()
        self.revoked_stamps: Revoked[tuple[str, str]] = Revoked()
        if self.state_file:
            for task_id, at in self.state_file.load(self.now()):
                self.revoked.add([task_id], at)
        self._consumed = {name: self._queue(name) for name in self.queues}
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
            partial(self._prepare, self.revoked.keys(self.now())),
        )
        self.settler = Settler(
            self.broker,
            self.identity,
            self.results,
            lambda settlements: self.inbox.put(Settled(settlements)),
            away,
            self.conductor,
        )

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
        return len(self._running) + len(self._waiting) + len(self._turns)

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
        due = self._turns.due()
        if due is None or len(self._running) >= self.pool.size:
            return LOOK
        return min(max(due - self.clock.elapsed(), 0), LOOK)

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
            case Command():
                obey(self, event)
            case KnownAsRevoked(task_ids):
                self.revoked.add(task_ids, self.now())
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
        elif self._is_revoked(said):
            self._revoke(delivery, said, task)
        elif said.eta is not None and said.eta > now:
            self.tell.delayed(said)
            self.settler.put(Settlement(delivery.token, Delay(delivery, said.eta)))
        else:
            early = not option(task, "acks_late", self.settings)
            self.tell.received(said)
            self._waiting.append(Held(delivery, said, task, early))

    def _bury(self, delivery: Delivery, reason: str) -> None:
        self.tell.buried(delivery.queue, reason)
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
        self.tell.buried_failed(said, reason, error)
        act = Bury(delivery, reason, said.task, said.id)
        kept = self._meta(said, task, State.FAILURE, error)
        end = Failed(State.FAILURE, error, kept is not None)
        self.settler.put(Settlement(delivery.token, act, kept, _run_of(said), end=end))

    def _expire(self, delivery: Delivery, said: Envelope, task: Task[..., Any]) -> None:
        self.tell.expired(said)
        self._never_run(delivery, said, task, "expired")

    def _revoke(self, delivery: Delivery, said: Envelope, task: Task[..., Any]) -> None:
        self.tell.revoked(said)
        self._never_run(delivery, said, task, "revoked")

    def _never_run(
        self, delivery: Delivery, said: Envelope, task: Task[..., Any], why: str
    ) -> None:
        signals.task_revoked.send(
            task, request=said, terminated=False, signum=None, expired=why == "expired"
        )
        error = RevokedError(why)
        kept = self._meta(said, task, State.REVOKED, error)
        act = Acknowledge(_done(delivery, said))
        end = Failed(State.REVOKED, error, kept is not None)
        self.settler.put(Settlement(delivery.token, act, kept, end=end))

    def _is_revoked(self, said: Envelope) -> bool:
        return said.id in self.revoked or any(
            stamp in self.revoked_stamps for stamp in stamps_of(said)
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
        while len(self._running) < self.pool.size and (held := self._next_held()):
            self._running[held.token] = held
            if held.early:
                self.settler.put(Settlement(held.token, Begin(held.delivery)))
            else:
                jobs.append(self._job(held))
        if jobs:
            self.pool.submit(jobs)

    def _next_held(self) -> Held | None:
        """Give what is to run next; what a rate limit has wait holds up no other."""
        now = self.clock.elapsed()
        while held := self._turns.next(now):
            self._come_back(held)
            if not self._is_dropped(held):
                self._turns.begin(held.task.name, now)
                return held
        while self._waiting:
            held = self._waiting.popleft()
            name = held.task.name
            if name not in self._turns:
                self.limit_rate(name)
            if self._is_dropped(held):
                continue
            if not self._turns.must_wait(name, now):
                self._turns.begin(name, now)
                return held
            self._step_aside(held)
        return None

    def _is_dropped(self, held: Held) -> bool:
        """Say whether it must not run any more; it is settled if so."""
        if _has_expired(held.said, self.now()):
            self._expire(held.delivery, held.said, held.task)
        elif self._is_revoked(held.said):
            self._revoke(held.delivery, held.said, held.task)
        else:
            return False
        return True

    def _step_aside(self, held: Held) -> None:
        held.aside = len(self._turns) < MOST_ASIDE
        self._turns.wait(held.task.name, held)
        self.room.clear(int(held.aside))

    def _come_back(self, held: Held) -> None:
        self.room.fill(int(held.aside))

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
        held.began, held.pid = self.now(), pid
        self.total[held.said.task] += 1
        self.tell.started(held)
        if option(held.task, "track_started", self.settings):
            told = {"pid": pid, "hostname": self.name}
            kept = self._meta(held.said, held.task, State.STARTED, told)
            self.settler.put(Settlement(held.token, Continue(), kept))

    # Ends of runs

    def _finished(self, held: Held, report: Report) -> None:
        self.tell.finished(held, report)
        if report.fate is Fate.REQUEUED:
            self._finish(held, report.stored, sends=[_same_again(held)], over=False)
        elif report.fate is Fate.BURIED or self._is_refused(held, report):
            self._set_aside(
                held, report.reason, report.stored, report.sends, report.aftermath
            )
        else:
            over, end = report.ends_run, report.aftermath
            self._finish(held, report.stored, report.sends, over=over, end=end)

    def _is_refused(self, held: Held, report: Report) -> bool:
        """Say whether a failed run's message is not to be acknowledged."""
        failed = report.state == State.FAILURE
        return failed and not self._acknowledges(held, "task_acks_on_failure")

    def _acknowledges(self, held: Held, setting: str) -> bool:
        own = getattr(self.settings, setting)
        both = option(held.task, "acks_on_failure_or_timeout", self.settings)
        return bool(both if own is None else own)

    def _timed_out(self, held: Held, limit: float) -> None:
        error = TimeLimitExceeded(limit)
        self.tell.timed_out(held, limit, error)
        kept = self._meta(held.said, held.task, State.FAILURE, error)
        end = Failed(State.FAILURE, error, kept is not None)
        if self._acknowledges(held, "task_acks_on_timeout"):
            self._finish(held, kept, end=end)
        else:
            self._set_aside(held, f"time limit of {limit:g} s", kept, end=end)

    def _lost(self, held: Held, reason: str) -> None:
        """Have it run once more, unless it was to run at most once or killed enough."""
        if held.terminated is not None:
            number = held.terminated
            self.tell.terminated(held, number)
            said = {"terminated": True, "signum": number, "expired": False}
            signals.task_revoked.send(held.task, request=held.said, **said)
            error: Exception = RevokedError("terminated")
            kept = self._meta(held.said, held.task, State.REVOKED, error)
            end = Failed(State.REVOKED, error, kept is not None)
            self._finish(held, kept, end=end)
            return
        held.losses.append(reason)
        self.tell.lost(held, reason)
        if self._stop and not held.early:
            self.settler.put(Settlement(held.token, GiveBack(held.delivery)))
            return
        again = option(held.task, "reject_on_worker_lost", self.settings)
        deliveries = held.delivery.deliveries + len(held.losses)
        if held.early or again is False:
            error = WorkerLost(f"Worker exited prematurely: {reason}")
            self.tell.given_up(held, error)
            kept = self._meta(held.said, held.task, State.FAILURE, error)
            end = Failed(State.FAILURE, error, kept is not None)
            self._finish(held, kept, end=end)
        elif deliveries > self.settings.task_max_deliveries:
            error = WorkerLost(f"delivered {deliveries - 1} times, each time fatal")
            self._bury_failed(held.delivery, held.said, held.task, error, held.losses)
        else:
            held.began = held.pid = None
            self._waiting.append(held)

    def _finish(
        self,
        held: Held,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        *,
        over: bool = True,
        end: Aftermath | Failed | None = None,
    ) -> None:
        """Acknowledge the delivery, once its result is kept."""
        done = _done(held.delivery, held.said) if over else Done(held.delivery)
        # One that was acknowledged before its run is out of flight: nothing but this
        # tells that its run has ended.
        ended = _run_of(held.said) if over and held.early else None
        act = Acknowledge(done)
        self.settler.put(Settlement(held.token, act, kept, ended, sends, end))

    def _set_aside(
        self,
        held: Held,
        reason: str,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        end: Aftermath | Failed | None = None,
    ) -> None:
        said = held.said
        act = Bury(held.delivery, one_line(reason), said.task, said.id)
        run = _run_of(said)
        self.settler.put(Settlement(held.token, act, kept, run, sends, end))

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
                self._begin(self._running[settlement.token])
            elif not isinstance(settlement.act, Continue):
                places += 1
        self.room.clear(places)

    def _begin(self, held: Held) -> None:
        """Have it run, now that it is acknowledged."""
        if self._is_revoked(held.said):
            del self._running[held.token]
            self._revoke(held.delivery, held.said, held.task)
        else:
            self.pool.submit([self._job(held)])

    # For remote control: commands.py

    @property
    def consumed(self) -> Sequence[Queue]:
        """Give the queues that it takes from."""
        return list(self._consumed.values())

    @property
    def uptime(self) -> int:
        """Give the seconds since its start."""
        return (self.clock.elapsed() - self._began) // SECOND

    def now(self) -> Instant:
        return self.clock.now()

    def running(self) -> list[Held]:
        """Give what the pool has, or is about to have."""
        return list(self._running.values())

    def reserved(self) -> list[Held]:
        """Give what waits here to be run."""
        return [*self._waiting, *self._turns]

    def delayed(self) -> list[Envelope]:
        """Ask the broker what waits there for its time."""
        found = []
        for late in self.broker.delayed(list(self._consumed), MOST_DELAYED):
            with suppress(MessageError):
                found.append(read_envelope(late.message, self._limits))
        return found

    def revoke(self, task_ids: Collection[str]) -> Callable[[], object]:
        """Let these not begin any more; give what is left to do, which takes time."""
        self.revoked.add(task_ids, self.now())
        running = {held.said.id for held in self._running.values()}
        return partial(self._keep_revoked, task_ids, running)

    def _keep_revoked(
        self, task_ids: Collection[str], running: Collection[str]
    ) -> None:
        """Remember these, and let those who wait for them know at once."""
        try:
            if self.state_file:
                self.state_file.add(task_ids, self.now())
            waiting = [task_id for task_id in task_ids if task_id not in running]
            if self.results and waiting:
                known = self.results.load(waiting)
                self.results.store(
                    [
                        self._revoked_meta(task_id)
                        for task_id in waiting
                        if task_id not in known or known[task_id].status in UNBEGUN
                    ]
                )
        except (ResultUnavailable, MessageError, sqlite3.Error) as error:
            words = "revoked, but not all of it could be kept: %s"
            logger.warning(words, error, extra={"event": "control.unkept"})

    def _revoked_meta(self, task_id: str) -> Meta:
        done = datetime_of(self.now(), self.settings.zone)
        error = RevokedError("revoked")
        return Meta(task_id, State.REVOKED, error, date_done=done)

    def terminate(self, held: Held, number: int) -> None:
        """End a run by a signal. Raises NotImplementedError if the pool cannot."""
        if not self.pool.terminate(held.token, number):
            raise NotImplementedError("this pool cannot end a run that has begun")
        held.terminated = number

    def limit_rate(self, task: str) -> None:
        """Go by the task's present rate limit."""
        own = self.tasks[task].rate_limit
        limit = self.settings.task_default_rate_limit if own is None else own
        rate = 0.0
        try:
            if not self.settings.worker_disable_rate_limits:
                rate = rate_of(limit)
        except ValueError as error:
            words = "the runs of %s are not limited: %s"
            logger.error(words, task, error, extra={"event": "rate.bad"})
        self._turns.limit(task, rate)

    def consume(self, queue: Queue) -> Callable[[], object]:
        """Take from this queue, too; give what is left to do, which takes time."""
        self._consumed[queue.name] = queue
        self.fetcher.take_from(list(self._consumed))
        return partial(self.broker.declare, [queue])

    def cease(self, queue: str) -> None:
        """Take from this queue no more."""
        self._consumed.pop(queue, None)
        self.fetcher.take_from(list(self._consumed))

    def scale_between(self, most: int, least: int) -> None:
        """Let the pool's size follow the load between these bounds."""
        assert self.autoscale
        before = self.capacity
        self.autoscale.most, self.autoscale.least = most, least
        self.room.clear(self.capacity - before)

    def shut_down(self) -> None:
        """Let what runs end, and end."""
        self.inbox.put(Stop.WARM)

    def _load(self) -> Load:
        active = sum(held.began is not None for held in self.running())
        return Load(active, self.total.total())

    # Beginning and end

    def _queue(self, name: str) -> Queue:
        return self.router.queues.get(name) or Queue(name, name, routing_key=name)

    def _prepare(self, revoked: Sequence[str]) -> None:
        """Make ready to take, in the thread that takes."""
        self.broker.declare(self.consumed)
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
        for held in self._turns.clear():
            self._come_back(held)
            self._waiting.append(held)
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
        if self.pidbox:
            self.pidbox.stop()
        settled = self.settler.stop(PATIENCE)
        self.lease.stop()
        if self._stop is not Stop.COLD:
            self.pool.stop()
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
