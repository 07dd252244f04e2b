"""Laws that hold for every schedule, and a slow reading of cron to compare with."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TypeAlias
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatd.instant import DAY, HOUR, MINUTE, Instant, datetime_of
from beatd.schedules import ScheduleSpec, cron, crontab, every, once, rrule, solar
from beatd.schedules.base import STEPS, Schedule, slots_between
from beatd.schedules.interval import EveryRounded
from beatd.schedules.rrule import RRule
from beatd.schedules.solar import Solar
from tests.schedules.times import at

CLOCK_CHANGES = [
    ("America/New_York", "2024-03-10T07:00Z"),
    ("America/New_York", "2024-11-03T06:00Z"),
    ("Europe/Berlin", "2027-03-28T01:00Z"),
    ("Europe/Berlin", "2027-10-31T01:00Z"),
    ("Europe/Dublin", "2024-10-27T01:00Z"),
    ("Australia/Lord_Howe", "2024-04-06T15:00Z"),
    ("Australia/Lord_Howe", "2024-10-05T15:30Z"),
    ("America/St_Johns", "2006-04-02T03:31Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00Z"),
    ("Antarctica/Troll", "2024-03-31T01:00Z"),
    ("Antarctica/Troll", "2024-10-27T01:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00Z"),
    ("Africa/Cairo", "2010-08-10T22:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),
    ("Pacific/Kiritimati", "1994-12-31T10:00Z"),
]


@dataclass(frozen=True)
class Expression:
    """A cron expression, and what it says in the plainest form."""

    text: str
    matches: Callable[[datetime], bool]
    wildcard: bool


Field: TypeAlias = tuple[str, set[int]]
"""The text of one field, and the values that it stands for."""


def listed(low: int, high: int) -> st.SearchStrategy[Field]:
    return st.sets(st.integers(low, high), min_size=1, max_size=4).map(
        lambda numbers: (",".join(map(str, numbers)), numbers)
    )


def field(low: int, high: int) -> st.SearchStrategy[Field]:
    everything = st.just(("*", set(range(low, high + 1))))
    steps = st.integers(1, high).map(
        lambda n: (f"*/{n}", set(range(low, high + 1, n))),
    )
    ranges = st.lists(st.integers(low, high), min_size=2, max_size=2).map(
        lambda ends: (f"{min(ends)}-{max(ends)}", set(range(min(ends), max(ends) + 1)))
    )
    return st.one_of(everything, steps, ranges, listed(low, high))


# January is always among them: no day of the month is refused.
MONTHS = st.sampled_from(
    [
        ("*", set(range(1, 13))),
        ("*/2", {1, 3, 5, 7, 9, 11}),
        ("1-6", {1, 2, 3, 4, 5, 6}),
        ("1,8,10,11,12", {1, 8, 10, 11, 12}),
    ]
)


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    minute, minutes = draw(field(0, 59))
    hour, hours = draw(st.one_of(field(0, 23), listed(0, 3)))
    day, days = draw(field(1, 31))
    month, months = draw(MONTHS)
    weekday, weekdays = draw(field(0, 6))
    both = "*" in (day[0], weekday[0])

    def matches(local: datetime) -> bool:
        on_day, on_weekday = local.day in days, local.isoweekday() % 7 in weekdays
        return (
            local.minute in minutes
            and local.hour in hours
            and local.month in months
            and (on_day and on_weekday if both else on_day or on_weekday)
        )

    text = f"{minute} {hour} {day} {month} {weekday}"
    return Expression(text, matches, "*" in (minute[0], hour[0]))


def slow_slots(
    expression: Expression, zone: ZoneInfo, start: Instant, end: Instant
) -> list[Instant]:
    """Watch the clock of `zone` minute by minute, from two days before `start`."""
    slots = []
    shown = datetime_of(start - 2 * DAY, zone).replace(tzinfo=None)
    for instant in range(start - 2 * DAY, end + 1, MINUTE):
        local = datetime_of(instant, zone).replace(tzinfo=None)
        if expression.wildcard:
            due = expression.matches(local)
        else:
            due = any(
                expression.matches(named) and exists(named.date(), zone)
                for named in minutes_between(shown, local)
            )
        shown = max(shown, local)
        if due and instant > start:
            slots.append(instant)
    return slots


def minutes_between(after: datetime, until: datetime) -> list[datetime]:
    return [
        after + timedelta(minutes=n + 1)
        for n in range(int((until - after) / timedelta(minutes=1)))
    ]


def exists(day: date, zone: ZoneInfo) -> bool:
    noon = datetime.combine(day, time(12), zone)
    return datetime_of(at(noon.isoformat()), zone).date() == day


Spot: TypeAlias = tuple[ZoneInfo, Instant]


@st.composite
def spots(draw: st.DrawFn) -> Spot:
    """A zone and a full minute shortly before or after one of its clock changes."""
    zone, change = draw(st.sampled_from(CLOCK_CHANGES))
    minutes = draw(st.one_of(st.integers(-20 * 60, 0), st.integers(0, 60)))
    return ZoneInfo(zone), at(change) + minutes * MINUTE


@settings(max_examples=60, deadline=None)
@given(expressions(), spots())
def test_cron_names_what_a_watcher_of_the_clock_sees(
    expression: Expression, spot: Spot
) -> None:
    zone, start = spot
    end = start + DAY + 6 * HOUR
    schedule = cron(expression.text).in_zone(zone)

    slots = []
    slot = schedule.next_after(start)
    while slot is not None and slot <= end:
        slots.append(slot)
        slot = schedule.next_after(slot)

    assert slots == slow_slots(expression, zone, start, end)
    for number, first in enumerate(slots):
        assert schedule.count(first, slots[-1]) == len(slots) - number


@settings(max_examples=150, deadline=None)
@given(expressions(), spots(), st.integers(0, 59_999))
def test_the_next_slot_is_later_and_the_last_until_it(
    expression: Expression, spot: Spot, milliseconds: int
) -> None:
    zone, start = spot
    start += milliseconds
    schedule = cron(expression.text).in_zone(zone)
    slot = schedule.next_after(start)

    assert slot is not None
    assert slot > start
    assert schedule.last_until(slot, start) == slot
    assert schedule.last_until(slot - 1, start) is None
    assert schedule.last_until(slot + MINUTE - 1, start) == slot


SPECS: list[ScheduleSpec] = [
    cron("*/7 * * * *"),
    cron("30 2 * * *"),
    cron("H H(1-4) * * *"),
    cron("R * * * *"),
    cron("15 4 1,L * *"),
    cron("0 0 15W * 5#2"),
    cron("*/20 30 1 * * 1-5", second_at_beginning=True),
    crontab(minute="*/15", hour=[1, 2, 3], day_of_week="mon-fri"),
    every(90),
    every(3600, offset=600),
    every(90, align=False),
    every(5400, relative=True),
    every(days=1, relative=True),
    once("2024-03-10T02:30"),
    solar("sunrise", 69.65, 18.96),
    solar("solar_noon", -33.9, 151.2),
    rrule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "2020-01-01T00:00"),
    rrule("FREQ=MINUTELY;INTERVAL=7;BYHOUR=1,2", "2020-01-01T00:00"),
    rrule("FREQ=WEEKLY;BYDAY=SU,MO;COUNT=300", "2021-01-03T01:30"),
    rrule("FREQ=MONTHLY;BYDAY=-1FR", "2020-01-31T23:59"),
]


def in_new_york(spec: ScheduleSpec) -> Schedule:
    return spec.in_zone(ZoneInfo("America/New_York"), hash_id="report")


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_slots_are_counted_without_a_miss(spec: ScheduleSpec) -> None:
    schedule = in_new_york(spec)
    first = schedule.next_after(at("2023-02-27T12:00Z"))
    assert first is not None
    slots = list(islice(slots_between(schedule, first, first + 700 * DAY), 30_000))
    for last in {slots[0], slots[len(slots) // 3], slots[-1]}:
        number = slots.index(last) + 1
        steps = isinstance(schedule, EveryRounded | RRule | Solar)

        assert schedule.count(first, last) == (min(number, STEPS) if steps else number)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
@pytest.mark.parametrize("since", ["2024-03-09T12:00Z", "2024-11-02T12:00Z"])
def test_the_last_slot_is_where_the_next_ones_lead(
    spec: ScheduleSpec, since: str
) -> None:
    schedule, start = in_new_york(spec), at(since)
    for end in (start + HOUR, start + DAY, start + 3 * DAY + 17):
        last, slot = None, schedule.next_after(start)
        while slot is not None and slot <= end:
            last, slot = slot, schedule.next_after(slot)

        assert schedule.last_until(end, start) == last


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_pickled_schedule_is_the_same_schedule(spec: ScheduleSpec) -> None:
    schedule, start = in_new_york(spec), at("2024-03-09T12:00Z")
    copy = pickle.loads(pickle.dumps(schedule))

    assert copy == schedule
    assert hash(copy) == hash(schedule)
    assert copy.fingerprint == schedule.fingerprint
    assert copy.next_after(start) == schedule.next_after(start)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_different_schedules_have_different_fingerprints() -> None:
    fingerprints = {in_new_york(spec).fingerprint for spec in SPECS}

    assert len(fingerprints) == len(SPECS)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
@pytest.mark.parametrize("instant", [-(10**18), -(10**13), 0, 10**14, 10**18])
def test_no_instant_is_too_far_to_be_asked_about(
    spec: ScheduleSpec, instant: Instant
) -> None:
    schedule = in_new_york(spec)
    slot = schedule.next_after(instant)

    assert slot is None or slot > instant
    assert schedule.last_until(instant, instant) is None
