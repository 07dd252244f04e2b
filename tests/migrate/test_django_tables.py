"""The tables of django-celery-beat, written by its own models."""

import json
import runpy
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from beatd import schedules
from beatd.config.loading import examine_source
from beatd.config.source import Source
from beatd.migrate.django_tables import TablesError, read_database
from beatd.schedules.zones import zone_of
from tests.django_site import NOWHERE, fill, write_site
from tests.processes import ended
from tests.servers import Server
from tests.switch.files import write

UTC = zone_of("UTC")
FILL = """
import datetime
from django.conf import settings
from django.utils.timezone import make_naive
from django_celery_beat.models import (
    ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask,
    SolarSchedule,
)
at = datetime.datetime(2026, 11, 30, 12, 0, 1, tzinfo=datetime.timezone.utc)
date = at if settings.USE_TZ else make_naive(at)
later = date + datetime.timedelta(days=400)
kinds = {
    "every": dict(interval=IntervalSchedule.objects.create(
        every=5, period="minutes")),
    "cron": dict(crontab=CrontabSchedule.objects.create(
        minute="0", hour="4, 5", timezone="America/New_York")),
    "sun": dict(solar=SolarSchedule.objects.create(
        event="sunset", latitude=52.5, longitude=13.4)),
    "once": dict(clocked=ClockedSchedule.objects.create(clocked_time=later),
        one_off=True),
}
for name, kind in kinds.items():
    PeriodicTask.objects.create(name=name, task="t", **kind)
PeriodicTask.objects.create(
    name="all", task="t", **kinds["every"], args="[1]", kwargs='{"a": 2}',
    queue="q", priority=3, headers='{"h": 1}', expires=later, start_time=date,
    description="why")
PeriodicTask.objects.create(
    name="off", task="t", enabled=False, expire_seconds=60, **kinds["cron"])
PeriodicTask.objects.create(
    name="done", task="t", one_off=True, **kinds["every"])
PeriodicTask.objects.filter(name="done").update(total_run_count=1)
PeriodicTask.objects.filter(name__in=["every", "all"]).update(
    last_run_at=date, total_run_count=7)
"""
AT_TS = 1796040001.0
EVERY = schedules.every(minutes=5, align=False)


def site(folder: Path, url: str = NOWHERE, use_tz: bool = True) -> None:
    """Write a project of Django, with filled tables."""
    write_site(folder, url, use_tz)
    (folder / "db").write_bytes(filled(use_tz))


@cache  # Django takes seconds to make its tables
def filled(use_tz: bool) -> bytes:
    """Return the database of a project, with rows of all kinds in its tables."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_site(folder, NOWHERE, use_tz)
        fill(folder, FILL)
        return (folder / "db").read_bytes()


def written(path: Path) -> dict[str, Any]:
    entries: dict[str, Any] = runpy.run_path(str(path))["beat_schedule"]
    return entries


def check_entries(entries: dict[str, Any]) -> None:
    """Check what is written of the tables of `fill.py`."""
    for name, one in entries.items():
        if name != "celery.backend_cleanup":
            assert one["options"]["headers"]["periodic_task_name"] == name
    assert entries["every"]["schedule"] == EVERY
    assert entries["cron"]["schedule"] == schedules.crontab(minute="0", hour="4,5")
    assert entries["cron"]["timezone"] == "America/New_York"
    assert entries["sun"]["schedule"] == schedules.solar("sunset", 52.5, 13.4)
    assert entries["once"]["schedule"].at.timestamp() == AT_TS + 400 * 86400
    assert entries["once"]["max_runs"] == 1
    one = entries["all"]
    assert (one["args"], one["kwargs"], one["description"]) == ([1], {"a": 2}, "why")
    assert one["start_time"].timestamp() == AT_TS
    assert one["end_time"] == one["options"]["expires"]
    assert one["options"]["headers"] == {"h": 1, "periodic_task_name": "all"}
    assert (one["options"]["queue"], one["options"]["priority"]) == ("q", 3)
    assert entries["off"]["enabled"] is False
    assert entries["off"]["options"]["expires"] == 60
    assert entries["done"]["enabled"] is False


def test_a_project_of_django_is_taken_over(tmp_path: Path, server: Server) -> None:
    site(tmp_path, server.url())
    words = ("import", "django-celery-beat", "-A", "site_of")

    out = ended(*words, "--config-out", "entries.py", cwd=tmp_path)
    with (tmp_path / "site_of" / "celery.py").open("a") as celery:
        celery.write("from entries import beat_schedule\n")
        celery.write("app.conf.beat_schedule |= beat_schedule\n")
    done = ended(*words, "--yes", cwd=tmp_path)
    listed = ended("list", "-A", "site_of", "--json", cwd=tmp_path)

    assert out.returncode == 0, out.stderr
    check_entries(written(tmp_path / "entries.py"))
    assert done.returncode == 0, done.stderr
    entries = {one["name"]: one for one in json.loads(listed.stdout)["entries"]}
    assert entries["every"]["last_run_at_ts"] == AT_TS
    assert entries["every"]["total_run_count"] == 7
    assert entries["cron"]["last_run_at_ts"] is None


@pytest.mark.parametrize("use_tz", [True, False])
def test_an_sqlite_database_is_read_without_django(
    tmp_path: Path, use_tz: bool
) -> None:
    site(tmp_path, use_tz=use_tz)
    zone = UTC if use_tz else zone_of("Europe/Berlin")
    found = read_database(tmp_path / "db", zone)
    entries = {one.name: one for one in found.entries}

    check_entries({name: one.written for name, one in entries.items()})
    last = entries["every"].last
    assert last is not None
    assert (last.at, last.runs) == (AT_TS * 1000, 7)
    assert entries["once"].last is not None  # it counts from when it was added
    config = examine_source(
        Source("it", {"beat_schedule": {n: one.written for n, one in entries.items()}})
    ).config
    assert config is not None
    assert config.bad == []


def test_a_config_is_written_of_a_database_alone(tmp_path: Path) -> None:
    site(tmp_path)
    words = ("import", "django-celery-beat", "--database", "sqlite:///db")

    out = ended(*words, "--config-out", "entries.py", cwd=tmp_path)
    lacking = ended(*words, cwd=tmp_path)

    assert out.returncode == 0, out.stderr
    check_entries(written(tmp_path / "entries.py"))
    assert lacking.returncode == 78
    assert "name a config with --config FILE" in lacking.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--database", "postgres://me:hush@h/db"], 2, "expected sqlite:///path, got"),
        (["--database", "sqlite:///none"], 1, "error: there is no file none"),
        (["--database", "sqlite:///conf.py"], 1, "error: conf.py: file is not a data"),
        ([], 1, "error: django-celery-beat cannot be asked"),
    ],
)
def test_what_cannot_be_read_is_one_error(
    tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    write(
        tmp_path, {"conf.py": "beat_schedule = {}  # and a hundred bytes" + "#" * 100}
    )

    told = ended(
        "import", "django-celery-beat", "--config", "conf.py", *words, cwd=tmp_path
    )

    assert told.returncode == status
    assert said in told.stderr
    assert "hush" not in told.stderr
    assert "Traceback" not in told.stderr


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    site(tmp_path)
    with closing(sqlite3.connect(tmp_path / "db")) as db, db:
        db.execute(
            "UPDATE django_celery_beat_periodictask SET args = 'no' WHERE name = 'cron'"
        )

    found = read_database(tmp_path / "db", UTC)

    assert found.problems[0].startswith("'cron': Expecting value")
    assert "every" in {one.name for one in found.entries}


def test_tables_that_are_not_there_are_said(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as db, db:
        db.execute("CREATE TABLE other (a)")

    with pytest.raises(TablesError, match="no such table: django_celery_beat"):
        read_database(tmp_path / "db", UTC)
