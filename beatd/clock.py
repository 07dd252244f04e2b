"""The wall clock, the monotonic clock, local time, and waiting.

No other module imports `time`.
"""

import os
import time
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Protocol

from beatd.instant import SECOND, Instant, Span


class Wake(Enum):
    """Why a loop woke up; signal handlers and threads put these into its inbox."""

    ON_TIME = "on time"
    STOP = "stop"
    RELOAD = "reload"
    LOOK = "look"  # look again: the lead is free, say, or an entry was added


class Clock(Protocol):
    """The time of day, the time that has passed, and waiting."""

    def now(self) -> Instant:
        """Read the wall clock, which people and other clocks may step."""
        ...

    def elapsed(self) -> Span:
        """Read the monotonic clock; only differences mean anything."""
        ...

    def wait(self, inbox: SimpleQueue[Wake], until: Instant, at_most: Span) -> Wake:
        """Return ON_TIME at `until`, or sooner with what `inbox` holds.

        Also after `at_most`, wherever the wall clock is set meanwhile.
        """
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> Instant:
        return time.time_ns() // 1_000_000

    def elapsed(self) -> Span:
        return time.monotonic_ns() // 1_000_000

    def wait(self, inbox: SimpleQueue[Wake], until: Instant, at_most: Span) -> Wake:
        # `now` cuts fractions off: wait one millisecond more, or a wake-up that is a
        # little too early would find nothing due and spin.
        left = min(until - time.time_ns() / 1_000_000, at_most + 1)
        try:
            return inbox.get(timeout=left / SECOND) if left > 0 else inbox.get_nowait()
        except Empty:
            return Wake.ON_TIME


def monotonic_microseconds() -> int:
    """Return the monotonic clock in the unit that systemd compares with its own."""
    return time.monotonic_ns() // 1000


def set_local_time(zone: str) -> None:
    """Make `zone` the local time of this process and of those it starts."""
    os.environ["TZ"] = zone
    time.tzset()
