"""What the worker asks of the application whose tasks it runs."""

from collections.abc import Sequence
from typing import Protocol

from beatd.brokers.base import Outgoing
from beatd.instant import Instant
from beatd.message import Sending
from beatd.results.base import Meta
from beatd.settings import Settings
from beatd.tasks import Registry


class Host(Protocol):
    """The application, as those who run its tasks need it: app.py."""

    @property
    def settings(self) -> Settings:
        """Give the settings."""
        ...

    @property
    def tasks(self) -> Registry:
        """Give the tasks."""
        ...

    def outgoing(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Give the message of a call, sent at the one instant, due at the other."""
        ...

    def made_ready(self, sends: Sequence[Outgoing]) -> list[Outgoing]:
        """Give these messages as they are to be sent, with what is to go with them."""
        ...

    def meta_of(self, task_id: str) -> Meta:
        """Give what is known of a run."""
        ...

    def store_meta(self, meta: Meta) -> None:
        """Keep this as a run's result."""
        ...
