"""A schedule with a single slot."""

from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from beatd.bounds import FIRST_YEAR, LAST_YEAR, is_in_bounds
from beatd.errors import ScheduleError
from beatd.instant import Instant, instant_of
from beatd.schedules.zones import local_clock, local_of
from beatd.text import quoted


@dataclass(frozen=True, slots=True)
class Once:
    """One slot, at a moment or at a local time.

    A local time that comes twice means its first pass; one that is skipped means the
    end of the gap, as for a cron job with a fixed time.
    """

    at: datetime = field(compare=False)
    zone: ZoneInfo = field(compare=False)
    slot: Instant = field(init=False)

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            slot = _slot_of(self.at, self.zone)
        else:
            slot = instant_of(self.at)
        object.__setattr__(self, "slot", slot)

    @property
    def fingerprint(self) -> str:
        return f"once {self.slot}"

    @property
    def wildcard(self) -> bool:
        return False

    def next_after(self, instant: Instant) -> Instant | None:
        return self.slot if self.slot > instant else None

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        return self.slot if since < self.slot <= instant else None

    def count(self, first: Instant, last: Instant) -> int:
        return 1


def moment_of(field_name: str, value: datetime | str) -> datetime:
    """Return an ISO 8601 date and time; ScheduleError names `field_name`."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ScheduleError(
            field_name,
            f"expected a date and time such as '2027-01-31T06:00', got {quoted(value)}",
        ) from error
    if not is_in_bounds(moment):
        raise ScheduleError(
            field_name,
            f"expected a date in the years {FIRST_YEAR} to {LAST_YEAR}, got {moment}",
        )
    return moment


def _slot_of(moment: datetime, zone: ZoneInfo) -> Instant:
    slot = local_clock(zone).run_at(local_of(moment))
    if slot is None:
        raise ScheduleError("at", f"{zone} left out the day of {moment}")
    return slot
