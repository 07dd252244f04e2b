"""Whatever stands in an entry or a setting: it is used, or it is named as bad."""

import math
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beatd.bounds import LARGEST, LONGEST
from beatd.cli import main
from beatd.config.loading import ConfigReport, examine_source
from beatd.config.settings import table
from beatd.config.source import Source
from beatd.errors import ScheduleError
from beatd.instant import DAY, HOUR, Instant, instant_of
from beatd.schedules import cron, crontab, every, once, rrule, solar
from beatd.timetable.entry import Entry
from beatd.timetable.policy import decide
from beatd.timetable.preview import preview
from beatd.timetable.timetable import Timetable

pytestmark = pytest.mark.usefixtures("forgotten")

NOW = instant_of(datetime(2026, 11, 23, 12, tzinfo=UTC))

GOOD = {"task": "t", "schedule": 60}

WEST = timezone(timedelta(hours=-14))


def moment_at(year: int) -> datetime:
    return datetime(year, 12, 31, 23, 59, tzinfo=UTC)


class Spiteful:
    """An object of which every question raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("asked for " + name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise RuntimeError("tested")


odd_numbers = st.sampled_from(
    [
        *(1e308, -1e308, math.inf, -math.inf, math.nan, 5e-324, 10**400, -(10**400)),
        *(LONGEST, LONGEST + 1, LARGEST, LARGEST + 1, 2**63, 2**64, True),
    ]
)
texts = st.text(st.characters(exclude_categories=()), max_size=5)
moments = st.datetimes(timezones=st.none() | st.just(UTC)) | st.sampled_from(
    [
        *(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)),  # noqa: DTZ001
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    ]
)
plain = (
    st.none()
    | odd_numbers
    | st.integers()
    | st.floats()
    | texts
    | st.sampled_from(["next", "\ud800", "a\udfffb", "* * * * *", "H H * * *", "5/m"])
    | st.timedeltas()
    | moments
    | st.binary(max_size=3)
    | st.builds(Spiteful)
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)


def _made(kind: Any, *arguments: Any, **named: Any) -> Any:
    """Return a schedule; what it raises where it is written, a config passes over."""
    try:
        return kind(*arguments, **named)
    except Exception:
        return 60


numbers = odd_numbers | st.floats() | st.integers()
schedules = (
    st.builds(_made, st.just(every), numbers, offset=numbers | st.just(0))
    | st.builds(_made, st.just(every), weeks=numbers, minutes=numbers)
    | st.builds(_made, st.just(every), st.timedeltas(), relative=st.booleans())
    | st.builds(_made, st.just(every), st.timedeltas(), align=st.just(False))
    | st.builds(_made, st.just(once), moments)
    | st.builds(
        _made, st.just(rrule), st.just("FREQ=DAILY;INTERVAL=3"), dtstart=moments
    )
    | st.builds(_made, st.just(solar), st.just("sunset"), numbers, numbers)
    | st.builds(_made, st.just(cron), st.just("0 0 29 2 * 0 2096-2099"))
    | st.builds(_made, st.just(crontab), values)
)
KEYS = [
    *("task", "schedule", "args", "kwargs", "options", "jitter", "misfire_grace_time"),
    *("coalesce", "max_catchup", "max_runs", "overlap", "overlap_timeout", "enabled"),
    *("timezone", "relative", "slot_argument", "description", "start_time", "end_time"),
    "run_on_start",
]
OPTIONS = [
    *("queue", "exchange", "exchange_type", "routing_key", "priority", "expires"),
    *("countdown", "eta", "headers", "serializer", "shadow", "time_limit", "task_id"),
    *("soft_time_limit", "ignore_result", "link", "chain", "chord", "retries"),
    *("group_index", "argsrepr", "stamped_headers", "delivery_mode", "mine"),
]
entries = st.builds(
    lambda good, odd, options: {**good, **odd, **options},
    st.just(GOOD),
    st.dictionaries(st.sampled_from(KEYS), values | schedules, max_size=3)
    | st.fixed_dictionaries({"schedule": values | schedules}),
    st.just({})
    | st.fixed_dictionaries(
        {"options": st.dictionaries(st.sampled_from(OPTIONS), values, max_size=3)}
    ),
)


def examined(schedule: dict[Any, Any], **written: Any) -> ConfigReport:
    return examine_source(Source("conf", {"beat_schedule": schedule, **written}))


def emit(entry: Entry, now: Instant) -> None:
    """Do with an entry what a scheduler does, at `now` and for as long after."""
    timetable = Timetable()
    timetable.place([entry], {}, now)
    for later in (now, now + HOUR, now + 400 * DAY):
        for due in timetable.due(later, 10):
            decision = decide(due, later, busy=False)
            for slot in decision.emit[:3]:
                entry.message.made(id="i", now=later, slot=slot, expires=None)
            timetable.apply(due, decision, look_again=later)
    preview([entry], {}, now)[entry.name].first()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries)
@example({**GOOD, "schedule": 1e308})
@example({**GOOD, "schedule": 10**400})
@example({**GOOD, "jitter": 1e308})
@example({**GOOD, "options": {"time_limit": 10**400}})
@example({**GOOD, "task": "\ud800"})
@example({**GOOD, "options": {"queue": "\ud800"}})
@example({**GOOD, "options": {"mine": 10**400}})
@example({**GOOD, "options": Spiteful()})
def test_an_entry_of_any_values_is_used_or_named_and_others_run(
    written: dict[str, Any],
) -> None:
    report = examined({"odd": written, "even": GOOD})

    assert report.config is not None
    assert report.errors == []
    names = {entry.name: entry for entry in report.config.entries}
    assert "even" in names
    bad = {one.name: one.problems for one in report.config.bad}
    if "odd" in names:
        emit(names["odd"], NOW)
    else:
        assert all(str(problem).isprintable() for problem in bad["odd"])
        assert bad["odd"]


class Unshown:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("shown")

    __str__ = __repr__


def test_an_entry_with_values_that_cannot_be_shown_is_a_bad_entry() -> None:
    keys = {key: {**GOOD, key: Unshown()} for key in KEYS}
    options = {key: {**GOOD, "options": {key: Unshown()}} for key in OPTIONS}
    report = examined({**keys, **options, "even": GOOD, Unshown(): GOOD, "a": 10**5000})

    assert report.config is not None
    assert report.errors == []
    assert "even" in [entry.name for entry in report.config.entries]
    assert {"task", "schedule", "queue"} <= {one.name for one in report.config.bad}


class Job(str, Enum):  # noqa: UP042  (its `str` is not its value)
    """Names of entries, as projects that like constants have them."""

    SYNC = "sync"


def test_a_name_from_an_enumeration_is_plain_text_and_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = examined({Job.SYNC: GOOD})

    assert report.config is not None
    (entry,) = report.config.entries
    assert (type(entry.name), entry.name) == (str, "Job.SYNC")

    config = tmp_path / "conf.py"
    config.write_text(
        "from enum import Enum\n"
        "class Job(str, Enum):\n    SYNC = 'sync'\n"
        "beat_schedule = {Job.SYNC: {'task': 'a.b', 'schedule': 60}}\n"
        f"beat_schedule_filename = {str(tmp_path / 'file')!r}\n"
    )
    assert main(["list", "--config", str(config)]) == 0
    assert "Job.SYNC every 1 min" in " ".join(capsys.readouterr().out.split())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(table())), values, max_size=3))
@example({"task_time_limit": 10**400})
@example({"task_routes": {1: "q"}})
@example({"task_routes": {"t": {"priority": 10**400}}})
@example({"task_routes": Spiteful()})
@example({"task_queues": {"q\ud800": None}})
@example({"task_default_queue": "\ud800"})
@example({"broker_write_url": "\ud7fc"})
@example({"broker_url": "redis://[\x1b"})
def test_settings_of_any_values_are_used_or_refused_in_words(
    written: dict[str, Any],
) -> None:
    written.pop("beat_schedule", None)
    report = examined({"even": GOOD}, **written)

    assert report.config is not None
    assert all(str(problem).isprintable() for problem in report.errors)
    if not report.errors:
        for entry in report.config.entries:
            emit(entry, NOW)


def test_a_setting_that_cannot_be_shown_is_refused() -> None:
    for name in table().keys() - {"beat_schedule"}:
        report = examined({}, **{name: Unshown()})

        assert report.config is not None, name


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["next"], ["check"]])
@pytest.mark.parametrize(
    "written",
    [
        {"schedule": LONGEST, "jitter": LONGEST},
        {"schedule": once("8999-12-31T23:59"), "jitter": LONGEST},
        {"schedule": once("0002-01-01")},
        {"schedule": rrule("FREQ=YEARLY;INTERVAL=6979", "2020-12-31T23:00")},
        {"schedule": 60, "start_time": moment_at(1), "end_time": moment_at(9999)},
        {"schedule": 60, "start_time": moment_at(8998), "end_time": moment_at(9999)},
        {"schedule": 60, "options": {"countdown": LONGEST, "expires": LONGEST}},
        {"schedule": 60, "options": {"eta": moment_at(9999)}},
    ],
    ids=ascii,
)
def test_what_is_within_all_bounds_is_shown(
    written: dict[str, Any],
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "celeryconfig.py").write_text(
        "from tests.test_any_entry import shown\n"
        "beat_schedule, timezone = {'odd': shown[0]}, 'Pacific/Kiritimati'\n"
    )
    shown[:] = [{"task": "t", **written}]

    assert main(command) == 0
    assert "odd" in capsys.readouterr().out or command[0] in ("check", "next")
    emit(examined({"odd": shown[0]}).config.entries[0], NOW)  # type: ignore[union-attr] # there


shown: list[dict[str, Any]] = []
"""The entry of the config that a test shows."""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"start_time": moment_at(9999)}, "start_time: expected a date before"),
        ({"options": {"eta": datetime.max.replace(tzinfo=WEST)}}, "options['eta']: "),
    ],
)
def test_a_date_that_is_none_in_another_zone_is_refused(
    written: dict[str, Any], said: str
) -> None:
    report = examined({"odd": {**GOOD, **written}})

    assert report.config is not None
    (bad,) = report.config.bad
    assert said in str(bad.problems[0])


@pytest.mark.parametrize("year", [1, 9000, 9999])
def test_a_schedule_ends_before_the_dates_do(year: int) -> None:
    with pytest.raises(ScheduleError, match="expected a date in the years 2 to 8999"):
        once(datetime(year, 1, 1))  # noqa: DTZ001
