"""A logical clock: a cause always has a smaller number than its effect."""

import threading

LARGEST = 2**53
"""Larger numbers are not exact for every reader of JSON."""


class LamportClock:
    """Numbers the events of this process above all numbers that it has received."""

    def __init__(self) -> None:
        self._value = 0
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        """The number of the last event."""
        return self._value

    def forward(self) -> int:
        """Return the number of a new event."""
        with self._lock:
            self._value += 1
            return self._value

    def receive(self, other: object) -> None:
        """Go beyond a number that came with a message; ignore anything else."""
        if isinstance(other, int) and 0 < other < LARGEST:
            with self._lock:
                self._value = max(self._value, other) + 1
