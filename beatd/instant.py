"""Points and lengths of time, and the only ways from and to `datetime`."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeAlias

Instant: TypeAlias = int
"""Milliseconds since the Unix epoch, UTC."""

Span: TypeAlias = int
"""A length of time in milliseconds."""

SECOND: Span = 1_000
MINUTE: Span = 60 * SECOND
HOUR: Span = 60 * MINUTE
DAY: Span = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def instant_of(moment: datetime) -> Instant:
    """Return the instant of an aware `moment`, rounded down to a millisecond.

    Raises ValueError for a naive datetime: its zone cannot be guessed.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return (moment - _EPOCH) // _MILLISECOND


def datetime_of(instant: Instant, zone: tzinfo = UTC) -> datetime:
    """Return `instant` as an aware datetime in `zone`."""
    return (_EPOCH + instant * _MILLISECOND).astimezone(zone)


def span_of(length: timedelta | float) -> Span:
    """Return a `timedelta`, or a number of seconds, in milliseconds, rounded."""
    if isinstance(length, timedelta):
        return round(length / _MILLISECOND)
    return round(length * SECOND)
