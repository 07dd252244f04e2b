"""Packages for Celery with Django, as they are: Celery's worker and ours beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, environment, module
from tests.servers import PATIENCE, Server
from tests.switch.files import write

SITE = {
    "site_of/__init__.py": "",
    "site_of/settings.py": """
        import os

        SECRET_KEY = "of a test"
        USE_TZ = True
        INSTALLED_APPS = ["django_celery_results", "django_structlog"]
        DJANGO_STRUCTLOG_CELERY_ENABLED = True
        DATABASES = {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": "db",
                "OPTIONS": {
                    "timeout": 60,
                    # Else two that read and then write are told that it is locked.
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
                },
            }
        }
        CELERY_BROKER_URL = os.environ["BROKER"]
        CELERY_RESULT_BACKEND = "django-db"
        CELERY_RESULT_EXTENDED = True
        CELERY_TASK_TRACK_STARTED = True
        CELERY_RESULT_EXPIRES = 3600
        CELERY_BEAT_SCHEDULE = {
            "hourly": {"task": "site_of.celery.add", "schedule": 3600, "args": (7, 8)},
            "clean": {"task": "celery.backend_cleanup", "schedule": 0.2},
        }
        """,
    "site_of/celery.py": """
        import os
        import time

        import structlog
        from celery import Celery, signals
        from celery.exceptions import Ignore
        from django_structlog.celery.receivers import CeleryReceiver
        from django_structlog.celery.steps import DjangoStructLogInitStep

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of.settings")
        app = Celery("site_of")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.JSONRenderer(default=repr),
            ],
            logger_factory=structlog.PrintLoggerFactory(open("events", "a", 1)),
        )
        receiver = CeleryReceiver()
        app.steps["worker"].add(DjangoStructLogInitStep)


        @signals.worker_init.connect
        def connect(**_):
            if os.environ["PROGRAM"] == "beatd":
                receiver.connect_worker_signals()


        @app.task
        def add(x, y):
            return x + y


        @app.task
        def total(numbers):
            return sum(numbers)


        @app.task
        def fail(text):
            raise ValueError(text)


        @app.task(bind=True, max_retries=1, default_retry_delay=0)
        def again(self):
            raise self.retry(exc=KeyError("again"))


        @app.task(bind=True)
        def calling(self, x):
            self.request.meta = {"colour": "red"}
            add.delay(x, 1)
            return x


        @app.task(time_limit=2)
        def slow(*args, **kwargs):
            time.sleep(60)


        @app.task
        def silent():
            raise Ignore
        """,
    "calls.py": """
        import json
        import time
        from datetime import timedelta

        import django
        import structlog
        from celery import chord
        from site_of.celery import *

        django.setup()
        from django.utils.timezone import now
        from django_celery_results.models import ChordCounter, GroupResult, TaskResult

        structlog.contextvars.bind_contextvars(request_id="asked")
        calls = {
            "add": add.delay(1, y=2),
            "fail": fail.delay("no"),
            "again": again.delay(),
            "calling": calling.delay(3),
            "slow": slow.delay(1, two=2),
            "silent": silent.delay(),
            "expired": add.apply_async((1, 2), expires=-5),
            "scheduled": add.apply_async(
                (7, 8), headers={"periodic_task_name": "hourly"}, expires=-5
            ),
            "chord": chord([add.s(1, 1), add.s(2, 2)])(total.s()),
            "failed chord": chord([add.s(1, 1), fail.s("part")])(total.s()),
        }


        def until(look):
            deadline = time.monotonic() + 60
            while not look():
                assert time.monotonic() < deadline
                time.sleep(0.02)


        until(lambda: all(c.ready() for name, c in calls.items() if name != "silent"))
        until(lambda: calls["silent"].state == "STARTED")
        names = {call.id: name for name, call in calls.items()}
        rows = {}
        children = TaskResult.objects.exclude(task_id__in=names)
        until(lambda: children.filter(task_name__endswith="add").count() == 4)
        until(lambda: not ChordCounter.objects.exists())
        for row in TaskResult.objects.exclude(task_name="celery.backend_cleanup"):
            shown = {field.name: getattr(row, field.name) for field in row._meta.fields}
            rows[names.get(row.task_id) or f"{row.task_name} {row.task_args}"] = shown

        old = TaskResult.objects.create(task_id="old", status="SUCCESS")
        long_ago = now() - timedelta(hours=2)
        TaskResult.objects.filter(task_id="old").update(date_done=long_ago)
        until(lambda: not TaskResult.objects.filter(task_id="old").exists())
        print(json.dumps(rows, default=str))
        """,
}

VOLATILE = ("id", "task_id", "date_created", "date_done", "date_started", "traceback")


class Site:
    """What a project's worker, with a scheduler in it, has left behind."""

    def __init__(self, folder: Path, rows: dict[str, Any], log: str) -> None:
        self.rows = rows
        self.log = log
        lines = (folder / "events").read_text().splitlines()
        self.events = [json.loads(line) for line in lines]


def run(folder: Path, server: Server, program: str) -> Site:
    with server.client() as client:
        client.flushall()
    env = {
        "BROKER": server.url(),
        "PROGRAM": program,
        "DJANGO_SETTINGS_MODULE": "site_of.settings",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }

    def python(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            cwd=folder,
            env=environment(**env),
            timeout=2 * PATIENCE,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    write(folder, SITE)
    python(
        "-m",
        "django",
        "migrate",
        "-v0",
    )
    arguments = ("-A", "site_of", "worker", "-B", "-c", "2", "-l", "info", "-n", "s@h")
    with module(program, *arguments, cwd=folder, **env) as worker:
        worker.until(" ready")
        rows = json.loads(python("calls.py"))
        worker.stop()
    return Site(folder, rows, worker.output)


pytestmark = pytest.mark.xdist_group("packages of Django")


@pytest.fixture(scope="module")
def sites(
    _server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Site, Site]:
    """Return what Celery has left behind, and what beatd has."""
    theirs = run(tmp_path_factory.mktemp("theirs"), _server, "celery")
    return theirs, run(tmp_path_factory.mktemp("ours"), _server, "beatd")


def test_results_arrive_in_the_tables_of_django_celery_results(
    sites: tuple[Site, Site],
) -> None:
    theirs, ours = (site.rows for site in sites)

    assert theirs.keys() == ours.keys()
    for name in theirs:
        assert lasting(ours[name]) == lasting(theirs[name]), name
    assert ours["scheduled"]["periodic_task_name"] == "hourly"
    assert ours["chord"]["result"] == "6"
    assert ours["slow"]["status"] == "FAILURE"


def lasting(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is not of one run only; of that, whether it is there."""
    kept = {name: value for name, value in row.items() if name not in VOLATILE}
    kept["there"] = [name for name in VOLATILE if row[name]]
    kept["children"] = len(json.loads(kept.pop("meta"))["children"])
    if row["status"] == "STARTED":
        del kept["result"]  # it has the process's id
    return kept


def test_django_structlog_says_the_same_once_a_receiver_connects_it(
    sites: tuple[Site, Site],
) -> None:
    theirs, ours = ({*map(told, site.events)} for site in sites)

    # Celery's `-B` is a process of its own, in which its step has connected nothing.
    ours.discard(("task_enqueued", "", "celery.backend_cleanup"))
    assert ours == theirs
    assert ("task_started", "asked", "site_of.celery.add") in ours
    assert ("task_revoked", "asked", "site_of.celery.add") in ours


def told(event: dict[str, Any]) -> tuple[str, str, str]:
    name = event.get("task") or event.get("child_task_name") or event.get("error", "")
    return event["event"], event.get("request_id", ""), name


def test_the_bootstep_of_django_structlog_is_named_with_the_way_out(
    sites: tuple[Site, Site],
) -> None:
    assert (
        "bootsteps are not run, and what they would set up is missing:"
        " django_structlog.celery.steps:DjangoStructLogInitStep; a receiver of"
        " worker_init can do what a step does when it is made"
    ) in sites[1].log
