"""What users write in a config module: a schedule that does not know its zone yet.

The zone comes from the entry or the settings. What can be wrong without a zone is found
where it is written: `crontab(minute=61)` raises on its own line.
"""

from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Protocol, TypeAlias, runtime_checkable
from zoneinfo import ZoneInfo

from beatd.errors import ScheduleError
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Span, span_of
from beatd.schedules import words
from beatd.schedules.base import Schedule
from beatd.schedules.cron import Cron
from beatd.schedules.fields import (
    CrontabValue,
    Fields,
    is_drawn,
    read_cron,
    read_crontab,
)
from beatd.schedules.interval import Every, EveryFromLast, EveryRounded
from beatd.schedules.once import Once, moment_of
from beatd.schedules.recurrence import Recurrence, read_recurrence
from beatd.schedules.rrule import RRule
from beatd.schedules.solar import Solar

Seconds: TypeAlias = float | timedelta
"""A length of time as users write it."""

_UNITS = {"weeks": 7 * DAY, "days": DAY, "hours": HOUR, "minutes": MINUTE}


@runtime_checkable
class ScheduleSpec(Protocol):
    """A schedule without its zone."""

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        """Give the schedule in `zone`; `hash_id`, the entry's name, decides `H`."""
        ...

    def in_words(self) -> str:
        """Say it in a few words if there are any, else as it is written."""
        ...

    def describe(self) -> str:
        """Say it in a sentence."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class crontab:
    """Celery's crontab: all of day of week, day of month and month must match.

    Takes what `celery.schedules.crontab` takes; `nowfun` and `app` are ignored.
    """

    minute: CrontabValue = field(default="*", compare=False)
    hour: CrontabValue = field(default="*", compare=False)
    day_of_week: CrontabValue = field(default="*", compare=False)
    day_of_month: CrontabValue = field(default="*", compare=False)
    month_of_year: CrontabValue = field(default="*", compare=False)
    nowfun: InitVar[object] = None
    app: InitVar[object] = None
    fields: Fields = field(init=False)

    def __post_init__(self, nowfun: object, app: object) -> None:
        fields = read_crontab(
            self.minute,
            self.hour,
            self.day_of_week,
            self.day_of_month,
            self.month_of_year,
        )
        object.__setattr__(self, "fields", fields)

    @classmethod
    def from_string(cls, crontab: str) -> "crontab":
        """Read five fields in cron's order: minute, hour, day, month, weekday."""
        texts = crontab.split()
        if len(texts) != 5:
            raise ScheduleError("fields", f"expected 5 fields, got {crontab!r}")
        minute, hour, day_of_month, month_of_year, day_of_week = texts
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def __repr__(self) -> str:
        given = (
            ("minute", self.minute),
            ("hour", self.hour),
            ("day_of_week", self.day_of_week),
            ("day_of_month", self.day_of_month),
            ("month_of_year", self.month_of_year),
        )
        return f"crontab({_arguments(n for n in given if n[1] != '*')})"

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        return _cron_in_zone(self.fields, zone)

    def in_words(self) -> str:
        return words.in_words(self.fields) or repr(self)

    def describe(self) -> str:
        return words.describe(self.fields)


@dataclass(frozen=True, slots=True, repr=False)
class cron:
    """A cron expression of 5, 6 or 7 fields, or an alias such as `@daily`.

    Seconds are the sixth field and years the seventh, unless seconds come first.
    """

    expression: str
    second_at_beginning: bool = False

    def __post_init__(self) -> None:
        self._read("any id will do to find what is wrong")

    def __repr__(self) -> str:
        more = ", second_at_beginning=True" if self.second_at_beginning else ""
        return f"cron({self.expression!r}{more})"

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        fields = self._read(hash_id)
        if is_drawn(self.expression):
            return Cron(fields, zone)
        return _cron_in_zone(fields, zone)

    def in_words(self) -> str:
        ...

    def _read(self, hash_id: str | None) -> Fields:
        return read_cron(
            self.expression,
            hash_id=hash_id,
            second_at_beginning=self.second_at_beginning,
        )


@dataclass(frozen=True, slots=True, init=False, repr=False)
class every:
    """A slot every so often: `every(30)`, `every(timedelta(minutes=5))`, `every(hours=2)`.

    Counted from the Unix epoch plus `offset`, so that all processes agree; with
    `align=False` from the previous run, and with `relative=True` from the previous run
    and rounded down, as Celery does both.
    """

    every: Span
    offset: Span
    align: bool
    relative: bool

    def __init__(
        self,
        every: Seconds | None = None,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        offset: Seconds = 0,
        align: bool = True,
        relative: bool = False,
    ) -> None:
        ...
