"""The one reader of seconds, of counts and of rates, with the bounds of each.

Settings, entries, options of the command line, of tasks and of calls, and envelopes are
all read by it: what one of them takes, the others take.
"""

from datetime import UTC, datetime, timedelta

from beatd.instant import DAY, SECOND, Instant, instant_of
from beatd.text import quoted

LONGEST = 36_525 * DAY // SECOND
"""Seconds in a hundred years: no length of time may be longer.

Whatever is worked out from a length of this bound can be: now and it are a date before
the year 9999, its milliseconds fit the 64 bits of databases and are exact in a double
(JSON, Lua), and locks and queues can wait so long (`threading.TIMEOUT_MAX`, 292 years).
"""

LARGEST = 2**31 - 1
"""The largest count: it fits 32 bits wherever it goes."""

FIRST_YEAR, LAST_YEAR = 2, 8999
"""Dates of entries lie in these years: in each zone, and with each length of time added
that they may have, they are dates for Python."""

FIRST_DATE: Instant = instant_of(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC))
LAST_DATE: Instant = instant_of(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)) - 1

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class TooLarge(ValueError):
    """A value of the right kind, beyond its bound."""


def seconds_of(value: object, least: float = 0) -> float:
    """Return a number of seconds, or a timedelta, in seconds: from `least` to LONGEST.

    Raises ValueError, TooLarge for a value beyond LONGEST.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        if least <= number <= LONGEST:  # neither NaN nor infinity
            return number
        if number > LONGEST:
            raise TooLarge(
                f"expected at most {LONGEST} seconds (a hundred years),"
                f" got {quoted(value)}"
            )
    raise ValueError(f"expected a number of seconds{_from(least)}, got {quoted(value)}")


def count_of(value: object, least: int = 0) -> int:
    """Return a whole number from `least` to LARGEST.

    Raises ValueError, TooLarge for a value beyond LARGEST.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if least <= value <= LARGEST:
            return value
        if value > LARGEST:
            raise TooLarge(f"expected at most {LARGEST}, got {quoted(value)}")
    raise ValueError(f"expected a whole number{_from(least)}, got {quoted(value)}")


def rate_of(limit: object) -> float:
    """Return a limit (`10/m`, `5/s`, `100/h` or a number) in runs a second; 0: none.

    None and False say that there is none, as in Celery.

    Raises ValueError.
    """
    number, unit = 0 if limit is None or limit is False else limit, ""
    if isinstance(limit, str):
        text, _, unit = limit.strip().partition("/")
        number = float(text or 0)  # what it raises is told to Celery's clients
    is_number = isinstance(number, int | float) and limit is not True
    if not is_number or unit not in _UNITS:
        raise ValueError(
            f"expected a rate such as 10/s, 10/m, 10/h or a number, got {quoted(limit)}"
        )
    assert isinstance(number, int | float)
    # Between two runs there is a length of time, which has a bound.
    if number != 0 and not _UNITS[unit] / LONGEST <= number <= LARGEST:
        raise ValueError(
            f"expected a rate of 0, or one of 1 in a hundred years to {LARGEST},"
            f" got {quoted(limit)}"
        )
    return number / _UNITS[unit]


def is_in_bounds(moment: datetime) -> bool:
    """Return whether a date can be worked with in every zone, and in sums."""
    return FIRST_YEAR <= moment.year <= LAST_YEAR


def _from(least: float) -> str:
    return "" if least < 0 else f", {least:g} or more"
