"""Configs: what they give, and all that is said of what is wrong with them."""
# ruff: noqa: E501  (tables of text have one case in a line)

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any
from zoneinfo import ZoneInfo

import celery.schedules
import kombu
import pytest

from beatd import schedules
from beatd.config.loading import (
    ConfigReport,
    Wanted,
    examine,
    examine_source,
    load,
    router,
)
from beatd.config.settings import Place, Settings
from beatd.config.source import Source
from beatd.errors import ConfigError
from beatd.instant import HOUR, MINUTE, SECOND, Instant, instant_of
from beatd.routing import Queue
from beatd.schedules import crontab, every
from beatd.timetable.entry import Entry, Overlap, Policy

NOON = instant_of(datetime(2026, 11, 23, 12, tzinfo=UTC))
BERLIN = ZoneInfo("Europe/Berlin")
IN_BERLIN = {"timezone": "Europe/Berlin"}


def examined(schedule: Any = None, **written: Any) -> ConfigReport:
    """Examine a config that no text shows."""
    return examine_source(Source("conf", {"beat_schedule": schedule or {}, **written}))


def entry(
    schedule: Any = 10, /, under: dict[str, Any] | None = None, **keys: Any
) -> Entry:
    """Read one entry under these settings."""
    written = {"e": {"task": "t", "schedule": schedule, **keys}}
    report = examined(written, **(under or {}))
    assert report.problems == []
    assert report.config is not None
    (read,) = report.config.entries
    return read


def message(read: Entry, slot: Instant = NOON) -> dict[str, Any]:
    sent = read.message.made(id="i", now=slot, slot=slot, expires=None).message
    envelope: dict[str, Any] = json.loads(sent)
    return envelope


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def wanted(folder: Path, text: str) -> Wanted:
    (folder / "conf.py").write_text(dedent(text))
    return Wanted(config="conf.py", folder=folder)


# Schedules


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        (celery.schedules.crontab("*/5", "8-18", "mon-fri"), crontab("*/5", "8-18", "mon-fri")),
        (celery.schedules.crontab(minute=0, day_of_month="1", month_of_year="jan"), crontab(minute=0, day_of_month="1", month_of_year="jan")),
        (celery.schedules.schedule(timedelta(seconds=90)), every(90)),
        (celery.schedules.schedule(3600, relative=True), every(3600, relative=True)),
        (celery.schedules.solar("sunset", 52.5, 13.4), schedules.solar("sunset", 52.5, 13.4)),
        (timedelta(minutes=5), every(minutes=5)),
        (2.5, every(2.5)),
        ("*/5 * * * *", schedules.cron("*/5 * * * *")),
        ("@daily", schedules.cron("@daily")),
    ],
)  # fmt: skip
def test_every_form_of_a_schedule_is_understood(
    written: object, ours: schedules.ScheduleSpec
) -> None:
    expected = ours.in_zone(BERLIN, hash_id="e")

    assert entry(written, IN_BERLIN).schedule == expected


def test_relative_rounds_an_interval_as_celery_does() -> None:
    expected = every(3600, relative=True).in_zone(ZoneInfo("UTC"))

    assert entry(3600, relative=True).schedule == expected


def test_an_entry_may_have_a_zone_of_its_own() -> None:
    read = entry("0 9 * * *", IN_BERLIN, timezone="Asia/Tokyo")

    assert read.schedule == schedules.cron("0 9 * * *").in_zone(ZoneInfo("Asia/Tokyo"))
    assert message(read)["headers"]["beatd_slot"] == "2026-11-23T21:00:00+09:00"


def test_entries_with_equal_schedules_share_one() -> None:
    config = examined(
        {f"e{n}": {"task": "t", "schedule": crontab(minute=n % 5)} for n in range(50)}
    ).config

    assert config is not None
    assert len({id(read.schedule) for read in config.entries}) == 5


def test_a_hashed_field_is_drawn_from_the_name_of_the_entry() -> None:
    config = examined(
        {f"e{n}": {"task": "t", "schedule": "H * * * *"} for n in range(20)}
    ).config

    assert config is not None
    assert len({read.schedule.next_after(NOON) for read in config.entries}) > 5


# Messages


def test_what_an_entry_says_is_what_its_message_says() -> None:
    read = entry(
        args=(2, 3),
        kwargs={"kind": "sales"},
        options={"queue": "reports", "priority": 5, "headers": {"x": 1}},
    )
    sent = message(read)

    assert sent["headers"]["task"] == "t"
    assert sent["headers"]["argsrepr"] == "(2, 3)"
    assert sent["headers"]["kwargsrepr"] == "{'kind': 'sales'}"
    assert sent["headers"]["x"] == 1
    assert sent["properties"]["priority"] == 5
    assert read.message.route.queue == "reports"


def test_a_message_can_expire_at_the_next_slot() -> None:
    read = entry(options={"expires": "next"})

    assert read.expires_next
    assert message(read)["headers"]["expires"] is None


@pytest.mark.parametrize(
    ("expires", "header"),
    [
        (timedelta(minutes=1), "2026-11-23T13:01:00+01:00"),
        (60, "2026-11-23T13:01:00+01:00"),
        (datetime(2026, 11, 24), "2026-11-24T00:00:00+01:00"),  # noqa: DTZ001
    ],
)
def test_expiry_is_a_length_of_time_or_a_moment_in_the_zone(
    expires: object, header: str
) -> None:
    read = entry(10, IN_BERLIN, options={"expires": expires})

    assert message(read)["headers"]["expires"] == header


def test_routes_and_the_default_queue_apply() -> None:
    routed = entry(10, {"task_routes": {"t": {"queue": "fast", "expires": 60}}})

    assert routed.message.route.queue == "fast"
    assert message(routed)["headers"]["expires"]
    assert entry(10, {"task_default_queue": "mine"}).message.route.queue == "mine"
    assert entry(10, {"task_default_priority": 7}).message.route.priority == 7


def test_the_slot_can_be_an_argument() -> None:
    one = entry(10, IN_BERLIN, slot_argument="at")
    every_one = entry(10, {**IN_BERLIN, "beat_slot_argument": "at"})

    for read in (one, every_one):
        assert "2026-11-23T13:00:00+01:00" in message(read)["headers"]["kwargsrepr"]


# Policies


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ({}, Policy()),
        ({"misfire_grace_time": timedelta(minutes=1)}, Policy(misfire_grace=MINUTE)),
        ({"coalesce": False, "max_catchup": 5}, Policy(coalesce=False, max_catchup=5)),
        ({"overlap": "queue_one"}, Policy(overlap=Overlap.QUEUE_ONE)),
        ({"overlap_timeout": timedelta(minutes=1)}, Policy(overlap_timeout=MINUTE)),
        ({"max_runs": 3, "enabled": False}, Policy(max_runs=3, enabled=False)),
        ({"start_time": datetime(2026, 11, 23, 12, tzinfo=UTC)}, Policy(start=NOON)),
        ({"end_time": datetime(2026, 11, 23, 12, tzinfo=UTC)}, Policy(end=NOON)),
        ({"overlap": None, "max_runs": None}, Policy()),
    ],
)
def test_an_entry_says_what_becomes_of_its_slots(
    keys: dict[str, Any], policy: Policy
) -> None:
    assert entry(10, IN_BERLIN, **keys).policy == policy


def test_settings_say_it_for_all_entries_that_do_not() -> None:
    under = {
        "beat_misfire_grace_time": 60,
        "beat_coalesce": False,
        "beat_max_catchup": 5,
        "beat_overlap": "skip",
        "beat_overlap_timeout": 60,
    }

    common = entry(10, under).policy
    own = entry(10, under, misfire_grace_time=3600, overlap="allow").policy

    assert common == Policy(MINUTE, False, 5, Overlap.SKIP, MINUTE)
    assert own == Policy(HOUR, False, 5, Overlap.ALLOW, MINUTE)
    unlimited = entry(10, under, misfire_grace_time=None, overlap_timeout=None).policy
    assert unlimited == Policy(None, False, 5, Overlap.SKIP, None)


def test_the_starting_deadline_of_celery_concerns_cron_entries_alone() -> None:
    deadline = {"beat_cron_starting_deadline": 60}
    both = {**deadline, "beat_misfire_grace_time": 3600}

    assert entry("* * * * *", deadline).policy.misfire_grace == MINUTE
    assert entry(10, deadline).policy.misfire_grace is None
    assert entry("* * * * *", both).policy.misfire_grace == HOUR


def test_jitter_gives_each_entry_a_fixed_share_of_its_own() -> None:
    names = [f"e{n}" for n in range(200)]
    schedule = {name: {"task": "t", "schedule": 60, "jitter": 30} for name in names}

    def offsets(**written: Any) -> list[int]:
        config = examined(schedule, **written).config
        assert config is not None
        return [read.offset for read in config.entries]

    assert offsets() == offsets()
    assert offsets() != offsets(beat_namespace="other")
    assert all(0 <= offset < 30 * SECOND for offset in offsets())
    assert len(set(offsets())) > 190
    assert max(offsets()) - min(offsets()) > 25 * SECOND
    assert entry().offset == 0
    assert 0 < entry(10, {"beat_jitter": 30}).offset < 30 * SECOND


# Bad entries


def misspelled() -> str:
    """Return what this Python says of an argument that `timedelta` does not have."""
    with pytest.raises(TypeError) as raised:
        timedelta(**{"minute": 1})
    return str(raised.value)


WRONG = [
    ("'t'", "expected a dict with task and schedule, got a str"),
    ("{'schedule': 5}", "it has no 'task'"),
    ("None", "expected a dict with task and schedule, got None"),
    ("5", "expected a dict with task and schedule, got an int"),
    ("{'task': 5, 'schedule': 5}", "task: expected a task's name, got 5"),
    ("{'task': 't'}", "it has no 'schedule'"),
    ("{'task': 't', 'schedule': 0}", "schedule: every: expected more than 0 seconds, got 0"),
    ("{'task': 't', 'schedule': -5}", "schedule: every: expected more than 0 seconds, got -5"),
    ("{'task': 't', 'schedule': timedelta(0)}", "schedule: every: expected more than 0 seconds, got 0"),
    ("{'task': 't', 'schedule': 0.05}", "schedule: expected an interval of 0.1 s or more (beat_min_interval), got 0.05 s"),
    ("{'task': 't', 'schedule': True}", "schedule: expected crontab, timedelta or seconds, got True"),
    ("{'task': 't', 'schedule': []}", "schedule: expected crontab, timedelta or seconds, got []"),
    ("{'task': 't', 'schedule': '0 0 30 2 *'}", "schedule: day-of-month: can never occur: February has 28 or 29 days; did you mean 28?"),
    ("{'task': 't', 'schedule': crontab(day_of_month=31, month_of_year=2)}", "schedule: day_of_month: can never occur: February has 28 or 29 days; did you mean 28?"),
    ("{'task': 't', 'schedule': '61 * * * *'}", "schedule: minute: cannot read '61'; expected numbers 0 to 59, ranges, steps, or lists of them"),
    ("{'task': 't', 'schedule': crontab(minute=61)}", "schedule: minute: cannot read 61; expected numbers 0 to 59, ranges, steps, or lists of them"),
    ("{'task': 't', 'schedule': theirs(minute=61)}", "schedule: this raised ValueError: Invalid crontab pattern.  Valid range is 0-59. '61' was found."),
    ("{'task': 't', 'schedule': crontab(minutes=1)}", "schedule: this raised TypeError: crontab.__init__() got an unexpected keyword argument 'minutes'; did you mean 'minute'?"),
    ("{'task': 't', 'schedule': timedelta(minute=1)}", f"schedule: this raised TypeError: {misspelled()}"),
    ("{'task': 't', 'schedule': 5, 'args': [1 / 0]}", "args: this raised ZeroDivisionError: division by zero"),
    ("{'task': 't', 'schedule': 5, 'timezone': 'Europe/Pariss'}", "timezone: no zone named 'Europe/Pariss'; did you mean 'Europe/Paris'?"),
    ("{'task': 't', 'schedule': 5, 'overlapp': 'skip'}", "unknown key 'overlapp'; did you mean 'overlap'?"),
    ("{'task': 't', 'schedule': 5, 'queue': 'q'}", "unknown key 'queue'; it goes into 'options': {'queue': ...}"),
    ("{'task': 't', 'schedule': 5, 'overlap': 'never'}", "overlap: expected 'allow', 'skip' or 'queue_one', got 'never'"),
    ("{'task': 't', 'schedule': 5, 'coalesce': 'no'}", "coalesce: expected True or False, got 'no'"),
    ("{'task': 't', 'schedule': 5, 'max_runs': 0}", "max_runs: expected a whole number from 1 up, got 0"),
    ("{'task': 't', 'schedule': 5, 'max_catchup': 1.5}", "max_catchup: expected a whole number from 1 up, got 1.5"),
    ("{'task': 't', 'schedule': 5, 'jitter': -1}", "jitter: expected seconds (a number or a timedelta), got -1"),
    ("{'task': 't', 'schedule': 5, 'misfire_grace_time': 'a'}", "misfire_grace_time: expected seconds (a number or a timedelta), got 'a'"),
    ("{'task': 't', 'schedule': 5, 'start_time': '2026'}", "start_time: expected a datetime, got '2026'"),
    ("{'task': 't', 'schedule': 5, 'start_time': datetime(2027, 1, 1)}", "start_time: which zone is 2027-01-01 00:00:00 in?; add it, as in datetime(..., tzinfo=ZoneInfo('UTC'))"),
    ("{'task': 't', 'schedule': 5, 'start_time': datetime(2027, 1, 1, tzinfo=UTC), 'end_time': datetime(2026, 1, 1, tzinfo=UTC)}", "end_time: it lies before start_time"),
    ("{'task': 't', 'schedule': 5, 'args': 'abc'}", "args: expected a list or tuple, got str"),
    ("{'task': 't', 'schedule': 5, 'kwargs': [1]}", "kwargs: expected a dict, got list"),
    ("{'task': 't', 'schedule': 5, 'args': [1, {'a': object()}]}", "args[1]['a']: json has no form for type object"),
    ("{'task': 't', 'schedule': 5, 'kwargs': {'a': {1, 2}}}", "kwargs['a']: json has no form for type set"),
    ("{'task': 't', 'schedule': 5, 'options': ['queue']}", "options: expected a dict, got a list"),
    ("{'task': 't', 'schedule': 5, 'options': {'priority': 'high'}}", "options['priority']: expected an integer, got 'high'"),
    ("{'task': 't', 'schedule': 5, 'options': {'queue': 5}}", "options['queue']: expected a name, got 5"),
    ("{'task': 't', 'schedule': 5, 'options': {'expires': 'soon'}}", "options['expires']: expected seconds, a datetime or ISO 8601 text, got 'soon'"),
    ("{'task': 't', 'schedule': 5, 'options': {'headers': 5}}", "options['headers']: expected a dict with text as names, got 5"),
    ("{'task': 't', 'schedule': 5, 'options': {'expire': 5}}", "unknown option 'expire'; did you mean 'expires'?"),
    ("{'task': 't', 'schedule': 5, 'options': {'jitter': 5}}", "unknown option 'jitter'; it goes beside 'options', not inside"),
]  # fmt: skip
IMPORTS = """\
from datetime import UTC, datetime, timedelta
from celery.schedules import crontab as theirs
from beatd.schedules import crontab
"""


@pytest.mark.parametrize(("written", "message"), WRONG)
def test_a_bad_entry_is_named_with_its_line_and_the_rest_is_read(
    folder: Path, written: str, message: str
) -> None:
    text = f"""{IMPORTS}
beat_schedule = {{
    "before": {{"task": "t", "schedule": 5}},
    "wrong": {written},
    "after": dict(task="t", schedule=crontab()),
}}
beat_schedule["later"] = {{"task": "t", "schedule": 5}}
"""
    config = load(wanted(folder, text))

    assert [read.name for read in config.entries] == ["before", "after", "later"]
    (bad,) = config.bad
    assert bad.name == "wrong"
    assert [str(problem) for problem in bad.problems] == [
        f"conf.py:7: entry 'wrong': {message}"
    ]


def test_all_that_is_wrong_in_an_entry_is_said_at_once() -> None:
    report = examined(
        {"e": {"schedule": 0, "overlap": 1, "timezone": "X", "options": 1, "y": 1}}
    )

    assert [problem.message for problem in report.problems] == [
        "entry 'e': unknown key 'y'",
        "entry 'e': overlap: expected 'allow', 'skip' or 'queue_one', got 1",
        "entry 'e': timezone: no zone named 'X'",
        "entry 'e': schedule: every: expected more than 0 seconds, got 0",
        "entry 'e': it has no 'task'",
    ]


def test_a_name_that_is_no_text_is_a_bad_entry() -> None:
    (problem,) = examined({7: {"task": "t", "schedule": 5}}).problems

    assert str(problem) == "entry '7': expected a text, not empty, as its name"


def test_a_problem_is_placed_at_the_value_that_is_wrong(folder: Path) -> None:
    text = 'beat_schedule = {"e": {"task": "t", "schedule": 5, "jitter": -1}}'
    (problem,) = examine(wanted(folder, text)).problems

    assert problem.place == Place("conf.py", 1, 61, 63)


def test_a_place_inside_crontab_is_that_of_its_argument(folder: Path) -> None:
    text = f"""{IMPORTS}
beat_schedule = {{
    "month-end": {{
        "task": "shop.tasks.close",
        "schedule": crontab(minute=0, hour=6, day_of_month=31, month_of_year=2),
    }},
}}
"""
    report = examine(wanted(folder, text))
    (problem,) = report.problems

    assert problem.place
    assert report.config
    line = report.config.source.line(problem.place.line)
    assert line[problem.place.column : problem.place.end_column] == "31"


def test_an_entry_that_a_loop_makes_is_placed_at_the_setting(folder: Path) -> None:
    text = """
    beat_schedule = {
        name: {"task": "t", "schedule": 0} for name in ("a", "b")
    }
    """
    report = examine(wanted(folder, text))

    assert [str(problem) for problem in report.problems] == [
        f"conf.py:2: entry '{name}': schedule: every: expected more than 0 seconds, got 0"
        for name in "ab"
    ]


def test_strict_refuses_a_config_with_a_bad_entry() -> None:
    schedule = {"bad": {"task": "t"}, "good": {"task": "t", "schedule": 5}}
    source = Source("conf", {"beat_schedule": schedule})

    class Given(Wanted):
        def read(self) -> Source:
            return source

    assert len(load(Given()).entries) == 1
    with pytest.raises(ConfigError, match="entry 'bad': it has no 'schedule'"):
        load(Given(), strict=True)


def test_a_key_that_stands_twice_in_a_dict_is_warned_about(folder: Path) -> None:
    text = """
    beat_schedule = {
        "tick": {"task": "t", "schedule": 1},
        "tick": {"task": "t", "schedule": 2},
    }
    """
    config = load(wanted(folder, text))

    (warning,) = config.warnings
    assert str(warning) == (
        "conf.py:4: 'tick' stands twice in one dict, first in line 3; only the last one"
        " counts: rename or remove one"
    )
    assert warning.warning
    assert len(config.entries) == 1


# Bad settings


def test_bad_settings_refuse_with_all_that_is_wrong_in_one_text(folder: Path) -> None:
    text = """
    timezone = "Europe/Pariss"
    BROKER_URL = "redsi://:secret@host"
    beat_shedule = {}
    CELERYD_CONCURRENCY = "4"
    CELERY_TASK_TIME_LIMIT = 20
    task_time_limit = 30
    beat_schedule = {"bad": {"task": "t"}}
    """
    with pytest.raises(ConfigError) as refused:
        load(wanted(folder, text))

    assert str(refused.value).splitlines() == [
        "cannot use conf.py",
        "  conf.py:2: timezone: no zone named 'Europe/Pariss'; did you mean 'Europe/Paris'?",
        "  conf.py:3: BROKER_URL: no broker for the scheme 'redsi'; did you mean 'redis'?",
        "  conf.py:4: unknown setting 'beat_shedule'; did you mean 'beat_schedule'?",
        "  conf.py:5: CELERYD_CONCURRENCY: expected a whole number from 0 up or 'auto' or None, got '4'",
        "  conf.py:7: CELERY_TASK_TIME_LIMIT = 20 (conf.py:6) contradicts task_time_limit = 30 (conf.py:7); both spell one setting: keep one of them",
    ]


def test_all_that_is_wrong_in_one_entry_is_found_at_once(folder: Path) -> None:
    text = """
    beat_schedule = {"bad": {
        "task": "t",
        "schedule": 0,
        "args": (object(),),
        "jitter": -1,
        "options": {
            "expires": "soon",
            "priority": "high",
            "queue": "q",
        },
    }}
    """
    report = examine(wanted(folder, text))

    assert [str(problem) for problem in report.problems] == [
        "conf.py:4: entry 'bad': schedule: every: expected more than 0 seconds, got 0",
        "conf.py:5: entry 'bad': args[0]: json has no form for type object",
        "conf.py:6: entry 'bad': jitter: expected seconds (a number or a timedelta), got -1",
        "conf.py:8: entry 'bad': options['expires']: expected seconds, a datetime or ISO 8601 text, got 'soon'",
        "conf.py:9: entry 'bad': options['priority']: expected an integer, got 'high'",
    ]


def test_a_check_finds_problems_of_settings_and_entries_together(folder: Path) -> None:
    text = """
    beat_schedule = {"bad": {"task": "t"}}
    timezone = "Mars"
    """
    report = examine(wanted(folder, text))

    assert [str(problem) for problem in report.problems] == [
        "conf.py:2: entry 'bad': it has no 'schedule'",
        "conf.py:3: timezone: no zone named 'Mars'",
    ]


def test_a_module_that_cannot_be_executed_is_refused_in_one_text(folder: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(wanted(folder, "x = 1\ny = x / 0\n"))

    assert str(refused.value).splitlines() == [
        "cannot use conf.py",
        "  conf.py:2: this line raised ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("task_routes = 5", "conf.py:1: task_routes: expected a dict, a list of pairs or a function, or its name, got 5"),
        ("CELERY_QUEUES = 5", "conf.py:1: task_queues: expected a list or a dict, got 5"),
        ("task_queues = [5]", "conf.py:1: task_queues: expected a Queue, got 5"),
        ("task_queues = {'a': 5}", "conf.py:1: task_queues['a']: expected a dict, got 5"),
        ("task_queues = {'a': {'expires': 1e308}}", "conf.py:1: task_queues['a']: expires: expected at most 3155760000 seconds (a hundred years), got 1e+308"),
        ("task_queues = {'a\\ud800': {}}", "conf.py:1: task_queues['a\\ud800']: name: expected text, got 'a\\ud800'"),
        ("task_queues = {5: {}}", "conf.py:1: task_queues[5]: name: expected text, got 5"),
    ],
)  # fmt: skip
def test_wrong_queues_and_routes_are_refused(
    folder: Path, written: str, said: str
) -> None:
    (problem,) = examine(wanted(folder, written)).problems

    assert str(problem) == said


def test_what_has_no_effect_is_known(folder: Path) -> None:
    config = load(wanted(folder, "worker_enable_gossip = True\nCELERYD_AGENT = None"))

    assert config.unused == ["worker_enable_gossip", "CELERYD_AGENT"]


@pytest.mark.parametrize(
    "written",
    [
        "accept_content = ['json', 'pickle']",
        "CELERY_ACCEPT_CONTENT = ['application/x-python-serialize']",
        "result_accept_content = ['pickle']",
    ],
)
def test_pickle_is_warned_of(folder: Path, written: str) -> None:
    (problem,) = examine(wanted(folder, written)).problems

    assert problem.warning
    assert "runs any code here" in problem.message
    assert problem.place is not None
    assert problem.place.line == 1


def test_content_that_nobody_can_decode_is_warned_of(folder: Path) -> None:
    (problem,) = examine(wanted(folder, "accept_content = ['json', 'own']")).problems

    assert problem.warning
    assert "no serializer named 'own'" in problem.message


def test_content_that_runs_no_code_is_not_warned_of(folder: Path) -> None:
    written = "accept_content = result_accept_content = ['json', 'yaml', 'msgpack']"

    assert examine(wanted(folder, written)).problems == []


SECURE = "broker_url = 'rediss://:pw@h'; result_backend = 'rediss://:pw@r'"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("broker_url = 'rediss://:pw@h?ssl_cert_reqs=CERT_NONE'", ["broker_url: h"]),
        ("broker_url = 'rediss://:pw@h?ssl_cert_reqs=none'", ["broker_url: h"]),
        ("BROKER_URL = 'rediss://:pw@h?ssl_cert_reqs=None'", ["broker_url: h"]),
        (f"{SECURE}; broker_use_ssl = {{'ssl_cert_reqs': 0}}", ["broker_use_ssl: h"]),
        (f"{SECURE}; BROKER_USE_SSL = {{'cert_reqs': None}}", ["broker_use_ssl: h"]),
        (
            "import ssl; broker_url = 'redis://h;redis://i'\n"
            "broker_use_ssl = {'ssl_cert_reqs': ssl.CERT_NONE}",
            ["broker_use_ssl: h", "broker_use_ssl: i"],
        ),
        (
            f"{SECURE}; redis_backend_use_ssl = {{'ssl_cert_reqs': 'none'}}",
            ["redis_backend_use_ssl: r"],
        ),
        (
            "result_backend = 'rediss://:pw@r?ssl_cert_reqs=CERT_NONE'",
            ["result_backend: r"],
        ),
        ("broker_url = 'redis://h?ssl_cert_reqs=none'", []),  # no TLS, and no promise
        (f"{SECURE}; broker_use_ssl = {{'ssl_cert_reqs': 'required'}}", []),
        (f"{SECURE}; broker_use_ssl = True", []),
    ],
)
def test_a_server_that_need_not_prove_who_it_is_is_warned_of(
    folder: Path, written: str, said: list[str]
) -> None:
    problems = examine(wanted(folder, written)).problems

    assert all(problem.warning and problem.place for problem in problems)
    words = [problem.message for problem in problems]
    assert all("with ssl_cert_reqs none, whoever is on the way" in one for one in words)
    assert not any("pw" in str(problem) for problem in problems)
    hosts = [re.sub(r": .*://(:\*\*\*@)?(\w).*", r": \2", one) for one in words]
    assert hosts == said


# Queues

KOMBU: Any = kombu  # it has no types


@pytest.mark.parametrize(
    "declared",
    [
        [Queue("fast", "shop", "topic", "shop.#")],
        [KOMBU.Queue("fast", KOMBU.Exchange("shop", type="topic"), "shop.#")],
        {"fast": {"exchange": "shop", "exchange_type": "topic", "binding_key": "shop.#"}},
    ],
)  # fmt: skip
def test_queues_may_be_declared_in_every_form(declared: Any) -> None:
    queues = router(Settings(task_queues=declared)).queues

    assert queues == {"fast": Queue("fast", "shop", "topic", "shop.#")}


# Once more


def test_a_reload_sees_what_changed(folder: Path) -> None:
    where = wanted(folder, "beat_schedule = {'a': {'task': 't', 'schedule': 1}}")
    load(where)
    wanted(folder, "beat_schedule = {'b': {'task': 't', 'schedule': 1}}")

    assert [read.name for read in load(where).entries] == ["b"]


# The settings of the article, in exactly these spellings

ARTICLE = """
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "Asia/Shanghai"
CELERY_INCLUDE = ["proj.tasks"]
CELERYBEAT_SCHEDULER = "celery.beat:PersistentScheduler"
CELERYBEAT_SCHEDULE_FILENAME = "log/celery.db"
BROKER_URL = "redis://:secret@127.0.0.1:6379/0"
BROKER_TRANSPORT_OPTIONS = {"fanout_prefix": True}
CELERY_RESULT_BACKEND = "redis://127.0.0.1:6379/1"
CELERY_RESULT_SERIALIZER = "json"
CELERY_RESULT_PERSISTENT = True
CELERY_TASK_RESULT_EXPIRES = 60 * 60 * 24
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_TIME_LIMIT = 30 * 60
CELERY_TASK_IGNORE_RESULT = False
CELERYD_CONCURRENCY = 4
CELERYD_MAX_TASKS_PER_CHILD = 500
CELERY_REDIS_MAX_CONNECTIONS = 20
"""


def test_the_settings_of_the_article_work_together(folder: Path) -> None:
    config = load(wanted(folder, ARTICLE))
    chosen = config.settings

    assert config.warnings == []
    assert chosen.accept_content == ("json",)
    assert chosen.zone == ZoneInfo("Asia/Shanghai")
    assert chosen.modules == ("proj.tasks",)
    assert chosen.beat_scheduler == "celery.beat:PersistentScheduler"
    assert chosen.beat_schedule_filename == "log/celery.db"
    assert chosen.write_urls == ("redis://:secret@127.0.0.1:6379/0",)
    assert chosen.broker_transport_options == {"fanout_prefix": True}
    assert chosen.result_url == "redis://127.0.0.1:6379/1"
    assert chosen.result_serializer == "json"
    assert chosen.result_persistent is True
    assert chosen.result_ttl == 24 * HOUR
    assert chosen.task_serializer == "json"
    assert chosen.task_time_limit == 1800
    assert chosen.task_ignore_result is False
    assert chosen.worker_concurrency == 4
    assert chosen.worker_max_tasks_per_child == 500
    assert chosen.redis_max_connections == 20


# Examples

FOLDER = Path(__file__).parent.parent / "examples" / "schedules"
EXAMPLES = [FOLDER / f"{name}.py" for name in ("basic", "every_kind", "timezones")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_nothing_wrong(folder: Path, path: Path) -> None:
    report = examine(Wanted(config=str(path), folder=folder))

    assert report.problems == []
    assert report.config is not None
    assert report.config.entries
    assert all(
        read.schedule.next_after(NOON) is not None for read in report.config.entries
    )
