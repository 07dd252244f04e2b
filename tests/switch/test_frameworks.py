"""Documented projects of Django, Flask and FastAPI, with and without Celery."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes import environment
from tests.servers import PATIENCE, Server, eventually
from tests.switch.ways import Project

WAYS = ("celery", "both", "swapped")

DJANGO = {
    "manage.py": """
        import os
        import sys

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
        """,
    "proj/__init__.py": """
        from .celery import app as celery_app

        __all__ = ("celery_app",)
        """,
    "proj/celery.py": """
        import os

        from celery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

        app = Celery("proj")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()


        @app.task(bind=True, ignore_result=True)
        def debug_task(self):
            print(f"Request: {self.request!r}")
        """,
    "proj/settings.py": """
        import os
        from pathlib import Path

        SECRET_KEY = "of a test"
        TIME_ZONE = "Asia/Tokyo"
        USE_TZ = True
        INSTALLED_APPS = ["shop"]
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        DATABASES = {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": Path(__file__).parent.parent / "db.sqlite3",
                "OPTIONS": {"timeout": 30},
            }
        }
        CELERY_BROKER_URL = os.environ["BROKER"]
        CELERY_RESULT_BACKEND = os.environ["BACKEND"]
        CELERY_BEAT_SCHEDULE = {
            "every-second": {
                "task": "shop.tasks.sell", "schedule": 1.0, "args": ("tick",),
            },
        }
        """,
    "shop/__init__.py": "",
    "shop/migrations/__init__.py": "",
    "shop/models.py": """
        from django.db import models


        class Sale(models.Model):
            name = models.CharField(max_length=100)
        """,
    "shop/tasks.py": """
        from celery import shared_task

        from shop.models import Sale


        @shared_task
        def sell(name):
            return [Sale.objects.create(name=name).name, Sale._meta.app_label]


        @shared_task
        def sold(name):
            return Sale.objects.filter(name=name).count()
        """,
    "drive.py": """
        import json
        import os

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
        import django

        django.setup()
        from django.db import transaction

        from proj.celery import app
        from shop.models import Sale
        from shop.tasks import sell, sold

        found = {}
        found["sell"] = sell.delay("book").get(timeout=50)
        found["sold"] = sold.delay("book").get(timeout=50)
        with transaction.atomic():
            Sale.objects.create(name="lamp")
            sell.delay_on_commit("after")
            found["before the commit"] = Sale.objects.filter(name="after").count()
        with transaction.atomic():
            Sale.objects.create(name="chair")
            sold.apply_async_on_commit(("chair",), task_id="counted")
        found["after the commit"] = app.AsyncResult("counted").get(timeout=50)
        found["zone"] = str(app.timezone)
        print(json.dumps(found))
        """,
}

FLASK = {
    "site_app.py": """
        import os

        from celery import Celery, Task
        from flask import Flask, current_app


        def celery_init_app(app: Flask) -> Celery:
            class FlaskTask(Task):
                def __call__(self, *args: object, **kwargs: object) -> object:
                    with app.app_context():
                        return self.run(*args, **kwargs)

            celery_app = Celery(app.name, task_cls=FlaskTask)
            celery_app.config_from_object(app.config["CELERY"])
            celery_app.set_default()
            app.extensions["celery"] = celery_app
            return celery_app


        def create_app() -> Flask:
            app = Flask("shop")
            app.config.from_mapping(
                GREETING="hello",
                CELERY=dict(
                    broker_url=os.environ["BROKER"],
                    result_backend=os.environ["BACKEND"],
                    beat_schedule={
                        "every-second": {
                            "task": "jobs.greet", "schedule": 1.0, "args": ("tick",),
                        },
                    },
                ),
            )
            app.config.from_prefixed_env()
            celery_init_app(app)
            import jobs

            @app.post("/greet/<name>")
            def greet(name):
                return {"id": jobs.greet.delay(name).id}

            return app
        """,
    "jobs.py": """
        from celery import shared_task
        from flask import current_app


        @shared_task(ignore_result=False)
        def greet(name):
            return f"{current_app.config['GREETING']} {name}"
        """,
    "make_celery.py": """
        from site_app import create_app

        flask_app = create_app()
        celery_app = flask_app.extensions["celery"]
        """,
    "drive.py": """
        import json

        from celery.result import AsyncResult
        from make_celery import flask_app

        answer = flask_app.test_client().post("/greet/you").json
        print(json.dumps(AsyncResult(answer["id"]).get(timeout=50)))
        """,
}

FASTAPI = {
    "site_app.py": """
        import os
        from contextlib import asynccontextmanager

        from celery import Celery
        from fastapi import FastAPI

        jobs = Celery("jobs")
        jobs.conf.update(
            broker_url=os.environ["BROKER"], result_backend=os.environ["BACKEND"]
        )


        @jobs.task(name="greet")
        def greet(name):
            return f"hello {name}"


        @asynccontextmanager
        async def lifespan(app):
            app.state.first = greet.delay("early")
            yield
            jobs.close()


        app = FastAPI(lifespan=lifespan)


        @app.post("/greet/{name}")
        def send(name: str):
            return {"id": greet.delay(name).id, "first": app.state.first.id}


        @app.get("/result/{task_id}")
        def result(task_id: str):
            return {"value": jobs.AsyncResult(task_id).get(timeout=50)}
        """,
    "drive.py": """
        import json

        from fastapi.testclient import TestClient
        from site_app import app

        with TestClient(app) as client:
            sent = client.post("/greet/you").json()
            found = [client.get(f"/result/{sent[n]}").json() for n in ("id", "first")]
        print(json.dumps([one["value"] for one in found]))
        """,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_project_of_django(way: str, server: Server, tmp_path: Path) -> None:
    project = Project.written(tmp_path, DJANGO, way, server)
    run(project, "manage.py", "makemigrations", "shop")
    run(project, "manage.py", "migrate")

    with project.running("proj"):
        assert json.loads(project.told("drive.py")) == {
            "sell": ["book", "shop"],
            "sold": 1,
            "before the commit": 0,
            "after the commit": 1,
            "zone": "Asia/Tokyo",
        }
        eventually(lambda: sales(project) >= {"after", "tick"}, "all sales")


def test_a_project_of_flask(way: str, server: Server, tmp_path: Path) -> None:
    project = Project.written(tmp_path, FLASK, way, server)

    with project.running("make_celery"):
        assert json.loads(project.told("drive.py")) == "hello you"


def test_a_project_of_fastapi(way: str, server: Server, tmp_path: Path) -> None:
    project = Project.written(tmp_path, FASTAPI, way, server)

    with project.running("site_app.jobs"):
        assert json.loads(project.told("drive.py")) == ["hello you", "hello early"]


def sales(project: Project) -> set[str]:
    """Return the names of what was sold by now."""
    with closing(sqlite3.connect(project.folder / "db.sqlite3")) as database:
        return {name for (name,) in database.execute("SELECT name FROM shop_sale")}


def run(project: Project, *command: str) -> None:
    """Run a script of the project."""
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(**project.env),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
