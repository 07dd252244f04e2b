"""Celery's task message, both ways (being written)."""

from beatd.instant import Instant
from beatd.routing import Route


class Template:
    """A message that is encoded but for what differs from slot to slot."""

    task: str
    route: Route

    def complete(
        self,
        *,
        id: str,
        tag: str,
        now: Instant,
        slot: Instant | None = None,
        expires: Instant | None = None,
    ) -> bytes:
        """Give the message for one slot, sent `now` under this task id."""
        raise AssertionError(id)
