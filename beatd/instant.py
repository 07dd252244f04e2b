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


EARLIEST: Instant = instant_of(datetime.min.replace(tzinfo=UTC))
LATEST: Instant = instant_of(datetime.max.replace(tzinfo=UTC))
"""The first and the last instant that has a date."""


def datetime_of(instant: Instant, zone: tzinfo = UTC) -> datetime:
    """Return `instant` as an aware datetime in `zone`.

    At the edges of the years 1 and 9999, where the zone has no date for it, in UTC.
    """
    moment = _EPOCH + instant * _MILLISECOND
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def span_of(length: timedelta | float) -> Span:
    """Return a `timedelta`, or a number of seconds, in milliseconds, rounded."""
    if isinstance(length, timedelta):
        return round(length / _MILLISECOND)
    return round(length * SECOND)
