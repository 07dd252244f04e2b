"""The states of runs, by Celery's names: `from beatd import states`."""

from beatd.results.base import PROPAGATE_STATES, READY_STATES, State

PENDING = State.PENDING
RECEIVED = State.RECEIVED
STARTED = State.STARTED
SUCCESS = State.SUCCESS
FAILURE = State.FAILURE
REVOKED = State.REVOKED
RETRY = State.RETRY
IGNORED = "IGNORED"
REJECTED = "REJECTED"
EXPIRED = State.EXPIRED
"""Beatd's own: nothing is known of the run any more."""

UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
ALL_STATES = frozenset(State)

__all__ = [
    "ALL_STATES",
    "EXCEPTION_STATES",
    "EXPIRED",
    "FAILURE",
    "IGNORED",
    "PENDING",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "REJECTED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
]
