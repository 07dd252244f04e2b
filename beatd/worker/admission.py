"""Which deliveries are to run here: asked when they come, and again before they run."""

from beatd.brokers.base import Delivery
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import MessageError, NotRegistered, WorkerLost
from beatd.instant import Instant
from beatd.message import Envelope, Limits, read_envelope
from beatd.runs.report import option
from beatd.tasks import Registry
from beatd.worker.in_flight import InFlight
from beatd.worker.outcomes import Outcomes
from beatd.worker.revoked import Revocations


class Admission:
    """Decides about deliveries; those that are not to run here are settled."""

    def __init__(
        self,
        *,
        tasks: Registry,
        settings: Settings,
        limits: Limits,
        revocations: Revocations,
        outcomes: Outcomes,
        clock: Clock,
    ) -> None:
        self._tasks = tasks
        self._settings = settings
        self._limits = limits
        self._revocations = revocations
        self._outcomes = outcomes
        self._clock = clock

    def admit(self, delivery: Delivery) -> InFlight | None:
        """Return what is to run of a new delivery; None: it is settled."""
        most = self._settings.task_max_deliveries
        if delivery.deliveries > most + 1:
            # It ended the worker that was about to set it aside: not even look at it.
            self._outcomes.unread(delivery, f"delivered {delivery.deliveries} times")
            return None
        try:
            envelope = read_envelope(delivery.message, self._limits)
        except MessageError as error:
            self._outcomes.unread(delivery, str(error))
            return None
        task = self._tasks.get(envelope.task)
        if task is None:
            self._outcomes.set_aside(
                delivery, envelope, None, NotRegistered(envelope.task)
            )
            return None
        if delivery.deliveries > most:
            times = f"{delivery.deliveries - 1} times"
            lost = WorkerLost(f"delivered {times}, and no worker lived to tell the end")
            self._outcomes.set_aside(delivery, envelope, task, lost)
            return None
        early = not option(task, "acks_late", self._settings)
        run = InFlight(delivery, envelope, task, early)
        if self.drops(run):
            return None
        if envelope.eta is not None and envelope.eta > self._clock.now():
            self._outcomes.delayed(delivery, envelope, envelope.eta)
            return None
        return run

    def drops(self, run: InFlight) -> bool:
        """Say whether it must not run, or not any more; it is settled if so."""
        if _has_expired(run.envelope, self._clock.now()):
            self._outcomes.expired(run)
            return True
        return self.drops_revoked(run)

    def drops_revoked(self, run: InFlight) -> bool:
        """Say whether it must not run because it is revoked; it is settled if so."""
        if run.envelope not in self._revocations:
            return False
        self._outcomes.revoked(run)
        return True


def _has_expired(envelope: Envelope, now: Instant) -> bool:
    return envelope.expires is not None and envelope.expires <= now
