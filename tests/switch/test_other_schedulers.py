"""Projects that another scheduler ran: said, and never "0 entries, all is well"."""
# ruff: noqa: E501  (tables of text have one case in a line)

from pathlib import Path

import pytest

from beatd.config.loading import Wanted, examine
from beatd.config.options import Options
from tests.django_site import fill, write_site
from tests.processes import beatd, ended
from tests.servers import Server
from tests.switch.files import write

pytestmark = pytest.mark.usefixtures("afresh")

DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


def test_a_scheduler_of_another_class_concerns_schedulers_alone(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"conf.py": f"beat_scheduler = '{DATABASE}'"})

    scheduler = examine(Options.of({"config": "conf"}).wanted()).errors
    worker = examine(Options(config="conf", schedules=False).wanted()).errors

    assert [str(one) for one in scheduler] == [
        f"conf.py:1: beat_scheduler: beatd is itself the scheduler, not '{DATABASE}';"
        " entries in Django's database are not read: they go into beat_schedule, see"
        " beatd import django-celery-beat --help; or leave it, and start with --scheduler beatd"
    ]
    assert worker == []


@pytest.mark.parametrize(
    ("written", "environ", "command_line"),
    [
        (f"beat_scheduler = '{DATABASE}'", {}, {"beat_scheduler": "beatd"}),
        ("broker_url = 'nix://h'", {"CELERY_BROKER_URL": "redis://h"}, {}),
        ("broker_url = 'nix://h'", {}, {"broker_url": "redis://h"}),
        ("broker_url = 'redis://h'\nBROKER_URL = 'redis://i'", {"CELERY_BROKER_URL": "redis://h"}, {}),
        ("task_time_limit = 'long'", {}, {"task_time_limit": 5}),
        ("task_time_limit = 5", {"CELERY_BROKER_URL": "nix://h"}, {"broker_url": "redis://h"}),
    ],
)  # fmt: skip
def test_a_setting_that_is_overridden_is_not_judged(
    tmp_path: Path,
    written: str,
    environ: dict[str, str],
    command_line: dict[str, object],
) -> None:
    write(tmp_path, {"conf.py": written})

    report = examine(Wanted("conf", environ=environ, command_line=command_line))

    assert report.problems == []


def test_a_worker_starts_beside_another_scheduler(
    tmp_path: Path, server: Server
) -> None:
    text = f"""
        from celery import Celery
        app = Celery("proj", broker="{server.url()}")
        app.conf.beat_scheduler = "{DATABASE}"
        """
    write(tmp_path, {"proj.py": text})

    with beatd("worker", "-A", "proj", "-l", "INFO", cwd=tmp_path) as worker:
        worker.until("ready")
        assert worker.stop() == 0
    refused = ended("worker", "-B", "-A", "proj", cwd=tmp_path)

    assert refused.returncode == 78
    assert "--scheduler beatd" in refused.stderr


FILL = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=5, period="minutes")
for name in "abcde":
    PeriodicTask.objects.create(name=name, task="t", interval=every)
PeriodicTask.objects.create(name="off", task="t", interval=every, enabled=False)
PeriodicTask.objects.create(name="celery.backend_cleanup", task="t", interval=every)
"""


def test_entries_in_the_tables_of_django_celery_beat_are_counted(
    tmp_path: Path,
) -> None:
    write_site(tmp_path)
    fill(tmp_path, FILL)

    said = ended("check", "-A", "site_of", cwd=tmp_path)

    assert said.stdout == (
        "site_of: 1 entry, 0 errors, 1 warning\n\n"
        "warning: 5 entries in the tables of django-celery-beat are not scheduled: 'a',"
        " 'b', 'c' and 2 more\n"
        "    beatd schedules what is in beat_schedule; as a module: beatd import"
        " django-celery-beat -A site_of --config-out entries.py\n"
    )
    assert said.stderr == ""


def test_tables_that_cannot_be_looked_at_are_said(tmp_path: Path) -> None:
    write_site(tmp_path)

    said = ended("check", "-A", "site_of", cwd=tmp_path)

    assert (
        "warning: django-celery-beat is installed, and its tables cannot be looked at:"
        " reading it raised OperationalError: no such table"
    ) in said.stdout


def test_entries_of_redbeat_are_counted(tmp_path: Path, server: Server) -> None:
    text = f"""
        from celery import Celery
        app = Celery("proj", broker="{server.url()}", backend="{server.url()}")
        app.conf.beat_schedule = {{"mine": {{"task": "t", "schedule": 3600}}}}
        """
    write(tmp_path, {"proj.py": text})
    with server.client() as client:
        client.zadd("redbeat::schedule", {"redbeat:mine": 1, "redbeat:theirs": 1})

    said = ended("check", "-A", "proj", "--broker", cwd=tmp_path)
    with beatd("-A", "proj", "-l", "INFO", cwd=tmp_path) as scheduler:
        scheduler.until("that RedBeat keeps")
        scheduler.until("leading, term")
        scheduler.stop()
    later = ended("check", "-A", "proj", "--broker", cwd=tmp_path)

    words = "1 entry that RedBeat keeps in Redis is not scheduled: 'theirs'"
    assert words in said.stdout
    assert "beatd import redbeat -A proj --config-out entries.py" in said.stdout
    assert words in scheduler.output
    unknown = (
        "RedBeat ran 1 entry of this config, and beatd does not know yet what ran last\n"
        "    take it over: beatd import redbeat -A proj\n"
    )
    assert unknown in said.stdout
    assert "ran last" not in later.stdout


@pytest.mark.parametrize("eager", [True, False])
def test_tasks_that_are_always_eager_are_queued_all_the_same(
    tmp_path: Path, eager: bool
) -> None:
    text = f"""
        task_always_eager = {eager}
        beat_schedule = {{"a": {{"task": "t", "schedule": 60}}}}
        """
    write(tmp_path, {"conf.py": text})

    assert [str(one) for one in examine(Wanted("conf")).problems] == [
        "conf.py:2: task_always_eager: scheduled tasks are queued, not run in the"
        " scheduler; a worker has to run them; leave it out where none does"
    ] * eager


def test_a_scheduler_says_at_its_start_that_eager_tasks_are_queued(
    tmp_path: Path, server: Server
) -> None:
    text = f"""
        from pathlib import Path
        from celery import Celery
        app = Celery("proj", broker="{server.url()}", backend="{server.url()}")
        app.conf.task_always_eager = True
        app.conf.beat_schedule = {{"a": {{"task": "proj.touch", "schedule": 0.1}}}}
        @app.task
        def touch():
            Path("touched").touch()
        """
    write(tmp_path, {"proj.py": text})

    with beatd("-A", "proj", "-l", "INFO", cwd=tmp_path) as scheduler:
        scheduler.until("a queued")
        scheduler.stop()

    assert (
        scheduler.output.count(
            "proj.py:5: task_always_eager: scheduled tasks are queued, not run in the"
            " scheduler; a worker has to run them; leave it out where none does\n"
        )
        == 1
    )
    assert not (tmp_path / "touched").exists()
    with server.client() as client:
        assert client.llen("celery")
