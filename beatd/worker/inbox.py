"""The events in a worker's inbox: from its pool, its threads and from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import msgspec

from beatd.brokers.items import Delivery
from beatd.control.pidbox import Command
from beatd.pools.base import PoolEvent
from beatd.worker.renewal import Renewed
from beatd.worker.settlement import Settlement


class Stop(Enum):
    """How the worker is to end."""

    WARM = "warm"  # when the running tasks have ended
    SOFT = "soft"  # as WARM for a while, then as COLD
    COLD = "cold"  # at once: running tasks are given back


class Fetched(msgspec.Struct, frozen=True):
    """New deliveries."""

    deliveries: Sequence[Delivery]
    lease: int
    """The number of the lease that they are under."""


class LeaseLost(msgspec.Struct, frozen=True):
    """The worker was cut off for too long: others have the deliveries it had before."""


class Settled(msgspec.Struct, frozen=True):
    """The broker has done what these settlements ask for, or refuses it for good."""

    settlements: Sequence[Settlement]


@dataclass(frozen=True, slots=True)
class Crashed:
    """A thread of the worker ended by an unforeseen error."""

    error: BaseException


class TimePassed(msgspec.Struct, frozen=True):
    """Nothing came for a while."""


class KnownAsRevoked(msgspec.Struct, frozen=True):
    """Other workers say that these runs are revoked."""

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
