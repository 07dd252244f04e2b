"""What a worker knows of a delivery that is to run here, and how far it has come.

    ASIDE <───> WAITING ───> ACKNOWLEDGING        what runs at most once
                 ^   │             │              is acknowledged before
                 │   v             │
    its process  ├─ GIVEN <────────┘
       died      │   │ ^
                 │   │ └───> RETURNED
                 │   v
                 └─ RUNNING

A delivery begins in WAITING. It may end in each of these states, and is forgotten then:
an expired or revoked run does not begin, and a delivery may be given back at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from beatd.brokers.items import Delivery
from beatd.instant import Instant, Span
from beatd.message import Envelope
from beatd.tasks import Task


class InFlightState(Enum):
    """How far a delivery has come on its way to its end."""

    WAITING = "waiting"  # in the backlog
    ASIDE = "aside"  # in the backlog, for its rate limit; has no place in the window
    ACKNOWLEDGING = "acknowledging"  # the run may begin when the broker has answered
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

    Invariants: `began` and `pid` are known in RUNNING, and in no other state. Only an
    `early` delivery is ever ACKNOWLEDGING, and it never waits again once it is GIVEN:
    the end of its process is the end of its run. `let_go` is true only while the pool
    has the run, and never for an `early` delivery.
    """

    delivery: Delivery
    envelope: Envelope
    task: Task[..., Any]
    early: bool
    """Whether the delivery is acknowledged before its run, not after."""
    state: InFlightState = field(default=InFlightState.WAITING, init=False)
    arrived: Span = 0
    """When it began to wait here, by the clock that only goes forward."""
    losses: list[str] = field(default_factory=list)
    """How each process ended that died while it ran this delivery."""
    begun_again: int = 0
    """How often it was to run again after such a death."""
    began: Instant | None = None
    pid: int | None = None
    """When the run began, and in which process."""
    terminated: int | None = None
    """The signal that remote control had sent to end the run."""
    let_go: bool = False
    """Whether the run is to end here, because other workers may run it."""

    @property
    def acknowledged(self) -> bool:
        """Whether the delivery is acknowledged: no other worker will run it."""
        given = InFlightState.GIVEN, InFlightState.RETURNED, InFlightState.RUNNING
        return self.early and self.state in given

    @property
    def deliveries(self) -> int:
        """How often the message was delivered or begun again, this time included."""
        before = self.envelope.requeues + self.begun_again
        return self.delivery.deliveries + before

    @property
    def counted(self) -> Delivery:
        """The delivery, with the number of all that there were."""
        return msgspec.structs.replace(self.delivery, deliveries=self.deliveries)

    @property
    def has_begun(self) -> bool:
        """Whether the run has begun."""
        return self.state is InFlightState.RUNNING

    @property
    def token(self) -> str:
        return self.delivery.token

    def become(self, state: InFlightState) -> None:
        """Go to this state, by an arrow of the picture."""
        assert state in STEPS[self.state], f"{self.state} -> {state}"
        self.state = state
        self.began = self.pid = None

    def begin(self, now: Instant, pid: int) -> None:
        """Take note that the run has begun in this process."""
        self.become(InFlightState.RUNNING)
        self.began, self.pid = now, pid
