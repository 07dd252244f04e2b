"""A logical clock: what caused something has a smaller number than what it caused."""

import threading

LARGEST = 2**53
"""Beyond it, not every reader of JSON tells two numbers apart."""


class LamportClock:
    """Counts events of this process, and never falls behind those it hears of."""

    def __init__(self) -> None:
        self._value = 0
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        """Give the number of the last event."""
        return self._value

    def forward(self) -> int:
        """Number one more event."""
        with self._lock:
            self._value += 1
            return self._value

    def hear(self, other: object) -> None:
        """Take note of a number that came with a message, if it is one."""
        if isinstance(other, int) and 0 < other < LARGEST:
            with self._lock:
                self._value = max(self._value, other) + 1
