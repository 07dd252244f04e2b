"""How many more deliveries a worker may hold."""

import threading

from beatd.instant import SECOND, Span


class PrefetchWindow:
    """How many more deliveries the worker may hold.

    Each request for deliveries costs about as much as a short task. So it is worth one
    only when half of those places are free that are beside what runs: until then the
    pool has enough.
    """

    def __init__(self, size: int, at_once: int) -> None:
        """`at_once` is how many deliveries run at the same time, at most."""
        self._size = self._free = size
        self._at_once = at_once
        self._is_interrupted = False
        self._changed = threading.Condition()
        self.clearings = 0
        """How often places were made free."""

    def free(self) -> int:
        """Return the number of free places."""
        return self._free

    def room(self) -> int:
        """Return how many deliveries to take now; 0 while these are not enough."""
        enough = max(1, (self._size - self._at_once + 1) // 2)
        return self._free if self._free >= enough else 0

    def resize(self, size: int, at_once: int) -> None:
        """Have so many places, for the given number of runs at the same time."""
        grown, self._size, self._at_once = size - self._size, size, at_once
        if grown:
            self.clear(grown)

    def fill(self, places: int) -> None:
        """Occupy so many places."""
        with self._changed:
            self._free -= places

    def clear(self, places: int) -> None:
        """Make so many places free: of settled deliveries, say."""
        with self._changed:
            self._free += places
            self.clearings += 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until there is room, or until `interrupt` is called."""
        with self._changed:
            self._changed.wait_for(lambda: self.room() > 0 or self._is_interrupted)
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
