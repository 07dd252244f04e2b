"""How a worker keeps suspects apart: messages with which a worker has died."""

from collections.abc import Callable, Collection, Sequence

from beatd.brokers.items import Delivery, Suspects
from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import MINUTE, SECOND, Span
from beatd.text import counted

tell = EventLog(__name__)

PATIENCE: Span = MINUTE
"""How long suspects wait until the worker holds nothing else, and how long, once some
are taken, nothing else is. A task of hours must hold up neither the queue nor them."""

MOST_TOGETHER = 50
"""So many of them run at the same time, at most: if one of them kills its worker, so
many run one by one after that."""

LONGEST_LOOK: Span = SECOND
"""How long to wait, at most, before the broker is asked for others than suspects."""


class Isolation:
    """Decides how suspects are taken, and what may be taken beside them.

    A worker takes suspects when it holds nothing else, or after PATIENCE, and then
    takes nothing else until these have ended, or for PATIENCE. Those that follow them
    do not wait again for what still runs.

    Of those with which one worker has died, as many are taken together as the pool runs
    at the same time; only then with which more have died, each alone. So a message is
    set aside only after a worker has died that held nothing else.
    """

    def __init__(
        self, clock: Clock, max_deliveries: int, pool_size: Callable[[], int]
    ) -> None:
        """A message is delivered no more after `max_deliveries` deaths."""
        self._clock = clock
        self._may_go_together = max_deliveries > 2
        self._pool_size = pool_size
        self._taken: dict[str, Span] = {}
        """The suspects that the worker holds, and when each was taken."""
        self._are_alike = False
        """Whether one worker has died with each of them, and none is passed over."""
        self._waiting_since: Span | None = None
        """Since when suspects wait, and the worker has taken nothing but suspects."""

    @property
    def room(self) -> int:
        """How many suspects that one worker died with may be taken now."""
        most = self._pool_size() if self._may_go_together else 1
        return min(most, MOST_TOGETHER) - len(self._taken)

    def rule(self) -> Suspects | None:
        """Return how suspects are to be treated now; None if nothing may be taken."""
        if self._taken:
            if self._patience_left() <= 0:
                return Suspects.PASSED_OVER
            return Suspects.ALIKE if self._are_alike and self.room > 0 else None
        since, now = self._waiting_since, self._clock.elapsed()
        if since is not None and now - since >= PATIENCE:
            return Suspects.IN_COMPANY
        return Suspects.ALONE

    def took(
        self, deliveries: Sequence[Delivery], rule: Suspects, *, held_back: bool
    ) -> None:
        """Take note of what the broker gave, or held back, by this rule."""
        now = self._clock.elapsed()
        suspects = [one for one in deliveries if one.deliveries > 1]
        if suspects:
            if not self._taken:
                self._say_taken(suspects)
            self._taken.update({one.token: now for one in suspects})
            self._are_alike = suspects[0].deliveries == 2
        elif deliveries and self._taken:
            self._are_alike = False  # some are beside them that no worker died with
        if not held_back and (rule is not Suspects.IN_COMPANY or not suspects):
            self._waiting_since = None
        elif held_back and rule is not Suspects.ALIKE and self._waiting_since is None:
            self._waiting_since = now

    def settled(self, tokens: Collection[str]) -> None:
        """Take note that these deliveries have been settled."""
        if self._taken:  # nearly never
            for token in tokens:
                self._taken.pop(token, None)

    def longest_wait(self) -> Span:
        """Return how long to wait, at most, for what the worker holds to be settled."""
        return max(1, self._patience_left()) if self._taken else LONGEST_LOOK

    def _patience_left(self) -> Span:
        """Return for how long nothing else may be taken beside the suspects."""
        now = self._clock.elapsed()
        since = min([*self._taken.values()], default=now)  # others settle meanwhile
        return since + PATIENCE - now

    def _say_taken(self, suspects: Sequence[Delivery]) -> None:
        one = suspects[0]
        tell.info(
            "suspect.taken",
            "took %s from queue %s with which %s died, and which may be why: until that"
            " has ended, for %d s at most, no other messages than such are taken",
            counted(len(suspects), "message"),
            one.queue,
            counted(one.deliveries - 1, "worker"),
            PATIENCE // SECOND,
            queue=one.queue,
        )
