"""What becomes of deliveries, when their runs end or never begin."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from beatd import signals
from beatd.brokers.items import (
    Acknowledge,
    Begin,
    Delay,
    Delivery,
    GiveBack,
    Outgoing,
    SetAside,
)
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import (
    BeatdError,
    Revoked,
    TimeLimitExceeded,
    WorkerLost,
)
from beatd.instant import Instant, datetime_of, span_of
from beatd.message import Envelope, named_in, requeued, retried
from beatd.results.base import READY_STATES, Meta, State, Stored
from beatd.routing import Route
from beatd.runs.chords import Failed, call_of
from beatd.runs.report import (
    Bookkeeping,
    Fate,
    Report,
    ignores_result,
    keeps,
    limits_of,
    meta_of,
    option,
)
from beatd.tasks import Task
from beatd.text import counted, one_line
from beatd.worker.in_flight import InFlight
from beatd.worker.reporting import TaskReporter
from beatd.worker.settlement import Continue, Settlement


class Outcomes:
    """Decides how deliveries end; reports that, and hands `settle` a settlement."""

    def __init__(
        self,
        *,
        hostname: str,
        settings: Settings,
        reporter: TaskReporter,
        settle: Callable[..., object],
        delaying: Callable[[str, Envelope], object],
        clock: Clock,
    ) -> None:
        """`settle` is called with settlements, one after the other, by `hand_over`."""
        self._hostname = hostname
        self._settings = settings
        self._reporter = reporter
        self._hand_over = settle
        self._settlements: list[Settlement] = []
        self._settle = self._settlements.append
        self._delaying = delaying
        self._clock = clock

    def hand_over(self) -> None:
        """Have all settled that was decided since the last call."""
        if self._settlements:
            self._hand_over(*self._settlements)
            self._settlements.clear()

    # Without a run

    def given_back(self, delivery: Delivery) -> None:
        """Let other workers have this delivery."""
        self._settle(Settlement(delivery.token, GiveBack(delivery)))

    def delayed(self, delivery: Delivery, envelope: Envelope, until: Instant) -> None:
        """Let this delivery wait in the broker for its time."""
        self._reporter.delayed(envelope)
        self._delaying(delivery.token, envelope)
        self._settle(Settlement(delivery.token, Delay(delivery, until)))

    def unread(self, delivery: Delivery, error: BeatdError) -> None:
        """Set aside a message that is not read; store a FAILURE if it names its run.

        What was to follow from the run is not known.
        """
        task, task_id = named_in(delivery.message)
        reason = one_line(str(error))
        self._reporter.unread(delivery, reason)
        act = SetAside(delivery, reason, task, task_id)
        done = datetime_of(self._clock.now(), self._settings.zone)
        kept = Meta(task_id, State.FAILURE, error, date_done=done) if task_id else None
        self._settle(Settlement(delivery.token, act, kept))

    def set_aside(
        self,
        delivery: Delivery,
        envelope: Envelope,
        task: Task[..., Any] | None,
        error: Exception,
    ) -> None:
        """Store a FAILURE, and set aside the message of a run that does not begin."""
        act = SetAside(delivery, one_line(str(error)), envelope.task, envelope.id)
        self._settle(self._failed_aside(act, envelope, task, error))

    def expired(self, run: InFlight) -> None:
        """Settle a run that has expired before it began."""
        self._reporter.expired(run.envelope)
        self._never_run(run, "expired")

    def revoked(self, run: InFlight) -> None:
        """Settle a run that was revoked before it began."""
        self._reporter.revoked(run.envelope)
        self._never_run(run, "revoked")

    def _never_run(self, run: InFlight, why: str) -> None:
        how = {"terminated": False, "signum": None, "expired": why == "expired"}
        signals.task_revoked.send(run.task, request=run.envelope, **how)
        error = Revoked(why)
        kept = self._meta(run.envelope, run.task, State.REVOKED, error)
        self._finish(run, kept, end=Failed(State.REVOKED, error, kept is not None))

    # Of runs

    def acknowledged(self, run: InFlight) -> None:
        """Acknowledge a delivery that runs at most once; it begins after that."""
        begin = Begin(run.delivery, *_run_of(run.envelope))
        self._settle(Settlement(run.token, begin))

    def repeated(self, run: InFlight) -> None:
        """Settle the delivery of a run that has begun here before."""
        self._reporter.repeated(run)
        act = Acknowledge(run.delivery, *_run_of(run.envelope))
        self._settle(Settlement(run.token, act))

    def started(self, run: InFlight) -> None:
        """Report that a run has begun; store STARTED if the task is tracked."""
        self._reporter.started(run)
        if option(run.task, "track_started", self._settings):
            told = {"pid": run.pid, "hostname": self._hostname}
            kept = self._meta(run.envelope, run.task, State.STARTED, told)
            self._settle(Settlement(run.token, Continue(), kept))

    def finished(self, run: InFlight, report: Report) -> None:
        """Settle a run that ended as the report says."""
        if report.is_unsaid:
            self._set_aside(run, BeatdError(report.reason))
            return
        is_requeued = report.fate is Fate.REQUEUED
        if is_requeued and run.deliveries >= self._settings.task_max_deliveries:
            words = f"requeued after each of {run.deliveries} deliveries"
            error = BeatdError(f"{words}: {report.reason}" if report.reason else words)
            self._set_aside(run, error)
            return
        self._reporter.finished(run, report)
        if is_requeued:
            again = Outgoing(_way_back(run), requeued(run.envelope))
            self._finish(run, report.stored, [again], over=False, can_fail=True)
        elif report.fate is Fate.SET_ASIDE or self._is_refused(run, report):
            self._end_aside(
                run, report.reason, report.stored, report.sends, report.bookkeeping
            )
        else:
            self._finish(
                run,
                report.stored,
                report.sends,
                over=report.ends_run,
                can_fail=report.state != State.FAILURE,
                end=report.bookkeeping,
            )

    def refused(self, run: InFlight, error: BeatdError, is_counted: bool) -> Settlement:
        """Return the end of a run of which something is refused.

        Its result, or what follows; by the back end or the broker.
        """
        act = _aside(run, str(error))
        end = self._failed_aside(act, run.envelope, run.task, error, is_counted)
        return replace(end, is_correction=True)

    def timed_out(self, run: InFlight, limit: float) -> None:
        """Settle a run that its time limit ended by force."""
        error = TimeLimitExceeded(limit)
        self._reporter.timed_out(run, limit, error)
        kept = self._meta(run.envelope, run.task, State.FAILURE, error)
        end = Failed(State.FAILURE, error, kept is not None)
        if self._acknowledges(run, "task_acks_on_timeout"):
            self._finish(run, kept, end=end)
        else:
            self._end_aside(run, f"time limit of {limit:g} s", kept, end=end)

    def terminated(self, run: InFlight, number: int) -> None:
        """Settle a run that remote control ended by a signal."""
        self._reporter.terminated(run, number)
        how = {"terminated": True, "signum": number, "expired": False}
        signals.task_revoked.send(run.task, request=run.envelope, **how)
        self._fail(run, State.REVOKED, Revoked("terminated"))

    def lost(self, run: InFlight, reason: str) -> bool:
        """Return whether a run whose process died is to run again, as this delivery.

        Otherwise it is settled: it was to run at most once, was lost too often, or is
        retried with a message of its own.
        """
        run.losses.append(reason)
        self._reporter.lost(run, reason)
        error = WorkerLost(f"Worker exited prematurely: {reason}")
        retries = option(run.task, "retry_on_worker_lost", self._settings)
        again = option(run.task, "reject_on_worker_lost", self._settings)
        if retries and _may_be_retried(run):
            self._retry(run, error)
        elif retries or run.early or again is False:
            self._reporter.given_up(run, error)
            self._fail(run, State.FAILURE, error)
        elif run.deliveries >= self._settings.task_max_deliveries:
            times = counted(run.deliveries, "time")
            self._set_aside(run, WorkerLost(f"delivered {times}, each time fatal"))
        else:
            run.begun_again += 1
            return True
        return False

    def _is_refused(self, run: InFlight, report: Report) -> bool:
        """Return whether a failed run's message is not to be acknowledged."""
        failed = report.state == State.FAILURE
        return failed and not self._acknowledges(run, "task_acks_on_failure")

    def _acknowledges(self, run: InFlight, setting: str) -> bool:
        if run.acknowledged:
            return True  # these settings are for late acknowledgement
        own = getattr(self._settings, setting)
        both = option(run.task, "acks_on_failure_or_timeout", self._settings)
        return bool(both if own is None else own)

    def _retry(self, run: InFlight, error: Exception) -> None:
        """Have the task tried again, by its own options, as if the run had asked."""
        pause = span_of(run.task.default_retry_delay)
        due = self._clock.now() + pause if pause else None
        self._reporter.retried(run, error)
        kept = self._meta(run.envelope, run.task, State.RETRY, error)
        again = Outgoing(_way_back(run), retried(run.envelope, due), due)
        self._finish(run, kept, [again], over=False, can_fail=True)

    def _fail(self, run: InFlight, state: State, error: Exception) -> None:
        """Acknowledge a run that did not end by itself."""
        kept = self._meta(run.envelope, run.task, state, error)
        self._finish(run, kept, end=Failed(state, error, kept is not None))

    def _finish(
        self,
        run: InFlight,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        *,
        over: bool = True,
        can_fail: bool = False,
        end: Bookkeeping | Failed | None = None,
    ) -> None:
        """Acknowledge the delivery, once its result is stored.

        With `can_fail` the run fails if something of it is refused.
        """
        entry, task_id = _run_of(run.envelope)
        if over:
            act = Acknowledge(run.delivery, entry, task_id)
        else:
            # Its lease holds a run that was acknowledged before, until it is passed on.
            goes_on = bool(entry) and run.acknowledged
            act = Acknowledge(run.delivery, goes_on=goes_on)
        fail = partial(self.refused, run) if can_fail else None
        self._settle(Settlement(run.token, act, kept, sends, end, fail=fail))

    def _end_aside(
        self,
        run: InFlight,
        reason: str,
        kept: Meta | Stored | None,
        sends: Sequence[Outgoing] = (),
        end: Bookkeeping | Failed | None = None,
    ) -> None:
        self._settle(Settlement(run.token, _aside(run, reason), kept, sends, end))

    def _set_aside(self, run: InFlight, error: Exception) -> None:
        """Store a FAILURE, and set the message aside, with the run's lost processes."""
        act = _aside(run, "; ".join([str(error), *run.losses]))
        self._settle(self._failed_aside(act, run.envelope, run.task, error))

    def _failed_aside(
        self,
        act: SetAside,
        envelope: Envelope,
        task: Task[..., Any] | None,
        error: Exception,
        is_counted: bool = False,
    ) -> Settlement:
        self._reporter.set_aside(envelope, act.reason, error)
        kept = self._meta(envelope, task, State.FAILURE, error)
        end = Failed(State.FAILURE, error, kept is not None, is_counted)
        return Settlement(act.delivery.token, act, kept, end=end)

    def _meta(
        self,
        envelope: Envelope,
        task: Task[..., Any] | None,
        state: State,
        result: object,
    ) -> Meta | None:
        """Return the meta to store for a state that no run has reported, if any is."""
        settings, now = self._settings, self._clock.now()
        if not keeps(state, ignores_result(envelope, task, settings), task, settings):
            return None
        # Decoded here only for a run that could not store its arguments itself.
        wanted = settings.result_extended and state in READY_STATES
        call = call_of(envelope.raw, limits_of(settings)) if wanted else None
        return meta_of(
            envelope,
            state,
            result,
            settings,
            now=now,
            hostname=self._hostname,
            call=call,
        )


def _run_of(envelope: Envelope) -> tuple[str, str]:
    """Return the entry and the task id; empty if no entry has sent this call."""
    return (envelope.beatd_entry, envelope.id) if envelope.beatd_entry else ("", "")


def _aside(run: InFlight, reason: str) -> SetAside:
    """Return the act that makes a dead letter of the run's message."""
    way_back = _way_back(run) if run.acknowledged else None
    task, task_id = run.envelope.task, run.envelope.id
    return SetAside(run.counted, one_line(reason), task, task_id, way_back)


def _may_be_retried(run: InFlight) -> bool:
    most = run.task.max_retries
    return most is None or run.envelope.retries < most


def _way_back(run: InFlight) -> Route:
    queue = run.delivery.queue
    return Route(queue, routing_key=queue, priority=run.envelope.priority)
