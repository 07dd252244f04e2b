"""Which deliveries are to run here: decided on arrival, and again before the run."""

from beatd.brokers.items import Delivery
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import MessageError, NotRegistered, WorkerLost
from beatd.instant import Instant
from beatd.message import Envelope, Limits, read_envelope
from beatd.runs.report import option
from beatd.tasks import Registry
from beatd.worker.begun import BegunMessages
from beatd.worker.in_flight import InFlight
from beatd.worker.outcomes import Outcomes
from beatd.worker.revoked import Revocations


class Admission:
    """Decides which deliveries run here, and settles those that do not."""

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
        self._begun = BegunMessages()

    def admit(self, delivery: Delivery) -> InFlight | None:
        """Return the run of a new delivery; None if there is none: it is settled."""
        most = self._settings.task_max_deliveries
        if delivery.deliveries > most + 1:
            # The last worker died when it was about to set this message aside: perhaps
            # of reading it. So it is not even read.
            times = f"delivered {delivery.deliveries} times"
            self._outcomes.unread(delivery, WorkerLost(times))
            return None
        try:
            envelope = read_envelope(delivery.message, self._limits)
        except MessageError as error:
            self._outcomes.unread(delivery, error)
            return None
        task = self._tasks.get(envelope.task)
        if task is None:
            self._outcomes.set_aside(
                delivery, envelope, None, NotRegistered(envelope.task)
            )
            return None
        if delivery.deliveries > most:
            # The last of them was alone when its worker died. Requeues do not count
            # here: what was in flight with another one would be set aside with it.
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
        """Return whether a run has expired or is revoked; it is settled if so."""
        if _has_expired(run.envelope, self._clock.now()):
            self._outcomes.expired(run)
            return True
        return self._drops_revoked(run)

    def drops_acknowledged(self, run: InFlight) -> bool:
        """Return whether a run is not to begin although its delivery is acknowledged.

        It is revoked by now, or has begun here before; it is settled if so.
        """
        if self._drops_revoked(run):
            return True
        if self._begun.add(run.delivery.message):
            return False
        self._outcomes.repeated(run)
        return True

    def _drops_revoked(self, run: InFlight) -> bool:
        if run.envelope not in self._revocations:
            return False
        self._outcomes.revoked(run)
        return True


def _has_expired(envelope: Envelope, now: Instant) -> bool:
    return envelope.expires is not None and envelope.expires <= now
