"""The slots that a plan names, minute by minute: no code of beatd's is used here."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

MINUTE, DAY = 60_000, 86_400_000


def slots_of_interval(every: int, begin: int, end: int) -> Iterator[int]:
    """Yield the multiples of `every` ms since the epoch from `begin` to `end`."""
    first = -(-begin // every) * every
    yield from range(first, end + 1, every)


def slots_of_cron(expression: str, zone: str, begin: int, end: int) -> Iterator[int]:
    """Yield the slots of an expression of minutes and hours, from `begin` to `end`.

    `*/n` in the minutes: each real minute whose local reading matches. Otherwise a
    fixed time: the first real minute of its day that shows it, or a later time.
    """
    minutes, hours, *_ = expression.split()
    if minutes.startswith("*/"):
        step = int(minutes[2:])
        yield from (
            instant
            for instant, local in _minutes(zone, begin, end)
            if local.minute % step == 0
        )
        return
    times = {(int(hour), int(minutes)) for hour in hours.split(",")}
    left: dict[date, set[tuple[int, int]]] = {}
    # From a day before, so that the times of the first day are not taken for late ones.
    for instant, local in _minutes(zone, begin - DAY, end):
        waiting = left.setdefault(local.date(), set(times))
        come = {time for time in waiting if time <= (local.hour, local.minute)}
        waiting -= come
        if come and instant >= begin:
            yield instant


def _minutes(zone: str, begin: int, end: int) -> Iterator[tuple[int, datetime]]:
    info = ZoneInfo(zone)
    first = -(-begin // MINUTE) * MINUTE
    for instant in range(first, end + 1, MINUTE):
        moment = datetime.fromtimestamp(instant / 1000, UTC).astimezone(info)
        yield instant, moment.replace(tzinfo=None)
