"""What a worker holds: the deliveries that it has taken, and not settled for good."""

from collections.abc import Collection, Sequence

from beatd.brokers.items import Delivery


class Holdings:
    """The deliveries of one worker, as its threads take and settle them.

    Invariant: what the broker has in flight for the worker, taken by a request before
    `request`, is here; all else is unknown to the worker, which will never settle it.
    """

    def __init__(self) -> None:
        self.request = 1
        """The number of the request to take that has no answer yet, or is the next."""
        self.has_news = False
        """Whether more runs have ended since `known` was asked last."""
        self._tokens: set[str] = set()
        self._ended: set[str] = set()
        self._left: set[str] = set()

    def taken(self, deliveries: Sequence[Delivery]) -> None:
        """Take note of the answer to the present request to take."""
        self._tokens.update([one.token for one in deliveries])
        # Only after an answer: a request whose answer was lost keeps its number. And
        # only now: before it is raised, what the request took is in doubt.
        self.request += 1

    def have_run(self, tokens: Collection[str]) -> None:
        """Take note that the runs of these have ended, and are settled later."""
        self._ended.update(tokens)
        self.has_news = True

    def settled(self, tokens: Sequence[str]) -> None:
        """Forget deliveries that the broker has settled."""
        self._tokens.difference_update(tokens)
        self._ended.difference_update(tokens)

    def left(self, token: str) -> None:
        """Leave in flight, for as long as the lease lasts, what cannot be settled."""
        self._left.add(token)

    def lost(self) -> None:
        """Forget what was left in flight: with the lease the broker gave it back."""
        self._left = set()

    def known(self) -> tuple[int, Collection[str], Collection[str]]:
        """Return the number of the present request, and the tokens from before it.

        After these, the tokens among them whose runs have ended.
        """
        request = self.request  # first: what is taken meanwhile is no harm then
        self.has_news = False
        return request, self._tokens | self._left, self._ended.copy()
