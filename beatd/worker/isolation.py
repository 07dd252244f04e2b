"""How a worker keeps a suspect apart: a message with which a worker has died."""

from collections.abc import Collection, Sequence

from beatd.brokers.items import Delivery, Suspects
from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import MINUTE, SECOND, Span

tell = EventLog(__name__)

PATIENCE: Span = MINUTE
"""How long a suspect waits until the worker holds nothing else, and how long, once it
is taken, nothing else is. A task of hours must not hold up the queue, nor a suspect."""

LONGEST_LOOK: Span = SECOND
"""How long to wait, at most, before the broker is asked for others than suspects."""


class Isolation:
    """Decides how suspects are taken, and what may be taken beside one.

    A worker never holds two suspects. It takes one when it holds nothing, or after
    PATIENCE, and then takes nothing else until that has ended, or for PATIENCE. Those
    that follow it do not wait again for what still runs.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._token: str | None = None
        """The suspect that the worker holds."""
        self._taken: Span = 0
        """When that was taken."""
        self._waiting_since: Span | None = None
        """Since when suspects wait, and the worker has taken nothing but suspects."""

    def rule(self) -> Suspects | None:
        """Return how suspects are to be treated now; None if nothing may be taken."""
        now = self._clock.elapsed()
        if self._token is not None:
            is_over = now - self._taken >= PATIENCE
            return Suspects.PASSED_OVER if is_over else None
        if self._waiting_since is not None and now - self._waiting_since >= PATIENCE:
            return Suspects.IN_COMPANY
        return Suspects.ALONE

    def took(self, deliveries: Sequence[Delivery], held_back: bool) -> None:
        """Take note of what the broker gave, or held back, by the present rule."""
        suspect = next((one for one in deliveries if one.deliveries > 1), None)
        if suspect is None and (deliveries or not held_back):
            self._waiting_since = None
        elif suspect is None and self._waiting_since is None:
            self._waiting_since = self._clock.elapsed()
        if suspect:
            self._token, self._taken = suspect.token, self._clock.elapsed()
            tell.info(
                "suspect.taken",
                "took a message from queue %s that %d deliveries have not survived:"
                " nothing else is taken until it has ended, for %d s at most",
                suspect.queue,
                suspect.deliveries - 1,
                PATIENCE // SECOND,
                queue=suspect.queue,
            )

    def settled(self, tokens: Collection[str]) -> None:
        """Take note that these deliveries have been settled."""
        if self._token in tokens:
            self._token = None

    def longest_wait(self) -> Span:
        """Return how long to wait, at most, for what the worker holds to be settled."""
        left = self._taken + PATIENCE - self._clock.elapsed()
        return max(1, left) if self.rule() is None else LONGEST_LOOK
