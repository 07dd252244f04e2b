"""The port of a result backend: states and values of runs, by task id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from beatd.instant import DAY, Span
from beatd.message import Call


class State(StrEnum):
    """States of a run: Celery's, and EXPIRED, which is beatd's own."""

    PENDING = "PENDING"
    RECEIVED = "RECEIVED"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"


READY_STATES = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})
"""A run in one of these has ended."""

PROPAGATE_STATES = frozenset({State.FAILURE, State.REVOKED})
"""`AsyncResult.get` raises for these."""


class Meta(msgspec.Struct, frozen=True):
    """What is stored of one run: Celery's result meta, in its order of keys."""

    task_id: str
    status: str
    """A State, or any word that a task gave to `update_state`."""
    result: Any = None
    """The value, or the exception; for another state, the data stored with it."""
    traceback: str | None = None
    children: list[Any] = msgspec.field(default_factory=list)
    date_done: datetime | str | None = None
    group_id: str | None = None
    parent_id: str | None = None
    extended: dict[str, Any] = msgspec.field(default_factory=dict)
    """`name, args, kwargs, worker, retries, queue` with `result_extended`."""
    runtime: float | None = None
    """Seconds that the task's code ran, as beatd's workers store it: not in Celery's
    format, whose clients pass it over. None: nobody told."""
    call: Call | None = None
    """The message, with `result_extended`: backends of Celery's keep more of it."""


class Stored(msgspec.Struct, frozen=True):
    """A meta as it is stored, encoded in the process that ran the task."""

    task_id: str
    status: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long metas are kept, from the last state of a run that is stored."""

    any: Span | None = DAY
    """None: for ever."""
    failure: Span | None = DAY

    def of(self, status: str) -> Span | None:
        """Return how long a meta of this state is kept."""
        return self.failure if status == State.FAILURE else self.any


class Keeper(Protocol):
    """The result backend, as a worker uses it.

    Every method raises ResultUnavailable when no answer came; calling again is safe.
    Storing raises ResultRefused, once all others are stored, if some are refused.
    """

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        """Store these, in order, and wake the clients that wait for them.

        SUCCESS is final: a run in that state stays in it, whatever is stored later.
        Raises MessageError for a Meta that cannot be encoded.
        """
        ...

    def correct(self, metas: Sequence[Meta | Stored]) -> None:
        """Store these like `store`, and in place of a SUCCESS, too.

        For runs whose success could not be passed on.
        """
        ...

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Return the metas of runs, by id; a run that is not known is left out."""
        ...


class ResultBackend(Keeper, Protocol):
    """The result backend, as clients use it: they wait for the ends of runs."""

    def wait(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Return the meta once the run has ended; None after `timeout`."""
        ...

    def forget(self, task_id: str) -> None:
        """Remove what is stored of the run."""
        ...

    def save_group(self, group_id: str, members: Any) -> None:
        """Store the ids of a group's runs, for as long as results are kept.

        `members` is what `GroupResult.as_tuple` returns. Raises MessageError if that
        cannot be encoded.
        """
        ...

    def load_group(self, group_id: str) -> Any:
        """Return what `save_group` stored last, or None. Raises MessageError."""
        ...

    def forget_group(self, group_id: str) -> None:
        """Remove what `save_group` stored."""
        ...

    def close(self) -> None:
        """Close connections and files."""
        ...
