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
_UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"))

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


def duration(span: Span) -> str:
    """Return a span in two units at most: `3h 12m`, `22d`, `12 s`, `850 ms`."""
    if 0 < span < SECOND:
        return f"{span} ms"
    if span < MINUTE:
        return f"{span // SECOND} s"
    at = next(at for at, (unit, _) in enumerate(_UNITS) if span >= unit)
    (unit, name), (smaller, its_name) = _UNITS[at], _UNITS[at + 1]
    rest = span % unit // smaller
    return f"{span // unit}{name}" + (f" {rest}{its_name}" if rest else "")


def delay(span: Span) -> str:
    """Return how late something was, or how long it took: `6 ms`, `27.9 s`, `4m 10s`.

    What is early has a sign: `-6 ms`.
    """
    if span < 0:
        return f"-{delay(-span)}"
    if span < SECOND:
        return f"{span} ms"
    return f"{span / SECOND:.1f} s" if span < MINUTE else duration(span)
