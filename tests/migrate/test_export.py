"""The schedule as a calendar and as JSON, read by a real library."""
# ruff: noqa: E501  (tables of rules have one case in a line)

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar

from beatd.instant import DAY, MINUTE, SECOND, Instant, datetime_of, instant_of
from beatd.migrate.calendar import Forecast, calendar, forecast
from beatd.migrate.recurrence import rule_of
from beatd.schedules import cron, crontab, every, once, solar
from beatd.schedules.base import Schedule
from beatd.schedules.zones import zone_of
from beatd.timetable.entry import Entry
from beatd.timetable.preview import preview
from tests.cli.conftest import unsaid
from tests.fakes import NOON, entry
from tests.processes import ended
from tests.switch.files import write

ZONES = st.sampled_from(
    ["UTC", "Asia/Tokyo", "Asia/Kolkata", "Europe/Berlin", "Australia/Lord_Howe"]
)
FIELDS = st.tuples(
    st.sampled_from(["*", "*/7", "0", "17,40"]),
    st.sampled_from(["*", "*/5", "0", "2", "8-18"]),
    st.sampled_from(["*", "1", "15,31", "L"]),
    st.sampled_from(["*", "1,7", "*/4"]),
    st.sampled_from(["*", "mon-fri", "0,3", "fri#2"]),
).map(" ".join)
SPECS = st.one_of(
    FIELDS.filter(lambda text: "31 1" not in text).map(cron),
    st.builds(
        crontab,
        minute=st.sampled_from(["*/20", "5"]),
        hour=st.sampled_from(["*", "3,21"]),
        day_of_week=st.sampled_from(["*", "mon"]),
        day_of_month=st.sampled_from(["*", "1-7"]),
    ),
    st.integers(1, 200_000).map(every),
)


def slots(schedule: Schedule, after: Instant) -> Iterator[Instant]:
    while (slot := schedule.next_after(after)) is not None:
        yield slot
        after = slot


def expanded(first: Instant, rule: str) -> Iterator[Instant]:
    """Yield what dateutil makes of a rule."""
    start = datetime_of(first)
    for moment in rrulestr(f"RRULE:{rule}", dtstart=start):
        yield instant_of(moment)


@given(SPECS, ZONES, st.integers(NOON, NOON + 700 * DAY))
def test_a_rule_says_exactly_the_slots(spec: Any, zone: str, now: Instant) -> None:
    schedule = spec.in_zone(zone_of(zone))
    rule = rule_of(schedule, now)
    if rule is None:
        return
    ours = [*islice(slots(schedule, now), 40)]

    assert [*islice(expanded(ours[0], rule), 40)] == ours


@pytest.mark.parametrize(
    ("spec", "zone", "rule"),
    [
        (every(hours=36), "Europe/Berlin", "FREQ=HOURLY;INTERVAL=36"),
        (every(0.5), "UTC", None),
        (every(60, align=False), "UTC", None),
        (cron("30 2 * * *"), "UTC", "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"),
        (cron("30 2 * * *"), "Europe/Berlin", None),
        (cron("30 2 * * *"), "Asia/Tokyo", "FREQ=DAILY;BYHOUR=17;BYMINUTE=30;BYSECOND=0"),
        (cron("30 2 1 * *"), "Asia/Tokyo", None),
        (cron("*/30 * * * *"), "Europe/Berlin", "FREQ=HOURLY;BYMINUTE=0,30;BYSECOND=0"),
        (cron("5 * * * *"), "Asia/Kolkata", "FREQ=HOURLY;BYMINUTE=35;BYSECOND=0"),
        (cron("*/30 * * * *"), "Australia/Lord_Howe", None),
        (cron("0 4 1 * fri"), "UTC", None),
        (crontab(0, 4, "fri", 1), "UTC", "FREQ=DAILY;BYMONTHDAY=1;BYDAY=FR;BYHOUR=4;BYMINUTE=0;BYSECOND=0"),
        (cron("0 4 L * *"), "UTC", None),
        (cron("0 4 * * fri#2"), "UTC", None),
        (once("2030-01-01T06:00"), "UTC", None),
        (solar("sunset", 52.5, 13.4), "UTC", None),
    ],
)  # fmt: skip
def test_there_is_a_rule_only_where_it_is_exact(
    spec: Any, zone: str, rule: str | None
) -> None:
    assert rule_of(spec.in_zone(zone_of(zone)), NOON) == rule


def forecast_of(one: Entry, days: int = 30, limit: int = 1000) -> Forecast:
    coming = preview([one], {}, NOON)
    return forecast(one, coming[one.name], NOON, NOON + days * DAY, limit)


def events(*forecasts: Forecast) -> list[Any]:
    """Return the events of a calendar, as icalendar reads them."""
    data = "".join(calendar("beatd", forecasts, NOON, "1.0")).encode()
    for line in data.split(b"\r\n"):
        assert len(line) <= 75
        assert b"\n" not in line
    found = Calendar.from_ical(data)
    assert found.errors == []
    assert found["VERSION"] == "2.0"
    listed: list[Any] = found.walk("VEVENT")
    assert len({str(one["UID"]) for one in listed}) == len(listed)
    for one in listed:
        assert one.errors == []
        assert one["DTSTAMP"].dt == datetime_of(NOON)
    return listed


HOURLY = cron("0 * * * *").in_zone(zone_of("UTC"))
NIGHTLY = cron("30 2 * * *").in_zone(zone_of("Europe/Berlin"))


def test_an_entry_with_a_rule_is_one_event() -> None:
    (one,) = events(forecast_of(entry("it", HOURLY)))

    assert one["SUMMARY"] == "it"
    assert one["DTSTART"].dt == datetime_of(NOON) + timedelta(hours=1)
    assert one["RRULE"].to_ical() == b"FREQ=HOURLY;BYSECOND=0;BYMINUTE=0"


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        ({"max_runs": 3}, {"COUNT": [3]}),
        ({"end": NOON + DAY}, {"UNTIL": [datetime_of(NOON + DAY)]}),
        ({"start": NOON + 90 * DAY}, {}),
    ],
)
def test_bounds_are_parts_of_the_rule(
    policy: dict[str, Any], part: dict[str, Any]
) -> None:
    (one,) = events(forecast_of(entry("it", HOURLY, **policy)))

    found = {key: one["RRULE"][key] for key in part}
    assert found == part
    first = policy.get("start", NOON + 60 * MINUTE)
    assert one["DTSTART"].dt == datetime_of(first)


@pytest.mark.parametrize(
    "one",
    [
        entry("it", NIGHTLY),
        entry("it", HOURLY, max_runs=500, end=NOON + 600 * DAY),
        entry("it", HOURLY, offset=90 * SECOND),
        entry("it", every(60, align=False).in_zone(zone_of("UTC"))),
    ],
)
def test_else_each_run_is_an_event(one: Entry) -> None:
    found = forecast_of(one, days=8, limit=50)
    coming = preview([one], {}, NOON)[one.name]
    runs = [at for at in islice(coming.since(NOON), 50) if at <= NOON + 8 * DAY]

    assert [event["DTSTART"].dt for event in events(found)] == [*map(datetime_of, runs)]
    assert found.is_cut == (len(runs) == 50)


def test_what_comes_later_than_the_end_has_its_first_run() -> None:
    later = once("2030-01-01T06:00").in_zone(zone_of("UTC"))

    (one,) = events(forecast_of(entry("it", later)))

    assert one["DTSTART"].dt == datetime(2030, 1, 1, 6, tzinfo=UTC)


def test_what_does_not_run_has_no_event() -> None:
    assert events(forecast_of(entry("it", HOURLY, enabled=False))) == []


@given(st.text(min_size=1, max_size=300))
def test_any_name_is_a_line_of_its_own(name: str) -> None:
    encodable = name.encode("utf-8", "replace").decode()
    (one,) = events(forecast_of(entry(encodable, HOURLY)))

    assert one["RRULE"]
    if encodable.isprintable():
        assert str(one["SUMMARY"]) == encodable


CONFIG = """
    from beatd.schedules import crontab
    timezone = "Europe/Berlin"
    beat_schedule = {
        "tick": {"task": "t", "schedule": 60, "kwargs": {"password": "hush"}},
        "nightly": {"task": "t", "schedule": crontab(minute=30, hour=2)},
        "often": {"task": "t", "schedule": 0.5},
        "off": {"task": "t", "schedule": 60, "enabled": False},
    }
    """


def test_the_command_writes_a_calendar(tmp_path: Path) -> None:
    write(tmp_path, {"conf.py": CONFIG})

    made = ended("export", "ical", "--config", "conf.py", "--days", "5", cwd=tmp_path)
    some = ended("export", "ical", "tick", "--config", "conf.py", cwd=tmp_path)
    none = ended("export", "ical", "tack", "--config", "conf.py", cwd=tmp_path)

    names = [
        str(one["SUMMARY"]) for one in Calendar.from_ical(made.stdout).walk("VEVENT")
    ]
    assert {name: names.count(name) for name in names} == {
        "tick": 1,
        "nightly": 5,
        "often": 1000,
    }
    assert made.stderr == (
        "2 entries run by run for 5 days (--days): no recurrence rule says exactly"
        " when they run\n"
        "1 entry without a coming run\n"
        "'often': only the first 1000 runs, --limit N has more\n"
    )
    assert some.stdout.count("BEGIN:VEVENT") == 1
    assert (none.returncode, none.stdout) == (3, "")
    assert "hush" not in made.stdout


def test_the_command_writes_json(tmp_path: Path) -> None:
    write(tmp_path, {"conf.py": CONFIG})
    words = ("export", "json", "--config", "conf.py", "--limit", "2")

    whole = json.loads(ended(*words, cwd=tmp_path).stdout)
    lines = ended(*words, "--lines", cwd=tmp_path).stdout.splitlines()

    assert unsaid(whole) == set()
    by_name = {one["name"]: one for one in whole["entries"]}
    assert by_name["tick"]["rrule"] == "FREQ=MINUTELY;INTERVAL=1"
    assert by_name["nightly"]["rrule"] is None
    assert [len(one["runs"]) for one in by_name.values()] == [2, 2, 2, 0]
    assert [json.loads(line)["name"] for line in lines] == [*by_name]
    assert {json.loads(line)["schema"] for line in lines} == {"beatd.export.entry/1"}
