"""Reports of a worker's tasks: to log, monitors, receivers of signals, and /metrics."""

import logging
from dataclasses import dataclass, field
from signal import Signals

from beatd import signals
from beatd.brokers.items import Delivery
from beatd.config.settings import BUILTIN_TASKS
from beatd.errors import MessageError, NotRegistered
from beatd.event_log import EventLog
from beatd.message import Envelope
from beatd.results.base import State
from beatd.results.exceptions import repr_of
from beatd.runs.report import Fate, Report
from beatd.text import one_line, quoted
from beatd.worker.events import WorkerEvents
from beatd.worker.in_flight import InFlight
from beatd.worker.tally import STATES, Tally

tell = EventLog(__name__)

FAILURES = f"{__name__}.failures"
"""The logger of exceptions of tasks."""

_tell_failure = EventLog(FAILURES)


@dataclass(frozen=True, slots=True)
class WorkerNode:
    """A worker as receivers of signals see it, in any of its processes."""

    name: str
    """`celery@host`: the sender that receivers may ask for."""

    @property
    def hostname(self) -> str:
        """Return the name, as receivers of Celery's signals call it."""
        return self.name


@dataclass(frozen=True, slots=True)
class TaskReporter:
    """Reports what becomes of a task to the log, monitors and receivers of signals.

    And counts it.
    """

    events: WorkerEvents | None
    """None: the broker carries no events."""
    node: WorkerNode
    """The sender of signals."""
    tally: Tally = field(default_factory=Tally)

    def received(self, envelope: Envelope) -> None:
        self._log(logging.INFO, "task.received", envelope, "received")
        self._event("received", envelope)
        signals.task_received.send(self.node, request=envelope)

    def delayed(self, envelope: Envelope) -> None:
        """Report that a task was received, and waits in the broker for its time."""
        self._event("delayed", envelope)

    def started(self, run: InFlight) -> None:
        self._event("started", run.envelope)

    def finished(self, run: InFlight, report: Report) -> None:
        """Report how a run ended."""
        envelope = run.envelope
        self.tally.ended(_end_of(report), report.seconds)
        after = f"after {report.seconds:.3f} s"
        if report.fate is Fate.REQUEUED:
            words = f"goes back to its queue: {report.reason}"
            self._log(logging.INFO, "task.requeued", envelope, words)
            self._event("rejected", envelope, requeue=True)
        elif report.fate is Fate.SET_ASIDE:
            self._log(
                logging.ERROR, "task.set_aside", envelope, f"set aside: {report.reason}"
            )
            if report.state == State.FAILURE:
                self._failed(envelope, report)
                if not run.early:  # as in Celery, which has acknowledged it before
                    self._event("rejected", envelope, requeue=False)
        elif report.state == State.SUCCESS:
            value = f": {one_line(report.result)}" if report.result else ""
            self._log(
                logging.INFO, "task.succeeded", envelope, f"succeeded {after}{value}"
            )
            what = {"result": report.result, "runtime": report.seconds}
            self._event("succeeded", envelope, **what)
        elif report.state == State.RETRY:
            self._log(
                logging.INFO,
                "task.retried",
                envelope,
                f"is tried again: {report.reason}",
            )
            what = {"exception": report.exception, "traceback": report.traceback}
            self._event("retried", envelope, **what)
        elif report.state == State.FAILURE:
            self._log_failure(envelope, report, f"failed {after}: {report.reason}")
            self._failed(envelope, report)
        else:
            words = f"ended {after}: {report.reason}"
            self._log(logging.INFO, "task.ignored", envelope, words)

    def timed_out(self, run: InFlight, limit: float, error: Exception) -> None:
        self.tally.ended(State.FAILURE, limit)
        words = f"ended by force after {limit:g} s"
        self._log(logging.ERROR, "task.timed_out", run.envelope, words)
        self._event("failed", run.envelope, exception=repr_of(error), traceback="")

    def lost(self, run: InFlight, reason: str) -> None:
        """Report that the process of a run is gone; the task may run once more."""
        self.tally.ends["LOST"] += 1
        words = f"its process is gone: {reason}"
        self._log(logging.ERROR, "task.lost", run.envelope, words)

    def retried(self, run: InFlight, error: Exception) -> None:
        """Report that a run whose process is gone is tried again, as its task says."""
        self.tally.ends[State.RETRY] += 1
        words = repr_of(error)
        self._log(
            logging.INFO, "task.retried", run.envelope, f"is tried again: {words}"
        )
        self._event("retried", run.envelope, exception=words, traceback="")

    def let_go(self, run: InFlight) -> None:
        """Report that a run was ended here because other workers may run it."""
        words = "ended here: the worker was cut off, and others may run it"
        self._log(logging.WARNING, "task.let_go", run.envelope, words)
        self._event("rejected", run.envelope, requeue=True)

    def gone(self, run: InFlight, number: int) -> None:
        """Report a run that does not begin, as its message was not here any more.

        So many there are by now, with this one.
        """
        words = (
            "does not begin: its message was not this worker's any more when it was to"
            " be acknowledged (the broker was set back, or the worker cut off for too"
            f" long); it runs where that is delivered next; {number} so far"
        )
        self._log(logging.WARNING, "task.gone", run.envelope, words)
        self._event("rejected", run.envelope, requeue=True)

    def repeated(self, run: InFlight) -> None:
        """Report that a run does not begin, as it has begun here before."""
        words = (
            "does not begin again: it is to run at most once, and has begun here before"
            " its message was delivered once more (the broker was set back to an"
            " earlier state, or somebody has put it on its queue again)"
        )
        self._log(logging.WARNING, "task.repeated", run.envelope, words)
        self._event("rejected", run.envelope, requeue=False)

    def given_up(self, run: InFlight, error: Exception) -> None:
        """Report that a task whose process is gone is not run once more."""
        self.tally.ends[State.FAILURE] += 1
        self._event("failed", run.envelope, exception=repr_of(error), traceback="")

    def unread(self, delivery: Delivery, reason: str) -> None:
        """Report a message of which nothing can be read."""
        self.tally.ends[State.FAILURE] += 1
        tell.error(
            "task.set_aside",
            "set aside a message of queue %s: %s",
            quoted(delivery.queue),
            one_line(reason),
            queue=delivery.queue,
        )
        error = MessageError(reason)
        signals.task_rejected.send(self.node, message=delivery.message, exc=error)

    def set_aside(self, envelope: Envelope, reason: str, error: Exception) -> None:
        self.tally.ends[State.FAILURE] += 1
        self._log(logging.ERROR, "task.set_aside", envelope, f"set aside: {reason}")
        self._event("failed", envelope, exception=repr_of(error))
        if isinstance(error, NotRegistered):
            what = {
                "message": envelope.raw,
                "exc": error,
                "name": envelope.task,
                "id": envelope.id,
            }
            signals.task_unknown.send(self.node, **what)

    def expired(self, envelope: Envelope) -> None:
        self.tally.ends["EXPIRED"] += 1
        self._log(logging.INFO, "task.expired", envelope, "has expired")
        self._revoked(envelope, expired=True)

    def revoked(self, envelope: Envelope) -> None:
        self.tally.ends[State.REVOKED] += 1
        self._log(
            logging.INFO, "task.revoked", envelope, "is revoked, and does not begin"
        )
        self._revoked(envelope)

    def terminated(self, run: InFlight, number: int) -> None:
        self.tally.ends[State.REVOKED] += 1
        words = f"is revoked, and was ended by {Signals(number).name}"
        self._log(logging.WARNING, "task.terminated", run.envelope, words)
        self._revoked(run.envelope, terminated=True, signum=int(number))

    def _failed(self, envelope: Envelope, report: Report) -> None:
        what = {"exception": report.exception, "traceback": report.traceback}
        self._event("failed", envelope, **what)

    def _revoked(
        self,
        envelope: Envelope,
        *,
        terminated: bool = False,
        signum: int | None = None,
        expired: bool = False,
    ) -> None:
        what = {"terminated": terminated, "signum": signum, "expired": expired}
        self._event("revoked", envelope, **what)

    def _event(self, event: str, envelope: Envelope, **fields: object) -> None:
        if self.events:
            self.events.task(event, envelope, **fields)

    def _log_failure(self, envelope: Envelope, report: Report, words: str) -> None:
        if report.expected:
            self._log(logging.INFO, "task.failed", envelope, words)
        else:
            text = f"{words}\n{report.traceback}".rstrip()
            self._log(logging.ERROR, "task.failed", envelope, text, _tell_failure)

    def _log(
        self,
        level: int,
        event: str,
        envelope: Envelope,
        words: str,
        log: EventLog = tell,
    ) -> None:
        if not log.logs_at(level):
            return
        entry = envelope.beatd_entry
        if entry and envelope.task in BUILTIN_TASKS:
            # Commands and requests have the same name, whatever they are.
            words = f"({one_line(entry)}) {words}"
        log.log(
            level,
            event,
            "%s[%s] %s",
            one_line(envelope.name),
            one_line(envelope.id),
            words,
            task=envelope.task,
            id=envelope.id,
        )


def _end_of(report: Report) -> str:
    """Return the state in which a run ended, as it is counted."""
    if report.fate is Fate.REQUEUED:
        return "REQUEUED"
    if report.fate is Fate.SET_ASIDE:
        return State.FAILURE
    return report.state if report.state in STATES else "IGNORED"
