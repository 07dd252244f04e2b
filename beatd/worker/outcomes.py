"""What becomes of deliveries: how a run's end, or that it never begins, is settled."""

from collections.abc import Callable, Sequence
from typing import Any

from beatd import signals
from beatd.brokers.base import Delivery, Done, Outgoing
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import Revoked, TimeLimitExceeded, WorkerLost
from beatd.instant import Instant, span_of
from beatd.message import Envelope, retried
from beatd.results.base import Meta, State, Stored
from beatd.routing import Route
from beatd.runs.chords import Failed
from beatd.runs.report import (
    Bookkeeping,
    Fate,
    Report,
    ignores_result,
    keeps,
    meta_of,
    one_line,
    option,
)
from beatd.tasks import Task
from beatd.worker.in_flight import InFlight
from beatd.worker.reporting import TaskReporter
from beatd.worker.settle import (
    Acknowledge,
    Bury,
    Continue,
    Delay,
    GiveBack,
    Settlement,
)


class Outcomes:
    """Tells how deliveries end, and hands `settle` what is to be done about each."""

    def __init__(
        self,
        hostname: str,
        settings: Settings,
        tell: TaskReporter,
        settle: Callable[[Settlement], object],
        clock: Clock,
    ) -> None:
        self._hostname = hostname
        self._settings = settings
        self._tell = tell
        self._settle = settle
        self._clock = clock

    # Without a run

    def given_back(self, delivery: Delivery) -> None:
        """Let others have it."""
        self._settle(Settlement(delivery.token, GiveBack(delivery)))

    def delayed(self, delivery: Delivery, said: Envelope, until: Instant) -> None:
        """Let it wait in the broker for its time."""
        self._tell.delayed(said)
        self._settle(Settlement(delivery.token, Delay(delivery, until)))

    def unread(self, delivery: Delivery, reason: str) -> None:
        """Set aside a message of which nothing can be read."""
        self._tell.buried(delivery, reason)
        self._settle(Settlement(delivery.token, Bury(delivery, one_line(reason))))

    def buried(
        self,
        delivery: Delivery,
        said: Envelope,
        task: Task[..., Any] | None,
        error: Exception,
        history: Sequence[str] = (),
    ) -> None:
        """Keep a FAILURE, and set the message aside."""
        reason = one_line("; ".join([str(error), *history]))
        self._tell.buried_failed(said, reason, error)
        act = Bury(delivery, reason, said.task, said.id)
        kept = self._meta(said, task, State.FAILURE, error)
        end = Failed(State.FAILURE, error, kept is not None)
        self._settle(Settlement(delivery.token, act, kept, _run_of(said), end=end))

    def expired(self, held: InFlight) -> None:
        """It is too late for its run."""
        self._tell.expired(held.said)
        self._never_run(held, "expired")

    def revoked(self, held: InFlight) -> None:
        """Somebody wanted it not to run."""
        self._tell.revoked(held.said)
        self._never_run(held, "revoked")

    def _never_run(self, held: InFlight, why: str) -> None:
        said = {"terminated": False, "signum": None, "expired": why == "expired"}
        signals.task_revoked.send(held.task, request=held.said, **said)
        error = Revoked(why)
        kept = self._meta(held.said, held.task, State.REVOKED, error)
        self._finish(held, kept, end=Failed(State.REVOKED, error, kept is not None))

    # Of runs

    def started(self, held: InFlight) -> None:
        """Its run goes on; that it has begun may be kept."""
        self._tell.started(held)
        if option(held.task, "track_started", self._settings):
            told = {"pid": held.pid, "hostname": self._hostname}
            kept = self._meta(held.said, held.task, State.STARTED, told)
            self._settle(Settlement(held.token, Continue(), kept))

    def finished(self, held: InFlight, report: Report) -> None:
        """Its run ended as the report says."""
        self._tell.finished(held, report)
        if report.fate is Fate.REQUEUED:
            same = Outgoing(_way_back(held), held.delivery.message)
            self._finish(held, report.stored, [same], over=False)
        elif report.fate is Fate.BURIED or self._is_refused(held, report):
            self._set_aside(
                held, report.reason, report.stored, report.sends, report.bookkeeping
            )
        else:
            over, end = report.ends_run, report.bookkeeping
            self._finish(held, report.stored, report.sends, over=over, end=end)

    def timed_out(self, held: InFlight, limit: float) -> None:
        """Its run was ended by force."""
        error = TimeLimitExceeded(limit)
        self._tell.timed_out(held, limit, error)
        kept = self._meta(held.said, held.task, State.FAILURE, error)
        end = Failed(State.FAILURE, error, kept is not None)
        if self._acknowledges(held, "task_acks_on_timeout"):
            self._finish(held, kept, end=end)
        else:
            self._set_aside(held, f"time limit of {limit:g} s", kept, end=end)

    def terminated(self, held: InFlight, number: int) -> None:
        """Its run was ended by a signal, as somebody wanted."""
        self._tell.terminated(held, number)
        said = {"terminated": True, "signum": number, "expired": False}
        signals.task_revoked.send(held.task, request=held.said, **said)
        self._fail(held, State.REVOKED, Revoked("terminated"))

    def lost(self, held: InFlight, reason: str) -> bool:
        """Its process died. Say whether it is to run once more, as the same delivery.

        It is, unless it was to run at most once, or killed enough, or is retried.
        """
        held.losses.append(reason)
        self._tell.lost(held, reason)
        error = WorkerLost(f"Worker exited prematurely: {reason}")
        retries = option(held.task, "retry_on_worker_lost", self._settings)
        again = option(held.task, "reject_on_worker_lost", self._settings)
        deliveries = held.delivery.deliveries + len(held.losses)
        if retries and _may_be_retried(held):
            self._retry(held, error)
        elif retries or held.early or again is False:
            self._tell.given_up(held, error)
            self._fail(held, State.FAILURE, error)
        elif deliveries > self._settings.task_max_deliveries:
            error = WorkerLost(f"delivered {deliveries - 1} times, each time fatal")
            self.buried(held.delivery, held.said, held.task, error, held.losses)
        else:
            return True
        return False

    def _is_refused(self, held: InFlight, report: Report) -> bool:
        """Say whether a failed run's message is not to be acknowledged."""
        failed = report.state == State.FAILURE
        return failed and not self._acknowledges(held, "task_acks_on_failure")

    def _acknowledges(self, held: InFlight, setting: str) -> bool:
        own = getattr(self._settings, setting)
        both = option(held.task, "acks_on_failure_or_timeout", self._settings)
        return bool(both if own is None else own)

    def _retry(self, held: InFlight, error: Exception) -> None:
        """Have it tried again when its task says, as a run does that asks for that."""
        pause = span_of(held.task.default_retry_delay)
        due = self._clock.now() + pause if pause else None
        self._tell.retried(held, error)
        kept = self._meta(held.said, held.task, State.RETRY, error)
        again = Outgoing(_way_back(held), retried(held.said, due), due)
        self._finish(held, kept, [again], over=False)

    def _fail(self, held: InFlight, state: State, error: Exception) -> None:
        """Acknowledge a run that came to no end of its own."""
        kept = self._meta(held.said, held.task, state, error)
        self._finish(held, kept, end=Failed(state, error, kept is not None))

    def _finish(
        self,
        held: InFlight,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        *,
        over: bool = True,
        end: Bookkeeping | Failed | None = None,
    ) -> None:
        """Acknowledge the delivery, once its result is kept."""
        done = _done(held) if over else Done(held.delivery)
        # One that was acknowledged before its run is out of flight: nothing but this
        # tells that its run has ended.
        ended = _run_of(held.said) if over and held.acknowledged else None
        act = Acknowledge(done)
        self._settle(Settlement(held.token, act, kept, ended, sends, end))

    def _set_aside(
        self,
        held: InFlight,
        reason: str,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        end: Bookkeeping | Failed | None = None,
    ) -> None:
        said = held.said
        act = Bury(held.delivery, one_line(reason), said.task, said.id)
        run = _run_of(said)
        self._settle(Settlement(held.token, act, kept, run, sends, end))

    def _meta(
        self,
        said: Envelope,
        task: Task[..., Any] | None,
        state: State,
        result: object,
    ) -> Meta | None:
        """Give what is to be kept of a state that no run has reported, if it is."""
        settings, now = self._settings, self._clock.now()
        if not keeps(state, ignores_result(said, task, settings), task, settings):
            return None
        return meta_of(said, state, result, settings, now=now, hostname=self._hostname)


def _run_of(said: Envelope) -> tuple[str, str] | None:
    """Give entry and task id, if this is the run of an entry."""
    return (said.beatd_entry, said.id) if said.beatd_entry else None


def _done(held: InFlight) -> Done:
    return Done(held.delivery, *(_run_of(held.said) or ("", "")))


def _may_be_retried(held: InFlight) -> bool:
    most = held.task.max_retries
    return most is None or held.said.retries < most


def _way_back(held: InFlight) -> Route:
    queue = held.delivery.queue
    return Route(queue, routing_key=queue, priority=held.said.priority)
