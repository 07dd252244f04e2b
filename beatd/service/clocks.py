"""This host's clock beside the broker's: slots are as late as the clock is wrong."""

from typing import Protocol

from beatd.background import OnCrash, Service
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import MINUTE, SECOND, Instant, Span
from beatd.timetable.timetable import CLOCK_TOLERANCE

tell = EventLog(__name__)

LOOK: Span = MINUTE
"""How often to compare the clocks."""

LOOK_AGAIN: Span = 5 * SECOND
"""How soon to ask once more when there was no answer, or a slow one."""


class HasClock(Protocol):
    """A broker, of which only the time is asked."""

    def time(self) -> Instant:
        """Return what the broker's clock shows. Raises BrokerUnavailable."""
        ...


class ClockWatch:
    """Compares the clocks once a minute; says when they differ, and when no more."""

    def __init__(self, broker: HasClock, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self.off: Span | None = None
        """By how much this host's clock is ahead of the broker's; None: not known."""
        self._is_said = False
        self._service = Service(self.look)

    def start(self, on_crash: OnCrash) -> None:
        """Begin to compare."""
        self._service.start("beatd-clock", on_crash)

    def leave(self) -> None:
        """Compare no more; a question under way is not waited for."""
        self._service.leave()

    @property
    def problem(self) -> str:
        """What is wrong with the clocks, in words; empty if nothing is."""
        return off_in_words(self.off)

    def look(self) -> Span:
        """Compare once; return how long to rest before the next time."""
        asked = self._clock.now()
        try:
            theirs = self._broker.time()
        except BrokerUnavailable:
            return LOOK_AGAIN  # who works with the broker says so
        answered = self._clock.now()
        if not 0 <= answered - asked <= CLOCK_TOLERANCE:
            return LOOK_AGAIN
        self.off = (asked + answered) // 2 - theirs
        if bool(self.problem) != self._is_said:
            self._is_said = not self._is_said
            if self._is_said:
                tell.warning("clock.off", "%s", self.problem, off=self.off)
            else:
                words = "this host's clock agrees with the broker's again"
                tell.info("clock.agrees", words, off=self.off)
        return LOOK


def off_in_words(off: Span | None) -> str:
    """Return what is wrong if a clock is so much ahead of the broker's; else empty."""
    if off is None or abs(off) <= CLOCK_TOLERANCE:
        return ""
    way, slots = ("behind", "late") if off < 0 else ("ahead of", "early")
    length = f"{abs(off) / SECOND:.1f} s"
    return (
        f"this host's clock is {length} {way} the broker's: if it is this one that is"
        f" wrong, slots are emitted so much too {slots}; set it right (NTP)"
    )
