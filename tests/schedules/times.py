"""Schedules and slots as the tests in this directory write them."""

from datetime import datetime
from zoneinfo import ZoneInfo

from beatd.instant import Instant, datetime_of, instant_of
from beatd.schedules import ScheduleSpec, cron
from beatd.schedules.base import Schedule


def at(text: str) -> Instant:
    """The instant of an ISO 8601 text with an offset."""
    return instant_of(datetime.fromisoformat(text))


def cron_in(zone: str, expression: str, hash_id: str | None = None) -> Schedule:
    return cron(expression).in_zone(ZoneInfo(zone), hash_id=hash_id)


def in_utc(spec: ScheduleSpec) -> Schedule:
    return spec.in_zone(ZoneInfo("UTC"))


def slots(schedule: Schedule, after: str, n: int) -> list[str]:
    """The first `n` slots after `after`, as `2024-03-10 07:00` in UTC."""
    texts: list[str] = []
    slot = schedule.next_after(at(after))
    while slot is not None and len(texts) < n:
        texts.append(f"{datetime_of(slot):%Y-%m-%d %H:%M}")
        slot = schedule.next_after(slot)
    return texts
