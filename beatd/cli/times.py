"""Points in time as they are typed: `15:00`, `2027-03-28`, `2027-03-28 02:30`."""

from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import click

from beatd.errors import ScheduleError
from beatd.instant import Instant, datetime_of
from beatd.schedules.once import Once, moment_of


def coming_instant(option: str, text: str, zone: ZoneInfo, after: Instant) -> Instant:
    """Read a point in time; a mere time of day is the first one after `after`."""

    def choose(slots: Iterator[Instant]) -> Instant:
        return next(slot for slot in slots if slot > after)

    return _read(option, text, zone, after, (0, 1), choose)


def past_instant(option: str, text: str, zone: ZoneInfo, now: Instant) -> Instant:
    """Read a point in time; a mere time of day is the last one up to `now`."""

    def choose(slots: Iterator[Instant]) -> Instant:
        return next(slot for slot in slots if slot <= now)

    return _read(option, text, zone, now, (0, -1, -2), choose)


def _read(
    option: str,
    text: str,
    zone: ZoneInfo,
    near: Instant,
    days: tuple[int, ...],
    choose: Callable[[Iterator[Instant]], Instant],
) -> Instant:
    try:
        if "-" in text:
            # Not only its form may be wrong: the year may be, or the day in the zone.
            return Once(moment_of(option, datetime.fromisoformat(text)), zone).slot
        today, at = datetime_of(near, zone).date(), time.fromisoformat(text)
        moments = (datetime.combine(today + timedelta(day), at) for day in days)
        return choose(Once(moment, zone).slot for moment in moments)
    except ScheduleError as error:
        raise click.BadParameter(error.problem, param_hint=option) from error
    except ValueError as error:
        expected = f"expected '15:00', '2027-03-28' or '2027-03-28 02:30', got {text!r}"
        raise click.BadParameter(expected, param_hint=option) from error
