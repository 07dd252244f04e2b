"""What comes into a worker's inbox, from its pool, its threads and the outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from beatd.brokers.base import Delivery
from beatd.control.pidbox import Command
from beatd.pools.base import PoolEvent
from beatd.worker.renewal import Renewed
from beatd.worker.settle import Settlement


class Stop(Enum):
    """How the worker is to end."""

    WARM = "warm"  # let the tasks that run end
    SOFT = "soft"  # let them end for a while, and be cold then
    COLD = "cold"  # at once: what runs is given back


@dataclass(frozen=True, slots=True)
class Fetched:
    """New deliveries."""

    deliveries: Sequence[Delivery]
    lease: int
    """The number of the lease that they are under."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The worker was cut off for too long: others have all that it held before."""


@dataclass(frozen=True, slots=True)
class Settled:
    """These deliveries are done with, as far as was asked for."""

    settlements: Sequence[Settlement]


@dataclass(frozen=True, slots=True)
class Crashed:
    """A thread of the worker ended for a reason nobody foresaw."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing came for a while."""


@dataclass(frozen=True, slots=True)
class KnownAsRevoked:
    """What other workers say must not run."""

    task_ids: Sequence[str]


WorkerEvent: TypeAlias = (
    PoolEvent
    | Renewed
    | Fetched
    | LeaseLost
    | Settled
    | Command
    | KnownAsRevoked
    | Crashed
    | Stop
    | TimePassed
)
