"""Schedulers and workers that do not meet: each has another file as its broker."""

from collections.abc import Callable

from beatd.background import Service
from beatd.brokers.base import FileBroker
from beatd.clock import Clock, SystemClock
from beatd.errors import BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.text import counted

tell = EventLog(__name__)

LOOK: Span = 10 * SECOND
"""How often to look for the other side."""

PATIENCE: Span = 30 * SECOND
"""How long the other side may be away: it may just be started anew."""

_ELSEWHERE = (
    "one that was started in another directory, or with another --schedule-filename or"
    " broker_url, has another file"
)


class OtherSide:
    """Says when those who are to be at the same broker's file have been away for long.

    Each time that they are away it is said once.
    """

    def __init__(
        self,
        is_away: Callable[[], bool],
        words: str,
        event: str,
        clock: Clock | None = None,
    ) -> None:
        self._is_away = is_away
        self._words = words
        self._event = event
        self._clock = clock or SystemClock()
        self._since: Span | None = None
        self._is_said = False

    def look(self) -> Span:
        """Look once; return how long to rest before the next look."""
        try:
            is_away = self._is_away()
        except BrokerUnavailable:
            return LOOK  # who works with the broker says so
        now = self._clock.elapsed()
        if not is_away:
            self._since, self._is_said = None, False
        elif self._since is None:
            self._since = now
        elif now - self._since >= PATIENCE and not self._is_said:
            self._is_said = True
            tell.warning(self._event, "%s; %s", self._words, _ELSEWHERE)
        return LOOK


def watch_for_workers(broker: object, leads: Callable[[], bool]) -> Service | None:
    """Return a thread that says if this scheduler leads, and no worker is at its file.

    None for a broker that has other clients than beatd's.
    """
    if not isinstance(broker, FileBroker):
        return None
    words = f"no worker is at {broker.place}: messages wait there, and nobody runs them"

    def is_away() -> bool:
        return leads() and broker.is_unattended()

    return Service(OtherSide(is_away, words, "workers.away").look)


def watch_for_scheduler(broker: object, entries: int) -> Service | None:
    """Return a thread that says if no scheduler leads at this worker's file.

    None without entries, and for a broker that has other clients than beatd's.
    """
    if not (entries and isinstance(broker, FileBroker)):
        return None
    words = (
        f"no scheduler leads at {broker.place}: of the config's"
        f" {counted(entries, 'entry')} nothing comes to this worker"
    )

    def is_away() -> bool:
        return broker.leader() is None

    return Service(OtherSide(is_away, words, "scheduler.away").look)
