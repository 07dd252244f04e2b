"""How many more deliveries a worker may hold."""

import threading

from beatd.instant import SECOND, Span


class PrefetchWindow:
    """How many more deliveries the worker may hold."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._is_interrupted = False
        self._changed = threading.Condition()
        self.clearings = 0
        """How often places were made free."""

    def free(self) -> int:
        """Return the number of free places."""
        return self._free

    def fill(self, places: int) -> None:
        """Occupy so many places."""
        with self._changed:
            self._free -= places

    def clear(self, places: int) -> None:
        """Make so many places free: of settled deliveries, or added to the window."""
        with self._changed:
            self._free += places
            self.clearings += 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until there is a free place, or until `interrupt` is called."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._is_interrupted)
            self._is_interrupted = False

    def wait_for_clearing(self, last: int, timeout: Span) -> None:
        """Wait until `clearings` is not `last` any more, or until `interrupt`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.clearings != last or self._is_interrupted, timeout / SECOND
            )
            self._is_interrupted = False

    def interrupt(self) -> None:
        """End the present wait, or the next one; callable from any thread."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()
