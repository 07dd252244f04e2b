"""Answers what the vectors ask with the product's own schedules, and nothing else."""

from datetime import datetime
from typing import Any

from beatd.instant import datetime_of, instant_of
from beatd.schedules import ScheduleSpec, cron, crontab, every, once, rrule, solar
from beatd.schedules.zones import zone_of


def next_runs(
    kind: str, spec: dict[str, Any], tz: str, after_iso: str, n: int
) -> list[str]:
    """Return the first `n` slots after `after_iso`, as ISO 8601 in UTC."""
    schedule = _read(kind, spec).in_zone(zone_of(tz), hash_id=spec.get("hash_id"))
    slots: list[str] = []
    slot = schedule.next_after(instant_of(datetime.fromisoformat(after_iso)))
    while slot is not None and len(slots) < n:
        slots.append(datetime_of(slot).isoformat())
        slot = schedule.next_after(slot)
    return slots


def _read(kind: str, spec: dict[str, Any]) -> ScheduleSpec:
    match kind:
        case "cron":
            return cron(spec["expr"], spec.get("second_at_beginning", False))
        case "celery":
            return crontab(**spec)
        case "interval":
            return every(
                spec["every"],
                offset=spec.get("phase", 0),
                align=spec.get("align", False),
                relative=spec.get("relative", False),
            )
        case "once":
            return once(spec["at"])
        case "solar":
            return solar(spec["event"], spec["lat"], spec["lon"])
        case "rrule":
            return rrule(spec["rrule"], spec["dtstart"])
        case _:
            raise NotImplementedError(kind)
