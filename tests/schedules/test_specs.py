"""What users write: read, refused, shown and said in words."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab as celery_crontab
from celery.schedules import maybe_schedule

from beatd.errors import ScheduleError
from beatd.instant import HOUR, SECOND
from beatd.schedules import (
    ScheduleSpec,
    cron,
    crontab,
    every,
    once,
    read,
    rrule,
    solar,
)
from tests.schedules.times import at, in_utc, slots


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("*/5 * * * *", cron("*/5 * * * *")),
        ("@daily", cron("@daily")),
        (30, every(30)),
        (0.5, every(timedelta(milliseconds=500))),
        (timedelta(minutes=5), every(minutes=5)),
        (crontab(minute=5), crontab(minute="5")),
    ],
)
def test_what_stands_under_schedule_is_read(value: object, spec: ScheduleSpec) -> None:
    assert read(value) == spec


def test_celerys_relative_rounds_a_plain_interval() -> None:
    assert read(timedelta(hours=1), relative=True) == every(hours=1, relative=True)


@pytest.mark.parametrize("value", [None, True, [1], {"minute": 5}, object])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ScheduleError, match="expected crontab, timedelta or seconds"):
        read(value)


@pytest.mark.parametrize(
    ("write", "field"),
    [
        (lambda: crontab(minute=61), "minute"),
        (lambda: crontab(month_of_year="janx"), "month_of_year"),
        (lambda: crontab.from_string("* * *"), "fields"),
        (lambda: cron("* * * * *  * * *"), "fields"),
        (lambda: every(0), "every"),
        (lambda: every(), "every"),
        (lambda: every(-5), "every"),
        (lambda: every(float("nan")), "every"),
        (lambda: every(minutes=float("inf")), "every"),
        (lambda: every(60, offset=60), "offset"),
        (lambda: every(60, offset=5, align=False), "offset"),
        (lambda: once("tomorrow"), "at"),
        (lambda: crontab(hour=7, nowfun=lambda: datetime.now(UTC)), "nowfun"),
        (lambda: solar("sunset", 1, 1, nowfun=lambda: datetime.now(UTC)), "nowfun"),
        (lambda: cron("0 0 12 * * *", seconds="begin"), "seconds"),
        (lambda: cron("0 0 12 * * *", True, seconds="last"), "seconds"),
        (lambda: solar("moonrise", 0, 0), "event"),
        (lambda: solar("sunrise", 91, 0), "lat"),
        (lambda: rrule("FREQ=DAILY;INTERVAL=0", "2024-01-01"), "rrule"),
        (lambda: rrule("FREQ=DAILY", "soon"), "dtstart"),
    ],
)
def test_what_is_wrong_without_a_zone_raises_where_it_is_written(
    write: Any, field: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        write()

    assert refused.value.field == field


SHOWN = [
    (crontab(minute=0, hour=6), "crontab(minute=0, hour=6)"),
    (crontab(day_of_week="mon-fri"), "crontab(day_of_week='mon-fri')"),
    (cron("*/5 * * * *"), "cron('*/5 * * * *')"),
    (
        cron("0 * * * * *", second_at_beginning=True),
        "cron('0 * * * * *', seconds='first')",
    ),
    (cron("0 * * * * *", seconds="last"), "cron('0 * * * * *', seconds='last')"),
    (every(300, offset=30), "every(minutes=5, offset=30)"),
    (every(0.25), "every(seconds=0.25)"),
    (every(days=7, relative=True), "every(weeks=1, relative=True)"),
    (every(90, align=False), "every(seconds=90, align=False)"),
    (once("2027-01-31T06:00"), "once('2027-01-31 06:00:00')"),
    (solar("sunset", 52.5, 13.4), "solar(event='sunset', lat=52.5, lon=13.4)"),
    (
        rrule("FREQ=DAILY", "2027-01-31"),
        "rrule('FREQ=DAILY', dtstart='2027-01-31 00:00:00')",
    ),
]


@pytest.mark.parametrize(("spec", "text"), SHOWN)
def test_a_spec_is_shown_as_it_can_be_written(spec: ScheduleSpec, text: str) -> None:
    names = {
        factory.__name__: factory
        for factory in (crontab, cron, every, once, solar, rrule)
    }

    assert repr(spec) == text
    assert eval(text, names) == spec


@pytest.mark.parametrize(
    "spec",
    [
        crontab(),
        cron("@daily"),
        every(60),
        once("2027-01-01"),
        rrule("FREQ=DAILY", "2027-01-01"),
        solar("sunset", 0, 0),
    ],
)
def test_celerys_beat_is_told_whose_schedule_it_is(spec: Any) -> None:
    with pytest.raises(AttributeError) as caught:
        maybe_schedule(spec, app=None)

    assert str(caught.value) == (
        f"{spec!r} is a schedule of beatd's: 'app' cannot be set; Celery's beat cannot"
        " use it, it needs one of celery.schedules"
    )


def test_crontab_replaces_celerys() -> None:
    theirs = celery_crontab("*/15", [1, 2], "mon-fri", "1-7", "jan,jul")
    ours = crontab(
        theirs._orig_minute,
        theirs._orig_hour,
        theirs._orig_day_of_week,
        theirs._orig_day_of_month,
        theirs._orig_month_of_year,
        nowfun=None,
        app=None,
    )

    assert ours == crontab("*/15", {1, 2}, "mon-fri", "1-7", "1, 7")
    assert crontab.from_string("30 7 1 2 3") == crontab(30, 7, 3, 1, 2)


WORDS = [
    (cron("* * * * *"), "every minute", "every minute"),
    (cron("*/5 * * * *"), "every 5 min", "every 5 minutes"),
    (cron("0 * * * *"), "hourly", "at minute 0 of every hour"),
    (cron("30 * * * *"), "hourly at :30", "at minute 30 of every hour"),
    (
        cron("15 */6 * * *"),
        "every 6 h at :15",
        "at 00:15, 06:15, 12:15 and 18:15 every day",
    ),
    (cron("30 2 * * *"), "daily 02:30", "at 02:30 every day"),
    (cron("0 8,20 * * *"), "daily 08:00, 20:00", "at 08:00 and 20:00 every day"),
    (
        cron("30 2 * * 1-5"),
        "Mon-Fri 02:30",
        "at 02:30 on every weekday from Monday to Friday",
    ),
    (cron("0 4 * * sun"), "weekly Sun 04:00", "at 04:00 on every Sunday"),
    (
        cron("0 4 * * mon,thu"),
        "Mon, Thu 04:00",
        "at 04:00 on every Monday and Thursday",
    ),
    (cron("0 6 1 * *"), "monthly 1st 06:00", "at 06:00 on the 1st of every month"),
    (
        cron("0 6 L * *"),
        "monthly last day 06:00",
        "at 06:00 on the last day of every month",
    ),
    (cron("0 0 1 1 *"), "yearly 1 Jan 00:00", "at 00:00 on the 1st of January"),
    (
        cron("0 0 13 * 5"),
        "0 0 13 * 5",
        "at 00:00 on the 13th of every month and on every Friday",
    ),
    (
        crontab(0, 0, day_of_month=13, day_of_week=5),
        "crontab(minute=0, hour=0, day_of_week=5, day_of_month=13)",
        "at 00:00 on the 13th of every month if that is Friday",
    ),
    (
        cron("0 9 * 6-8 1#2,L5"),
        "0 9 * 6-8 1#2,L5",
        "at 09:00 on the 2nd Monday and the last Friday in June to August",
    ),
    (
        cron("*/15 9-17 15W * *"),
        "*/15 9-17 15W * *",
        "every 15 minutes of hours 9 to 17 on the weekday nearest to the 15th"
        " of every month",
    ),
    (
        cron("5,10,50 0,12 * * *"),
        "5,10,50 0,12 * * *",
        "at minutes 5, 10 and 50 of hours 0 and 12",
    ),
    (cron("0 0 1-31 * 5"), "0 0 1-31 * 5", "at 00:00 every day"),
    (cron("* * * * * */10"), "* * * * * */10", "every 10 seconds"),
    (
        cron("0 12 * * * 30 2030"),
        "0 12 * * * 30 2030",
        "at 12:00:30 every day in 2030",
    ),
    (cron("H 3 * * *"), "H 3 * * *", "by 'H 3 * * *', drawn from the entry's name"),
    (every(2), "every 2 s", "every 2 s, counted from 1970-01-01 00:00 UTC"),
    (
        every(minutes=5, offset=30),
        "every 5 min + 30 s",
        "every 5 min, counted from 1970-01-01 00:00 UTC and 30 s",
    ),
    (every(90, align=False), "every 90 s from last", "every 90 s from the last run on"),
    (
        every(days=1, relative=True),
        "every 1 d from last",
        "every 1 d from the last run on, rounded down as Celery does",
    ),
    (once("2027-01-31T06:00"), "once 2027-01-31 06:00", "once, at 2027-01-31 06:00:00"),
    (
        once("2027-01-31T06:00Z"),
        "once 2027-01-31 06:00 UTC",
        "once, at 2027-01-31 06:00:00+00:00",
    ),
    (
        solar("dawn_civil", 52.5, -13.4),
        "dawn_civil 52.5, -13.4",
        "at dawn civil at latitude 52.5, longitude -13.4",
    ),
]


@pytest.mark.parametrize(("spec", "short", "long"), WORDS)
def test_a_spec_is_said_in_words(spec: ScheduleSpec, short: str, long: str) -> None:
    assert spec.in_words() == short
    assert spec.describe() == long


def test_intervals_count_from_the_epoch_and_need_no_state() -> None:
    schedule = in_utc(every(hours=2, offset=timedelta(minutes=5)))

    assert slots(schedule, "2024-01-01T01:00Z", 2) == [
        "2024-01-01 02:05",
        "2024-01-01 04:05",
    ]


def test_unaligned_intervals_count_from_the_run() -> None:
    schedule, run = in_utc(every(90, align=False)), at("2024-01-01T01:00:07Z")

    assert schedule.next_after(run) == run + 90 * SECOND
    assert schedule.last_until(run + HOUR, run) == run + HOUR
    assert schedule.last_until(run + 89 * SECOND, run) is None


def test_a_moment_with_an_offset_needs_no_zone() -> None:
    schedule = once("2024-05-01T12:00+02:00").in_zone(ZoneInfo("Asia/Tokyo"))

    assert slots(schedule, "2024-01-01T00:00Z", 2) == ["2024-05-01 10:00"]


def test_a_moment_on_a_day_that_was_left_out_is_refused() -> None:
    with pytest.raises(
        ScheduleError, match="at: Pacific/Apia left out the day of 2011"
    ):
        once("2011-12-30T09:00").in_zone(ZoneInfo("Pacific/Apia"))


def test_polar_nights_are_passed_over() -> None:
    tromso = in_utc(solar("sunrise", 69.65, 18.96))
    slot = tromso.next_after(at("2024-12-01T00:00Z"))

    assert slot is not None
    assert at("2025-01-14T00:00Z") < slot < at("2025-01-17T00:00Z")
    assert tromso.last_until(slot, at("2024-12-01T00:00Z")) == slot


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=YEARLY;BYMONTH=4;BYMONTHDAY=31",
        "FREQ=WEEKLY;BYDAY=MO;BYSETPOS=2",
        "FREQ=DAILY;UNTIL=20230101T000000Z",
        "FREQ=SECONDLY;BYSETPOS=1",
        "FREQ=HOURLY;BYSETPOS=2",
        "FREQ=DAILY;BYDAY=1MO",
        "FREQ=DAILY;COUNT=10001",
    ],
)
def test_a_rule_that_never_occurs_or_means_nothing_is_refused(rule: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        rrule(rule, "2024-01-01T00:00").in_zone(ZoneInfo("UTC"))

    assert refused.value.field == "rrule"


def test_hours_of_a_rule_are_elapsed_and_its_parts_filter_the_clock() -> None:
    schedule = rrule("FREQ=MINUTELY;INTERVAL=30;BYHOUR=1", "2024-11-01T00:00").in_zone(
        ZoneInfo("America/New_York")
    )

    assert slots(schedule, "2024-11-03T04:00Z", 5) == [
        *("2024-11-03 05:00", "2024-11-03 05:30", "2024-11-03 06:00"),
        *("2024-11-03 06:30", "2024-11-04 06:00"),
    ]


def test_a_count_counts_only_times_that_exist() -> None:
    schedule = rrule("FREQ=DAILY;COUNT=3", "2024-03-09T02:30").in_zone(
        ZoneInfo("America/New_York")
    )

    assert slots(schedule, "2024-03-01T00:00Z", 5) == [
        *("2024-03-09 07:30", "2024-03-11 06:30", "2024-03-12 06:30"),
    ]


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        (cron("0 0 12 * * *"), "at 12:00 every day"),
        (cron("0 0 12 1 * * 2030"), "at 12:00 on the 1st of every month in 2030"),
        (cron("* * * * * *"), None),  # the same
        (cron("* * * * *"), None),
        (cron("0 0 12 * * *", seconds="last"), None),
        (cron("0 0 12 * * *", seconds="first"), None),
        (cron("0 0 12 * * 30"), None),
        (cron("@daily"), None),
        (cron("H H 12 * * *"), None),
    ],
)
def test_six_fields_may_be_meant_with_the_seconds_first(
    spec: cron, other: str | None
) -> None:
    found = spec.other_reading

    assert (found.describe() if found else None) == other


def test_both_ways_to_say_that_seconds_are_first_are_one() -> None:
    plain = cron("0 0 12 * * *")

    assert cron("0 0 12 * * *", seconds="first") == cron("0 0 12 * * *", True)
    assert cron("0 0 12 * * *", seconds="last") == plain
    assert cron("0 0 12 * * *", seconds="first") != plain


def test_what_has_a_meaning_only_with_the_seconds_first_says_so() -> None:
    with pytest.raises(ScheduleError) as refused:
        cron("0 30 9 * * *")

    assert str(refused.value).startswith("hour: cannot read '30'")
    assert str(refused.value).endswith(
        "; with the seconds first, write cron('0 30 9 * * *', seconds='first')"
    )
