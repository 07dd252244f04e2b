"""Schedules of Celery's, and of packages around it, as those of beatd.

beatd asks a schedule for its slots ahead of time, by a pure function; Celery's are
asked whether they are due now. So a class that derives from one of Celery's, with its
own `is_due` or `remaining_estimate`, cannot be asked: never is it read as its base.
Classes are told by their names, as importing Celery takes half a second.
"""

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from beatd import schedules
from beatd.errors import ScheduleError
from beatd.schedules import ScheduleSpec
from beatd.schedules.base import Schedule
from beatd.schedules.specs import KINDS, check_clock
from beatd.schedules.zones import zone_of


@dataclass(frozen=True, slots=True)
class Zoned:
    """A schedule that brings its zone: that of its entry does not count."""

    spec: ScheduleSpec
    zone: ZoneInfo

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        """Return the schedule in its own zone."""
        return self.spec.in_zone(self.zone, hash_id=hash_id)

    def in_words(self) -> str:
        """Return the schedule in a few words, without its zone."""
        return self.spec.in_words()

    def describe(self) -> str:
        """Return the schedule in a sentence, with its zone."""
        return f"{self.spec.describe()}, {self.zone}"


def spec_of_theirs(value: object, *, relative: bool) -> ScheduleSpec | None:
    """Return the schedule that one of Celery's means; None if it is none of theirs.

    Raises ScheduleError for one whose rules are not known here.
    """
    if isinstance(value, KINDS):
        return None
    theirs: Any = value
    match _name_of(type(value)):
        case "celery.schedules", "crontab":
            check_clock(theirs.nowfun)
            return _crontab_of(theirs)
        case "celery.schedules", "solar":
            check_clock(theirs.nowfun)
            return schedules.solar(theirs.event, theirs.lat, theirs.lon)
        case "celery.schedules", "schedule":
            check_clock(theirs.nowfun)
            rounded = relative or theirs.relative
            return schedules.read(theirs.run_every, relative=rounded)
        case "django_celery_beat.tzcrontab", "TzAwareCrontab":
            return Zoned(_crontab_of(theirs), zone_of(str(theirs.tz)))
        case "django_celery_beat.clockedschedule", "clocked":
            return schedules.once(theirs.clocked_time)
    if any(_name_of(base) == _BASE for base in type(value).__mro__):
        text = "has rules of its own, which beatd cannot ask ahead of time"
        hint = "write them as crontab, every, rrule or once of beatd.schedules"
        raise ScheduleError("schedule", f"{type(value).__name__} {text}; {hint}")
    return None


_BASE = ("celery.schedules", "BaseSchedule")


def _name_of(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__name__


def _crontab_of(theirs: Any) -> schedules.crontab:
    return schedules.crontab(
        theirs._orig_minute,
        theirs._orig_hour,
        theirs._orig_day_of_week,
        theirs._orig_day_of_month,
        theirs._orig_month_of_year,
    )
