"""Puts back what dead workers of Celery have left in the broker, now and then."""

from beatd.background import OnCrash, Outage, Service, retried
from beatd.brokers.base import Restorer
from beatd.errors import BrokerRefused, BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import Span
from beatd.text import counted

tell = EventLog(__name__)


class Restoring:
    """Has the broker look for such messages, where Celery's workers share it."""

    def __init__(self, broker: object, away: Outage) -> None:
        self._broker = broker if isinstance(broker, Restorer) else None
        self._is_refused = False
        self._service = Service(retried(self._step, BrokerUnavailable, away))

    def start(self, on_crash: OnCrash) -> None:
        """Begin, in a thread, where there is anything to look for."""
        if self._broker:
            self._service.start("beatd-restore", on_crash)

    def stop(self) -> None:
        self._service.stop()

    def _step(self) -> Span | None:
        if self._broker is None:
            return None
        try:
            number = self._broker.restore_unacked()
            self._is_refused = False
            if number:
                self._say_restored(number)
                return 0
        except BrokerRefused as refusal:
            if not self._is_refused:
                self._say_refused(refusal)
            self._is_refused = True
        return self._broker.restore_interval

    def _say_restored(self, number: int) -> None:
        tell.warning(
            "unacked.restored",
            "put back %s that workers of Celery's had held for longer than"
            " visibility_timeout",
            counted(number, "message"),
        )

    def _say_refused(self, refusal: BrokerRefused) -> None:
        tell.warning(
            "unacked.refused",
            "what dead workers of Celery's have left is not put back: %s; it is tried"
            " again, and all else goes on",
            refusal,
        )
