"""What users write in a config module: a schedule that has no zone yet.

The zone comes from the entry or the settings. Errors that do not depend on it are
raised where the schedule is written: `crontab(minute=61)` raises on its own line.
"""

from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol, TypeAlias
from zoneinfo import ZoneInfo

from beatd.bounds import LONGEST, seconds_of
from beatd.errors import ScheduleError
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Span, span_of
from beatd.schedules import words
from beatd.schedules.base import Schedule
from beatd.schedules.cron import Cron
from beatd.schedules.fields import (
    REMEMBERED,
    CrontabValue,
    Fields,
    check_drawn,
    is_drawn,
    read_cron,
    read_crontab,
)
from beatd.schedules.fixed import fix
from beatd.schedules.interval import Every, EveryFromLast, EveryRounded
from beatd.schedules.once import Once, moment_of
from beatd.schedules.recurrence import Recurrence, read_recurrence
from beatd.schedules.rrule import RRule
from beatd.schedules.solar import Solar
from beatd.text import quoted

Length: TypeAlias = float | timedelta
"""A length of time as users write it."""

_UNITS = {"weeks": 7 * DAY, "days": DAY, "hours": HOUR, "minutes": MINUTE}


class ScheduleSpec(Protocol):
    """A schedule without its zone."""

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        """Return the schedule in `zone`; `hash_id`, the entry's name, decides `H`."""
        ...

    def in_words(self) -> str:
        """Return the schedule in a few words if there are any, else as written."""
        ...

    def describe(self) -> str:
        """Return the schedule in a sentence."""
        ...


def check_clock(nowfun: object) -> None:
    """Raise ScheduleError if a schedule of Celery's has a clock of its own."""
    if nowfun is not None:
        text = "it has a clock of its own, which beatd cannot ask ahead of time"
        hint = "leave nowfun out; 'timezone' in the entry says in which zone it runs"
        raise ScheduleError("nowfun", f"{text}; {hint}")


@dataclass(frozen=True, slots=True, repr=False)
class crontab:
    """Celery's crontab: all of day of week, day of month and month must match.

    Takes what `celery.schedules.crontab` takes; `app` is ignored, and `nowfun` refused.
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
        check_clock(nowfun)
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

    Seconds are the sixth field and years the seventh, unless seconds come first:
    `seconds="first"`, or croniter's `second_at_beginning=True`. `seconds="last"` says
    what is so anyway, and that it is meant.
    """

    expression: str
    second_at_beginning: bool = False
    seconds: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.seconds not in (None, "first", "last"):
            given = quoted(self.seconds)
            raise ScheduleError("seconds", f"expected 'first' or 'last', got {given}")
        if self.seconds == "last" and self.second_at_beginning:
            raise ScheduleError(
                "seconds", "'last' and second_at_beginning are two ways"
            )
        if self.seconds == "first":
            object.__setattr__(self, "second_at_beginning", True)
        try:
            self._check()
        except ScheduleError as error:
            if self._with_seconds_first() is None:
                raise
            way = f"with the seconds first, write cron({self.expression!r}, "
            text = f"{error.problem}; {way}seconds='first')"
            raise ScheduleError(error.field, text) from None

    def _check(self) -> None:
        if isinstance(self.expression, str) and is_drawn(self.expression):
            check_drawn(self.expression, second_at_beginning=self.second_at_beginning)
        else:
            self._read(None)

    def __repr__(self) -> str:
        seconds = "first" if self.second_at_beginning else self.seconds
        more = f", seconds={seconds!r}" if seconds else ""
        return f"cron({self.expression!r}{more})"

    @property
    def other_reading(self) -> "cron | None":
        """The schedule if the seconds were first, where nobody says where they are.

        None if somebody does, or if that makes no difference or no schedule.
        """
        other = self._with_seconds_first()
        return None if other is None or other._read(None) == self._read(None) else other

    def _with_seconds_first(self) -> "cron | None":
        text = self.expression
        if self.seconds or self.second_at_beginning or not isinstance(text, str):
            return None
        if is_drawn(text) or len(text.split()) < 6:
            return None
        try:
            return cron(text, seconds="first")
        except ScheduleError:
            return None

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        fields = self._read(hash_id)
        if is_drawn(self.expression):
            return Cron(fields, zone)
        return _cron_in_zone(fields, zone)

    def in_words(self) -> str:
        if is_drawn(self.expression):
            return self.expression
        return words.in_words(self._read(None)) or self.expression

    def describe(self) -> str:
        if is_drawn(self.expression):
            return f"by {self.expression!r}, drawn from the entry's name"
        return words.describe(self._read(None))

    def _read(self, hash_id: str | None) -> Fields:
        return read_cron(
            self.expression,
            hash_id=hash_id,
            second_at_beginning=self.second_at_beginning,
        )


@dataclass(frozen=True, slots=True, init=False, repr=False)
class every:
    """An interval: `every(30)`, `every(timedelta(days=1))`, `every(hours=2)`.

    Slots are counted from the Unix epoch plus `offset`, so that all processes agree;
    with `align=False` from the previous run; with `relative=True` from the previous run
    and rounded down. Celery has the last two.
    """

    every: Span
    offset: Span
    align: bool
    relative: bool

    def __init__(
        self,
        every: Length = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        offset: Length = 0,
        align: bool = True,
        relative: bool = False,
    ) -> None:
        parts = ((weeks, 7 * DAY), (days, DAY), (hours, HOUR), (minutes, MINUTE))
        length = _span("every", every) + _span("every", seconds)
        length += sum(_span("every", number) * unit // SECOND for number, unit in parts)
        put = object.__setattr__
        put(self, "every", length)
        put(self, "offset", _span("offset", offset))
        put(self, "align", align and not relative)
        put(self, "relative", relative)
        Every(self.every, self.offset)
        if self.offset and not self.align:
            raise ScheduleError("offset", "counts from the epoch: it needs align=True")

    def __repr__(self) -> str:
        unit, size = next(
            ((name, size) for name, size in _UNITS.items() if self.every % size == 0),
            ("seconds", SECOND),
        )
        given: list[tuple[str, object]] = [(unit, _number(self.every, size))]
        if self.offset:
            given.append(("offset", _number(self.offset, SECOND)))
        if self.relative:
            given.append(("relative", True))
        elif not self.align:
            given.append(("align", False))
        return f"every({_arguments(given)})"

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        if self.relative:
            return EveryRounded(self.every, zone)
        if self.align:
            return Every(self.every, self.offset)
        return EveryFromLast(self.every)

    def in_words(self) -> str:
        text = f"every {words.length(self.every)}"
        if self.offset:
            return f"{text} + {words.length(self.offset)}"
        return text if self.align else f"{text} from last"

    def describe(self) -> str:
        text = f"every {words.length(self.every)}"
        if self.relative:
            return f"{text} from the last run on, rounded down as Celery does"
        if not self.align:
            return f"{text} from the last run on"
        offset = f" and {words.length(self.offset)}" if self.offset else ""
        return f"{text}, counted from 1970-01-01 00:00 UTC{offset}"


@dataclass(frozen=True, slots=True, init=False)
class once:
    """A single slot, at an ISO 8601 date and time; local unless it has an offset."""

    at: datetime

    def __init__(self, at: datetime | str) -> None:
        object.__setattr__(self, "at", moment_of("at", at))

    def __repr__(self) -> str:
        return f"once({str(self.at)!r})"

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        return Once(self.at, zone)

    def in_words(self) -> str:
        return f"once {self.at:%Y-%m-%d %H:%M %Z}".rstrip()

    def describe(self) -> str:
        return f"once, at {self.at}"


@dataclass(frozen=True, slots=True)
class solar:
    """Each day's sunrise, sunset, noon, dawn or dusk at a place, as Celery's solar."""

    event: str
    lat: float
    lon: float
    nowfun: InitVar[object] = None
    app: InitVar[object] = None

    def __post_init__(self, nowfun: object, app: object) -> None:
        check_clock(nowfun)
        Solar(self.event, self.lat, self.lon)

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        return Solar(self.event, self.lat, self.lon)

    def in_words(self) -> str:
        return f"{self.event} {self.lat:g}, {self.lon:g}"

    def describe(self) -> str:
        event = self.event.replace("_", " ")
        return f"at {event} at latitude {self.lat:g}, longitude {self.lon:g}"


@dataclass(frozen=True, slots=True, init=False)
class rrule:
    """An RFC 5545 recurrence rule, from a first instance on; local times."""

    rule: Recurrence
    dtstart: datetime

    def __init__(self, rule: str, dtstart: datetime | str) -> None:
        object.__setattr__(self, "rule", read_recurrence(rule))
        object.__setattr__(self, "dtstart", moment_of("dtstart", dtstart))

    def __repr__(self) -> str:
        return f"rrule({self.rule.text!r}, dtstart={str(self.dtstart)!r})"

    def in_zone(self, zone: ZoneInfo, *, hash_id: str | None = None) -> Schedule:
        return RRule(self.rule, self.dtstart, zone)

    def in_words(self) -> str:
        return self.rule.text

    def describe(self) -> str:
        return f"by the rule {self.rule.text}, first at {self.dtstart}"


KINDS = (crontab, cron, every, once, solar, rrule)
"""The classes of beatd's own schedules."""

for _kind in KINDS:
    fix(_kind)


def read(value: object, *, relative: bool = False) -> ScheduleSpec:
    """Return the schedule that stands under `schedule` in an entry.

    Text is a cron expression; a number of seconds or a timedelta is an interval, and
    `relative` rounds its slots as Celery does.
    """
    if isinstance(value, KINDS):
        return value
    if isinstance(value, str):
        return _cron_of(value)
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        return every(value, relative=relative)
    raise ScheduleError(
        "schedule", f"expected crontab, timedelta or seconds, got {quoted(value)}"
    )


# Many entries have equal schedules: each is read once, and is in memory once.
@lru_cache(maxsize=REMEMBERED)
def _cron_of(expression: str) -> cron:
    return cron(expression)


@lru_cache(maxsize=REMEMBERED)
def _cron_in_zone(fields: Fields, zone: ZoneInfo) -> Cron:
    return Cron(fields, zone)


def _span(name: str, value: Length) -> Span:
    # Negative numbers are refused where it is known what they add up to.
    try:
        return span_of(seconds_of(value, -LONGEST))
    except ValueError as error:
        raise ScheduleError(name, str(error)) from None


def _number(span: Span, unit: Span) -> float:
    return span // unit if span % unit == 0 else span / unit


def _arguments(given: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given)
