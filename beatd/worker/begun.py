"""The messages whose runs have begun here, of those that are to run at most once."""

from collections import deque

MOST = 100_000
"""So many messages are remembered: some 10 MB."""


class BegunMessages:
    """Remembers the last messages whose runs have begun, so that none begins again.

    They are acknowledged; but a broker that was set back delivers them once more. No
    two messages are alike but for that: each has an id of its own, each further try a
    number. Of a message its hash is kept; two have the same by a chance of 1 to 2^64.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._hashes: set[int] = set()
        self._order: deque[int] = deque()

    def add(self, message: bytes) -> bool:
        """Remember a message; return False if it is known already."""
        kept = hash(message)
        if kept in self._hashes:
            return False
        self._hashes.add(kept)
        self._order.append(kept)
        if len(self._order) > self._most:
            self._hashes.remove(self._order.popleft())
        return True
