"""What a worker knows of a delivery that is to run here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from beatd.brokers.base import Delivery
from beatd.instant import Instant
from beatd.message import Envelope
from beatd.tasks import Task


@dataclass(slots=True)
class InFlight:
    """A delivery that is to run here, from its arrival until its run has ended."""

    delivery: Delivery
    said: Envelope
    task: Task[..., Any]
    early: bool
    """Acknowledged before its run."""
    acknowledged: bool = False
    """That is done: nobody else will run it."""
    losses: list[str] = field(default_factory=list)
    """How the processes ended that died with it."""
    began: Instant | None = None
    pid: int | None = None
    """When its run began, and in which process; None before."""
    terminated: int | None = None
    """The signal that was sent to end its run."""
    let_go: bool = False
    """Is to end here, as others may have it."""
    aside: bool = False
    """Takes no place in the room while a rate limit has it wait."""

    @property
    def must_be_acknowledged(self) -> bool:
        """Whether its run may not begin before that is done: it is not done yet."""
        return self.early and not self.acknowledged

    @property
    def token(self) -> str:
        return self.delivery.token


def stamps_of(said: Envelope) -> Sequence[tuple[str, str]]:
    """Give header and value of each stamp that a message carries."""
    found = []
    for header, value in (said.stamps or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        found += [(header, one) for one in values if isinstance(one, str)]
    return found
