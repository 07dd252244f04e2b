"""Schedules of Celery's and of packages around it: known by name, or refused."""
# ruff: noqa: E501  (tables of text have one case in a line)

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule, solar
from django_celery_beat.clockedschedule import clocked
from django_celery_beat.tzcrontab import TzAwareCrontab

from beatd.config.loading import ConfigReport, Wanted, examine, examine_source
from beatd.config.source import Source
from beatd.instant import datetime_of, instant_of
from tests.switch.files import write

pytestmark = pytest.mark.usefixtures("afresh")

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")


def examined(written: object, **more: object) -> ConfigReport:
    entry = {"task": "t", "schedule": written, **more}
    settings = {"timezone": "America/New_York", "beat_schedule": {"e": entry}}
    return examine_source(Source("conf", settings))


@pytest.mark.parametrize("month", range(1, 13))
@pytest.mark.parametrize("zone", [TOKYO, BERLIN, UTC])
def test_a_crontab_with_a_zone_runs_by_that_zone(zone: ZoneInfo, month: int) -> None:
    theirs = TzAwareCrontab(30, 9, day_of_week="mon-fri", tz=zone)
    theirs.app = Celery(
        "zones", set_as_current=False, changes={"timezone": "America/New_York"}
    )
    at = datetime(2026, month, 13, 4, tzinfo=UTC)
    theirs.nowfun = lambda: at.astimezone(zone)

    config = examined(theirs).config
    assert config
    ours = config.entries[0].schedule.next_after(instant_of(at))

    assert ours is not None
    assert datetime_of(ours, UTC) == at + theirs.remaining_estimate(at.astimezone(zone))
    assert datetime_of(ours, zone).strftime("%H:%M") == "09:30"


def test_a_date_of_django_celery_beat_is_a_single_slot() -> None:
    at = datetime(2026, 12, 24, 18, tzinfo=BERLIN)

    config = examined(clocked(at)).config

    assert config
    first = config.entries[0].schedule.next_after(instant_of(at) - 1)
    assert first == instant_of(at)
    assert config.entries[0].schedule.next_after(first) is None


class ProjCrontab(crontab):  # type: ignore[misc] # no types
    """A crontab that leaves out holidays, say."""

    def is_due(self, last_run_at: datetime) -> object:
        return super().is_due(last_run_at)


class Same(schedule):  # type: ignore[misc] # no types
    """A class that changes nothing, as far as can be told."""


class ProjSolar(solar):  # type: ignore[misc] # no types
    pass


class Own(BaseSchedule):  # type: ignore[misc] # no types
    def is_due(self, last_run_at: datetime) -> object:
        return False, 60


REASON = "has rules of its own, which beatd cannot ask ahead of time; write them as crontab, every, rrule or once of beatd.schedules"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (ProjCrontab(minute=5), f"ProjCrontab {REASON}"),
        (Same(timedelta(minutes=5)), f"Same {REASON}"),
        (ProjSolar("sunset", 1, 2), f"ProjSolar {REASON}"),
        (Own(), f"Own {REASON}"),
        (crontab(5, nowfun=lambda: datetime.now(TOKYO)), "nowfun: it has a clock of its own, which beatd cannot ask ahead of time; leave nowfun out; 'timezone' in the entry says in which zone it runs"),
        (schedule(60, nowfun=lambda: datetime.now(TOKYO)), "nowfun: it has a clock of its own, which beatd cannot ask ahead of time; leave nowfun out; 'timezone' in the entry says in which zone it runs"),
    ],
)  # fmt: skip
def test_a_schedule_with_rules_of_its_own_is_a_bad_entry(
    written: object, said: str
) -> None:
    report = examined(written)

    assert [str(one) for one in report.problems] == [f"entry 'e': schedule: {said}"]
    assert report.config
    assert report.config.entries == []


def test_one_such_entry_of_a_project_stops_no_other(tmp_path: Path) -> None:
    text = """
        from celery import Celery
        from celery.schedules import crontab
        class ProjCrontab(crontab):
            pass
        app = Celery("proj", set_as_current=False)
        app.conf.beat_schedule = {
            "good": {"task": "proj.t", "schedule": crontab(minute=5)},
            "bad": {
                "task": "proj.t",
                "schedule": ProjCrontab(minute=5),
            },
        }
        """
    write(tmp_path, {"proj.py": text})

    report = examine(Wanted(app="proj"))

    assert [str(one) for one in report.problems] == [
        f"proj.py:11: entry 'bad': schedule: ProjCrontab {REASON}"
    ]
    assert report.config
    names = [entry.name for entry in report.config.entries]
    assert names == ["good", "celery.backend_cleanup"], "the second is Celery's own"
