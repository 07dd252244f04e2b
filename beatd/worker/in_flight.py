"""What a worker knows of a delivery that is to run here, and how far it has come.

    ASIDE <───> WAITING ───> ACKNOWLEDGING        what runs at most once
                 ^   │             │              is acknowledged before
                 │   v             │
    its process  ├─ GIVEN <────────┘
       died      │   │ ^
                 │   │ └───> RETURNED
                 │   v
                 └─ RUNNING

It begins in WAITING. It may end, and is forgotten then, in each of these states: what
has expired or is revoked does not begin, what others are to have is given back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from beatd.brokers.base import Delivery
from beatd.instant import Instant
from beatd.message import Envelope
from beatd.tasks import Task


class InFlightState(Enum):
    """How far a delivery has come on its way to its end."""

    WAITING = "waiting"  # in the backlog
    ASIDE = "aside"  # there, for its rate limit; takes no place in the window
    ACKNOWLEDGING = "acknowledging"  # the broker is told; the run may begin after that
    GIVEN = "given"  # the pool has it, and has not begun it
    RETURNED = "returned"  # in the backlog again: the pool did not get to it
    RUNNING = "running"


STEPS: Mapping[InFlightState, Sequence[InFlightState]] = {
    InFlightState.WAITING: [
        InFlightState.ASIDE,
        InFlightState.ACKNOWLEDGING,
        InFlightState.GIVEN,
    ],
    InFlightState.ASIDE: [InFlightState.WAITING],
    InFlightState.ACKNOWLEDGING: [InFlightState.GIVEN],
    InFlightState.GIVEN: [
        InFlightState.RUNNING,
        InFlightState.RETURNED,
        InFlightState.WAITING,
    ],
    InFlightState.RETURNED: [InFlightState.GIVEN],
    InFlightState.RUNNING: [InFlightState.WAITING],
}
"""The arrows of the picture above."""


@dataclass(slots=True)
class InFlight:
    """A delivery that is to run here, from its arrival until its run has ended.

    Invariants: `began` and `pid` are known in RUNNING, and in no other state.
    ACKNOWLEDGING is for what is acknowledged early, and what is never waits again once
    it is given: the end of its process is the end of its run. `let_go` is true only of
    what the pool has, and of nothing that is acknowledged early.
    """

    delivery: Delivery
    envelope: Envelope
    task: Task[..., Any]
    early: bool
    """Acknowledged before its run."""
    state: InFlightState = field(default=InFlightState.WAITING, init=False)
    losses: list[str] = field(default_factory=list)
    """How the processes ended that died with it."""
    began: Instant | None = None
    pid: int | None = None
    """When its run began, and in which process."""
    terminated: int | None = None
    """The signal that was sent to end its run."""
    let_go: bool = False
    """Is to end here, as others may have it."""

    @property
    def acknowledged(self) -> bool:
        """Whether it is acknowledged before its end: nobody else will run it."""
        given = InFlightState.GIVEN, InFlightState.RETURNED, InFlightState.RUNNING
        return self.early and self.state in given

    @property
    def has_begun(self) -> bool:
        """Whether it runs."""
        return self.state is InFlightState.RUNNING

    @property
    def token(self) -> str:
        return self.delivery.token

    def become(self, state: InFlightState) -> None:
        """Take a step that the picture shows."""
        assert state in STEPS[self.state], f"{self.state} -> {state}"
        self.state = state
        self.began = self.pid = None

    def begin(self, now: Instant, pid: int) -> None:
        """Take note that its run has begun in this process."""
        self.become(InFlightState.RUNNING)
        self.began, self.pid = now, pid
