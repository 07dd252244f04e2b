"""What schedules do when clocks change, as tables, and what is said about it."""

from zoneinfo import ZoneInfo

import pytest

from beatd.schedules import ScheduleSpec, cron, every, once, rrule, solar
from beatd.schedules.clock_changes import clock_change_note
from tests.schedules.times import at, cron_in, slots

NEW_YORK = "America/New_York"  # forward 2024-03-10 07:00Z, back 2024-11-03 06:00Z
LORD_HOWE = "Australia/Lord_Howe"  # by half an hour
APIA = "Pacific/Apia"  # had no 2011-12-30
KWAJALEIN = "Pacific/Kwajalein"  # had no 1993-08-21
SAO_PAULO = "America/Sao_Paulo"  # forward at midnight, 2018-11-04 03:00Z
PYONGYANG = "Asia/Pyongyang"  # forward by half an hour to midnight, 2018-05-04 15:00Z

CASES = [
    (
        "a time in the gap runs when the clock goes on",
        *(NEW_YORK, "30 2 * * *", "2024-03-10T00:00Z"),
        ["2024-03-10 07:00", "2024-03-11 06:30"],
    ),
    (
        "all times in the gap, and one at its end, are one run",
        *(NEW_YORK, "10,30,50 2,3 * * *", "2024-03-10T00:00Z"),
        ["2024-03-10 07:00", "2024-03-10 07:10", "2024-03-10 07:30"],
    ),
    (
        "a slot at the gap's end absorbs the one that was skipped",
        *(NEW_YORK, "0,30 2,3 * * *", "2024-03-10T00:00Z"),
        ["2024-03-10 07:00", "2024-03-10 07:30", "2024-03-11 06:00"],
    ),
    (
        "the text decides: all hours as a range are fixed, and caught up",
        *(NEW_YORK, "53 0-23 10 * *", "2024-03-10T06:00Z"),
        ["2024-03-10 06:53", "2024-03-10 07:00", "2024-03-10 07:53"],
    ),
    (
        "a wildcard job has nothing in the gap",
        *(NEW_YORK, "*/15 2 * * *", "2024-03-10T00:00Z"),
        ["2024-03-11 06:00"],
    ),
    (
        "a step over hours is a wildcard too",
        *(NEW_YORK, "0 */2 * * *", "2024-03-10T04:30Z"),
        ["2024-03-10 05:00", "2024-03-10 08:00"],
    ),
    (
        "a time that comes twice runs at the first",
        *(NEW_YORK, "30 1 * * *", "2024-11-03T00:00Z"),
        ["2024-11-03 05:30", "2024-11-04 06:30"],
    ),
    (
        "also when the search begins between the two",
        *(NEW_YORK, "30 1 * * *", "2024-11-03T05:40Z"),
        ["2024-11-04 06:30"],
    ),
    (
        "and when it begins in the second pass",
        *(NEW_YORK, "30 1 * * *", "2024-11-03T06:10Z"),
        ["2024-11-04 06:30"],
    ),
    (
        "a wildcard job runs in both passes",
        *(NEW_YORK, "30 * * * *", "2024-11-03T05:00Z"),
        ["2024-11-03 05:30", "2024-11-03 06:30", "2024-11-03 07:30"],
    ),
    (
        "the second pass is found though the next match of the first is a year away",
        *(NEW_YORK, "*/30 1 1 11 *", "2026-11-01T05:30Z"),
        ["2026-11-01 06:00", "2026-11-01 06:30", "2027-11-01 05:00"],
    ),
    (
        "half an hour comes twice: steps stay on the clock's hands",
        *(LORD_HOWE, "*/30 * * * *", "2024-04-06T14:30Z"),
        ["2024-04-06 15:00", "2024-04-06 15:30", "2024-04-06 16:00"],
    ),
    (
        "a job at the half hour that comes twice runs once",
        *(LORD_HOWE, "45 1 * * *", "2024-04-06T14:00Z"),
        ["2024-04-06 14:45", "2024-04-07 15:15"],
    ),
    (
        "midnight does not exist: the day begins at one",
        *(SAO_PAULO, "0 0 * * *", "2018-11-03T12:00Z"),
        ["2018-11-04 03:00", "2018-11-05 02:00"],
    ),
    (
        "the gap ends at midnight: its times still belong to the day before",
        *(PYONGYANG, "45 23 * * *", "2018-05-04T12:00Z"),
        ["2018-05-04 15:00", "2018-05-05 14:45"],
    ),
    (
        "a date that was left out has no run, and none in its place",
        *(APIA, "0 9 * * *", "2011-12-29T12:00Z"),
        ["2011-12-29 19:00", "2011-12-30 19:00"],
    ),
    (
        "the same on the other side of the date line",
        *(KWAJALEIN, "0 9 * * *", "1993-08-20T12:00Z"),
        ["1993-08-20 21:00", "1993-08-21 21:00"],
    ),
    (
        "a wildcard job goes on across the date line",
        *(APIA, "0 */12 * * *", "2011-12-29T12:00Z"),
        ["2011-12-29 22:00", "2011-12-30 10:00", "2011-12-30 22:00"],
    ),
]


@pytest.mark.parametrize(
    ("zone", "expression", "after", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_slots_around_a_clock_change(
    zone: str, expression: str, after: str, expected: list[str]
) -> None:
    assert slots(cron_in(zone, expression), after, len(expected)) == expected


@pytest.mark.parametrize(
    ("zone", "expression", "after", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_the_way_back_finds_the_same_slots(
    zone: str, expression: str, after: str, expected: list[str]
) -> None:
    schedule, since = cron_in(zone, expression), at(after)
    found = []
    slot = at(expected[-1] + "Z")
    while (last := schedule.last_until(slot, since)) is not None:
        found.append(last)
        slot = last - 1

    assert found[::-1] == [at(text + "Z") for text in expected]


NOTES = [
    (
        cron("30 2 * * *"),
        "2027-03-01T00:00Z",
        "02:30 does not exist that day in Europe/Berlin; it runs at 03:00 CEST instead",
    ),
    (cron("30 2 * * 1-5"), "2027-03-01T00:00Z", "not on a weekday, nothing to do"),
    (cron("30 2 * * 6"), "2027-03-01T00:00Z", "not on a Sunday, nothing to do"),
    (cron("30 2 1 * *"), "2027-03-01T00:00Z", "not on 28 Mar, nothing to do"),
    (
        cron("0 9 * * *"),
        "2027-03-01T00:00Z",
        "no run from 02:00 to 03:00, nothing to do",
    ),
    (cron("30 * * * *"), "2027-03-01T00:00Z", "follows the clock: skips 02:00-03:00"),
    (
        cron("10,20,30 2 * * *"),
        "2027-03-01T00:00Z",
        "02:10, 02:20 and 02:30 do not exist that day in Europe/Berlin;"
        " one run at 03:00 CEST stands for them",
    ),
    (
        cron("30 2 * * *"),
        "2027-10-01T00:00Z",
        "02:30 comes twice that day in Europe/Berlin;"
        " it runs the first time, at 02:30 CEST",
    ),
    (
        cron("15,30 2 * * *"),
        "2027-10-01T00:00Z",
        "02:15 and 02:30 come twice that day in Europe/Berlin;"
        " they run the first time, from 02:15 CEST",
    ),
    (
        cron("30 * * * *"),
        "2027-10-01T00:00Z",
        "follows the clock: runs in both passes of 02:00-03:00",
    ),
    (every(60), "2027-03-01T00:00Z", "counts elapsed time, nothing to do"),
    (
        solar("sunrise", 52.5, 13.4),
        "2027-03-01T00:00Z",
        "follows the sun, nothing to do",
    ),
    (once("2027-03-01T06:00"), "2027-03-01T00:00Z", "a single slot, nothing to do"),
    (
        rrule("FREQ=DAILY", "2027-01-01T02:30"),
        "2027-03-01T00:00Z",
        "times that do not exist are left out, times that come twice run once",
    ),
]


@pytest.mark.parametrize(("spec", "after", "note"), NOTES)
def test_the_next_clock_change_is_explained(
    spec: ScheduleSpec, after: str, note: str
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    change = clock_change_note(spec.in_zone(berlin), berlin, at(after))

    assert change is not None
    assert change.note == note
    assert change.affects == ("exist that day" in note or "twice that day" in note)


def test_the_next_clock_change_has_its_bounds() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    change = clock_change_note(
        cron("30 2 * * *").in_zone(berlin), berlin, at("2027-03-01T00:00Z")
    )

    assert change is not None
    assert change.instant == at("2027-03-28T01:00Z")
    assert change.is_gap
    assert f"{change.first} {change.end}" == "2027-03-28 02:00:00 2027-03-28 03:00:00"


def test_a_date_that_is_left_out_is_explained() -> None:
    apia = ZoneInfo(APIA)
    schedule = cron("0 9 * * *").in_zone(apia)
    change = clock_change_note(schedule, apia, at("2011-12-01T00:00Z"))

    assert change is not None
    assert change.note == "30 Dec 2011 does not exist in Pacific/Apia: no run"


def test_a_zone_without_clock_changes_has_nothing_to_explain() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    schedule = cron("30 2 * * *").in_zone(tokyo)

    assert clock_change_note(schedule, tokyo, at("2027-03-01T00:00Z")) is None
