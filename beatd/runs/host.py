"""The application whose tasks are run, as a port."""

from collections.abc import Sequence
from typing import Protocol

from beatd.brokers.items import Outgoing
from beatd.config.settings import Settings
from beatd.instant import Instant
from beatd.message import Sending
from beatd.results.base import Meta
from beatd.tasks import Registry


class Host(Protocol):
    """The application, as the code that runs its tasks uses it: app/."""

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        ...

    @property
    def tasks(self) -> Registry:
        """Return the tasks."""
        ...

    def outgoing(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Return the message of a call that is sent at `now` and due at `due`."""
        ...

    def made_ready(self, sends: Sequence[Outgoing]) -> list[Outgoing]:
        """Return these messages as they are sent, and their events for monitors."""
        ...

    def meta_of(self, task_id: str) -> Meta:
        """Return the meta of a run; PENDING or EXPIRED when nothing is known of it."""
        ...

    def store_meta(self, meta: Meta) -> None:
        """Store this meta."""
        ...
