"""Beatd's errors by Celery's names: `from beatd.exceptions import Retry, ...`."""

from beatd.errors import (
    BeatdError,
    BrokerUnavailable,
    ChordError,
    ConfigError,
    Ignore,
    MaxRetriesExceeded,
    MessageError,
    NotRegistered,
    Reject,
    ResultUnavailable,
    Retry,
    Revoked,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    Verdict,
    WorkerLost,
)

CeleryError = BeatdError
ImproperlyConfigured = ConfigError
MaxRetriesExceededError = MaxRetriesExceeded
TaskRevokedError = Revoked
WorkerLostError = WorkerLost
TaskPredicate = Verdict
EncodeError = MessageError
OperationalError = BrokerUnavailable
BackendError = ResultUnavailable
TimeoutError = TimeoutError

__all__ = [
    "BackendError",
    "CeleryError",
    "ChordError",
    "EncodeError",
    "Ignore",
    "ImproperlyConfigured",
    "MaxRetriesExceededError",
    "NotRegistered",
    "OperationalError",
    "Reject",
    "Retry",
    "SoftTimeLimitExceeded",
    "TaskPredicate",
    "TaskRevokedError",
    "TimeLimitExceeded",
    "TimeoutError",
    "WorkerLostError",
]
