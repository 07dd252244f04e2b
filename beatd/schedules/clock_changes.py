"""What the next clock change of a zone means for a schedule, in words for people."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from beatd.instant import DAY, Instant, Span, datetime_of
from beatd.schedules.base import Schedule
from beatd.schedules.cron import Cron
from beatd.schedules.days import DayRule, Days
from beatd.schedules.fields import WEEKDAYS
from beatd.schedules.interval import Every, EveryFromLast, EveryRounded
from beatd.schedules.rrule import RRule
from beatd.schedules.solar import Solar
from beatd.schedules.zones import Local, local_clock

_LOOK_AHEAD: Span = 366 * DAY
_MONDAY_TO_FRIDAY = DayRule(weekdays=0b011_1110)


@dataclass(frozen=True, slots=True)
class ClockChange:
    """A clock change, and what it means for one schedule."""

    instant: Instant
    is_gap: bool
    """Whether the clock goes forward and leaves times out; else it repeats them."""
    first: datetime
    """The first local time that is left out or comes twice; naive."""
    end: datetime
    """The local time after the last of them; naive."""
    affects: bool
    """Whether a time that the schedule names is left out or comes twice."""
    note: str


def clock_change_note(
    schedule: Schedule, zone: ZoneInfo, after: Instant
) -> ClockChange | None:
    """Return what `schedule` does at the next clock change within a year, if any."""
    change = local_clock(zone).next_change(after, after + _LOOK_AHEAD)
    if change is None:
        return None
    reading = change.start + change.offset
    first, end = sorted((change.unread, reading))
    is_gap = change.unread < reading
    affects = False
    if isinstance(schedule, Cron):
        named = _named(schedule, first, end)
        affects = bool(named) and not schedule.wildcard
        if not named:
            note = f"{_why_not(schedule, first, end)}, nothing to do"
        elif schedule.wildcard:
            note = "follows the clock: " + (
                "skips" if is_gap else "runs in both passes of"
            )
            note += f" {_clock(first)}-{_clock(end)}"
        elif is_gap:
            note = _gap_note(schedule, named)
        else:
            note = _repeat_note(schedule, named)
    else:
        note = _note_without_cron(schedule)
    return ClockChange(
        instant=change.start,
        is_gap=is_gap,
        first=_naive(first),
        end=_naive(end),
        affects=affects,
        note=note,
    )


def _named(schedule: Cron, first: Local, end: Local) -> list[Local]:
    """Return the first few local times in `[first, end)` that the schedule names."""
    named: list[Local] = []
    local = schedule.times.at_or_after(first)
    while local is not None and local < end and len(named) < 4:
        named.append(local)
        local = schedule.times.at_or_after(local + 1)
    return named


def _gap_note(schedule: Cron, named: list[Local]) -> str:
    slot = local_clock(schedule.zone).run_at(named[0])
    if slot is None:
        return f"{_naive(named[0]):%-d %b %Y} does not exist in {schedule.zone}: no run"
    times, runs = _times(named), f"{datetime_of(slot, schedule.zone):%H:%M %Z}"
    if len(named) == 1:
        return (
            f"{times} does not exist that day in {schedule.zone};"
            f" it runs at {runs} instead"
        )
    return (
        f"{times} do not exist that day in {schedule.zone};"
        f" one run at {runs} stands for them"
    )


def _repeat_note(schedule: Cron, named: list[Local]) -> str:
    slot = local_clock(schedule.zone).run_at(named[0])
    assert slot is not None  # a time that comes twice exists
    runs = f"{datetime_of(slot, schedule.zone):%H:%M %Z}"
    if len(named) == 1:
        return (
            f"{_times(named)} comes twice that day in {schedule.zone};"
            f" it runs the first time, at {runs}"
        )
    return (
        f"{_times(named)} come twice that day in {schedule.zone};"
        f" they run the first time, from {runs}"
    )


def _why_not(schedule: Cron, first: Local, end: Local) -> str:
    """Return why the schedule names no time from `first` to `end`."""
    day, rule = first // DAY, schedule.fields.dates
    if Days(rule, schedule.fields.years).from_day(day) == day:
        return f"no run from {_clock(first)} to {_clock(end)}"
    if rule == _MONDAY_TO_FRIDAY:
        return "not on a weekday"
    weekday = (day + 4) % 7  # 1970-01-01 was a Thursday
    if rule == DayRule(weekdays=rule.weekdays):
        return f"not on a {WEEKDAYS[weekday]}"
    return f"not on {_naive(first):%-d %b}"


def _note_without_cron(schedule: Schedule) -> str:
    if isinstance(schedule, Every | EveryFromLast | EveryRounded):
        return "counts elapsed time, nothing to do"
    if isinstance(schedule, Solar):
        return "follows the sun, nothing to do"
    if isinstance(schedule, RRule):
        return "times that do not exist are left out, times that come twice run once"
    return "a single slot, nothing to do"


def _times(named: list[Local]) -> str:
    if len(named) == 1:
        return _clock(named[0])
    return f"{', '.join(map(_clock, named[:-1]))} and {_clock(named[-1])}"


def _clock(local: Local) -> str:
    return f"{_naive(local):%H:%M}"


def _naive(local: Local) -> datetime:
    return datetime_of(local).replace(tzinfo=None)
