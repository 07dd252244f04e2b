"""Reading expressions: croniter's traps, what is refused, and what a search costs."""

import cProfile
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from beatd.errors import ScheduleError
from beatd.instant import DAY
from beatd.schedules import cron, crontab
from beatd.schedules.fields import read_cron
from tests.schedules.times import at, cron_in, slots

MONDAY = "2024-01-01T00:00Z"

TRAPS = [
    ("a wrapped range steps through the wrap", "0 22-4/3 * * *", "0 22,1,4 * * *"),
    ("also in minutes", "50-10/7 * * * *", "50,57,4 * * * *"),
    ("a range of one is one value", "5-5 * * * *", "5 * * * *"),
    ("also by name", "0 0 * * sun-sun", "0 0 * * 0"),
    ("7 ends a range as Sunday", "0 0 * * 5-7", "0 0 * * 5,6,0"),
    ("7 begins a range as Sunday", "0 0 * * 7-2", "0 0 * * 0,1,2"),
    ("0-7 is the whole week", "0 0 * * 0-7", "0 0 * * *"),
    ("a step over 7 wraps", "0 0 * * 1-7/2", "0 0 * * 1,3,5,0"),
    ("a start with a step ends with the field", "0 0 * * 4/2", "0 0 * * 4,6"),
    ("at the end of the field it is one value", "59/15 * * * *", "59 * * * *"),
    ("last Friday either way", "0 0 * * 5L", "0 0 * * L5"),
    ("nearest weekday either way", "0 0 15W * *", "0 0 W15 * *"),
    ("blanks around an alias", " @Daily ", "0 0 * * *"),
    ("the order in a list is free", "30,0 * * * *", "0,30 * * * *"),
]


@pytest.mark.parametrize(
    ("expression", "plain"), [trap[1:] for trap in TRAPS], ids=[t[0] for t in TRAPS]
)
def test_two_spellings_of_one_schedule(expression: str, plain: str) -> None:
    schedules = cron_in("UTC", expression), cron_in("UTC", plain)

    assert slots(schedules[0], MONDAY, 40) == slots(schedules[1], MONDAY, 40)


@pytest.mark.parametrize(
    ("expression", "plain"),
    [
        ("0-59 * * * *", "* 0-23 * * *"),
        ("@hourly", "0 * * * *"),
        ("0 0 1-31 * *", "0 0 * * 0-6"),
    ],
)
def test_equal_slots_have_equal_fingerprints(expression: str, plain: str) -> None:
    assert cron_in("UTC", expression) == cron_in("UTC", plain)


def test_the_class_is_part_of_the_fingerprint() -> None:
    # At a clock change they do not name the same slots.
    assert cron_in("UTC", "0-59 0-23 * * *") != cron_in("UTC", "* * * * *")


DAYS = [
    ("a star and a step restrict nothing: both", "0 0 */2 * 1", ["01-01", "01-15"]),
    ("two lists: either", "0 0 10 * 1", ["01-01", "01-08", "01-10", "01-15"]),
    ("a full range is a list: either", "0 0 1-31 * 1", ["01-01", "01-02", "01-03"]),
    ("n-th weekday or day", "0 0 15 * 1#2", ["01-08", "01-15", "02-12", "02-15"]),
    ("last weekday or day", "0 0 1,15 * L5", ["01-01", "01-15", "01-26", "02-01"]),
    ("nearest weekday or day", "0 0 14W * 3", ["01-03", "01-10", "01-15", "01-17"]),
    ("nearest inside the month", "0 0 31W 3 *", ["03-29"]),
    ("the last day of each month", "0 0 L 1-3 *", ["01-31", "02-29", "03-31"]),
    ("the fifth Thursday", "0 0 * * 4#5", ["02-29", "05-30", "08-29"]),
]


@pytest.mark.parametrize(
    ("expression", "days"), [case[1:] for case in DAYS], ids=[case[0] for case in DAYS]
)
def test_days_of_2024(expression: str, days: list[str]) -> None:
    found = slots(cron_in("UTC", expression), "2023-12-31T23:00Z", len(days))

    assert found == [f"2024-{day} 00:00" for day in days]


def test_crontab_wants_day_and_weekday_both() -> None:
    schedule = crontab(0, 0, day_of_month=13, day_of_week="fri").in_zone(
        ZoneInfo("UTC")
    )

    assert slots(schedule, MONDAY, 2) == ["2024-09-13 00:00", "2024-12-13 00:00"]


def test_a_schedule_that_is_over_has_no_slots() -> None:
    assert slots(cron_in("UTC", "0 0 1 1 * 0 2020"), MONDAY, 1) == []


def test_the_far_end_of_a_year_field_is_found() -> None:
    expected = ["2099-01-01 00:00"]

    assert slots(cron_in("UTC", "0 0 1 1 * 0 2099"), MONDAY, 2) == expected


def test_what_is_drawn_depends_on_the_id_and_stays() -> None:
    drawn = [cron_in("UTC", "R H * * *", f"entry {n}").fingerprint for n in range(20)]
    again = [cron_in("UTC", "R H * * *", f"entry {n}").fingerprint for n in range(20)]

    assert drawn == again
    assert len(set(drawn)) > 15


def test_a_drawn_day_is_judged_when_the_id_is_known() -> None:
    # For some ids this is 30 February; which ones is not known where it is written.
    refused = 0
    spec = cron("0 0 H 2 *")
    for n in range(60):
        try:
            spec.in_zone(ZoneInfo("UTC"), hash_id=f"entry {n}")
        except ScheduleError:
            refused += 1

    assert 0 < refused < 20


def test_an_alias_keeps_its_meaning_when_an_id_is_known() -> None:
    assert cron_in("UTC", "@daily", "tasks.add") == cron_in("UTC", "0 0 * * *")


REFUSED = [
    ("60 * * * *", "minute: cannot read '60'; expected numbers 0 to 59, ranges, steps"),
    (
        "* * * * mon-foo",
        "day-of-week: cannot read 'mon-foo'; expected numbers 0 to 6 or",
    ),
    ("H * * * *", "minute: 'h' needs an id that it is drawn from"),
    ("* * * *", "fields: expected 5, 6 or 7 fields, got 4 in '* * * *'"),
    ("@reboot", "alias: no '@reboot'; expected @yearly"),
    (
        "0 0 30 2 *",
        "day-of-month: can never occur: February has 28 or 29 days; did you",
    ),
    ("0 0 31 4,6 *", "day-of-month: can never occur: April and June have 30 days; did"),
    ("0 0 29 2 * 0 2023", "day-of-month: can never occur in the months and years"),
    ("0 0 * 2 0#5 0 2023", "day-of-week: can never occur in the months and years"),
    ("0 0 1 1 * 0 2050-2040", "year: cannot read '2050-2040'; expected numbers 1970"),
    ("٣ * * * *", "minute: cannot read '٣'"),
    (f"{'9' * 5000} * * * *", "minute: cannot read"),
    (f"0-{'9' * 5000} * * * *", "minute: cannot read"),
]


@pytest.mark.parametrize(("expression", "message"), REFUSED)
def test_a_refusal_names_the_field_and_what_was_expected(
    expression: str, message: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        read_cron(expression)

    assert str(refused.value).startswith(message)


def test_a_refused_crontab_names_the_argument() -> None:
    with pytest.raises(ScheduleError) as refused:
        crontab(0, 6, day_of_month=31, month_of_year=2)

    assert refused.value.field == "day_of_month"
    assert refused.value.problem == (
        "can never occur: February has 28 or 29 days; did you mean 28?"
    )


def calls(function: Callable[[], object]) -> list[str]:
    """List the calls that `function` makes, by file: cost without a clock."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return [
        entry.code if isinstance(entry.code, str) else entry.code.co_filename
        for entry in profile.getstats()
        for _ in range(entry.callcount)
    ]


HANGS = [
    # At these gaps croniter walks for seconds.
    ("America/New_York", "* * * * * *", "2024-03-10T06:59:59Z"),
    ("Antarctica/Troll", "* * * * * *", "2024-03-31T00:59:59Z"),
    ("Pacific/Apia", "* * * * *", "2011-12-30T09:59:59Z"),
    ("Pacific/Apia", "* * * * * *", "2011-12-30T09:59:59Z"),
    ("Pacific/Apia", "* 0-23 30 12 * 0-59", "2011-12-30T09:59:59Z"),
    # Rare dates.
    ("America/New_York", "0 0 29 2 *", "2096-03-01T12:00Z"),
    ("America/New_York", "*/5 * 29 2 *", "2096-03-01T12:00Z"),
    ("America/New_York", "15 6 * 2 0#5", "2004-03-01T12:00Z"),
    ("UTC", "0 0 1 1 * 0 2099", "1970-01-01T00:00Z"),
]


@pytest.mark.parametrize(("zone", "expression", "after"), HANGS)
def test_no_search_walks(zone: str, expression: str, after: str) -> None:
    schedule = cron_in(zone, expression)
    schedule.next_after(at(after))  # the clock learns its changes once

    assert len(calls(lambda: schedule.next_after(at(after)))) < 250


def test_catching_up_does_not_step_through_the_slots() -> None:
    schedule = cron_in("America/New_York", "* * * * *")
    since, now = at("2024-02-20T00:00Z"), at("2024-03-21T00:00:30Z")
    schedule.last_until(now, since)

    assert schedule.last_until(now, since) == at("2024-03-21T00:00Z")
    assert len(calls(lambda: schedule.last_until(now, since))) < 20


def test_croniter_is_asked_for_fields_and_not_for_slots() -> None:
    expression = "*/19 9-17 * * mon-wed"
    schedule = cron_in("Europe/Berlin", expression)

    def asks(function: Callable[[], object]) -> bool:
        return any(file.endswith("croniter.py") for file in calls(function))

    assert asks(lambda: read_cron("*/23 9-16 * * mon-tue"))
    assert not asks(lambda: schedule.next_after(at(MONDAY)))


def test_equal_expressions_share_one_schedule() -> None:
    # 100,000 entries on 500 schedules are 500 schedules in memory.
    assert cron_in("Europe/Berlin", "5 4 * * *") is cron_in(
        "Europe/Berlin", "5 4 * * *"
    )


def test_a_crontab_that_is_written_again_is_not_read_again() -> None:
    def write() -> object:
        return crontab(minute="*/7", hour=3, day_of_month="1-15", month_of_year="may")

    write()

    assert len(calls(write)) < 12


def test_no_expression_of_the_vectors_is_dear() -> None:
    dear = []
    with (Path(__file__).parent / "vectors.jsonl").open() as lines:
        vectors = [json.loads(line) for line in lines if '"kind":"cron"' in line]
    for vector in vectors:
        if "error" in vector or "second_at_beginning" in vector["spec"]:
            continue
        spec, after = vector["spec"], at(vector["after"])
        schedule = cron_in(vector["tz"], spec["expr"], spec.get("hash_id"))
        schedule.next_after(after)
        schedule.last_until(after, after - 30 * DAY)
        cost = len(calls(partial(schedule.next_after, after)))
        cost += len(calls(partial(schedule.last_until, after, after - 30 * DAY)))
        if cost > 500:
            dear.append((cost, spec["expr"], vector["tz"]))

    assert dear == []
