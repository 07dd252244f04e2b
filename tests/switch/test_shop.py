"""A project with all that Celery's guides show, run in each of the four ways."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, eventually
from tests.switch.ways import WAYS, Project

FILES = {
    "shop/__init__.py": "from .celery import app as celery_app",
    "shop/celery.py": """
        from celery import Celery
        from celery.schedules import crontab

        app = Celery("shop")
        app.config_from_object("shop.config")


        @app.on_after_configure.connect
        def add_entries(sender, **kwargs):
            from shop.orders import note

            sender.add_periodic_task(1.0, note.s("from the handler"), name="handler")
            sender.add_periodic_task(
                crontab(hour=7, minute=30), note.s("in the morning"), name="morning"
            )
        """,
    "shop/config.py": """
        import os

        from celery.schedules import crontab
        from kombu import Exchange, Queue

        broker_url = os.environ["BROKER"]
        result_backend = os.environ["BACKEND"]
        timezone = "Europe/Berlin"
        include = ["shop.orders", "shop.mails"]
        task_default_queue = "orders"
        task_queues = [
            Queue("orders", Exchange("orders"), routing_key="orders"),
            Queue("mails", Exchange("mails", type="topic"), routing_key="mails.#"),
        ]
        task_routes = {"shop.mails.*": {"queue": "mails", "routing_key": "mails.out"}}
        beat_schedule = {
            "every-second": {
                "task": "shop.orders.note",
                "schedule": 1.0,
                "args": ("from the config",),
                "options": {"expires": 60},
            },
            "nightly": {
                "task": "shop.mails.send",
                "schedule": crontab(minute=30, hour=2),
                "args": ("nobody",),
            },
        }
        """,
    "shop/orders.py": """
        import os

        import redis
        from celery import shared_task
        from celery.exceptions import MaxRetriesExceededError
        from celery.utils.log import get_task_logger

        from .celery import app

        logger = get_task_logger(__name__)
        server, _, _ = os.environ["BROKER"].rpartition("/")
        notes = redis.Redis.from_url(server + "/2", decode_responses=True)


        @app.task
        def add(x, y):
            return x + y


        @app.task
        def total(numbers):
            return sum(numbers)


        @shared_task
        def note(text):
            logger.info("noted %s", text)
            notes.sadd("notes", text)


        @shared_task
        def note_failure(request, exc, traceback):
            notes.sadd("notes", f"{request.task} failed: {exc}")


        @app.task(
            bind=True, autoretry_for=(OSError,), retry_backoff=True,
            retry_backoff_max=1, retry_jitter=False, max_retries=2,
        )
        def flaky(self, failures):
            if self.request.retries < failures:
                raise OSError("not yet")
            return self.request.retries


        @app.task(bind=True, max_retries=1)
        def hopeless(self):
            try:
                raise self.retry(countdown=0.1)
            except MaxRetriesExceededError:
                return "gave up"


        @app.task
        def fail(text):
            raise ValueError(text)


        @app.task(bind=True)
        def replaced(self, number):
            return self.replace(add.s(number, number) | add.s(1))


        @app.task(bind=True)
        def where(self):
            return self.request.delivery_info["routing_key"]
        """,
    "shop/mails.py": """
        from celery import shared_task


        @shared_task(bind=True, priority=3)
        def send(self, to):
            info = self.request.delivery_info
            return [to, info["routing_key"], info["priority"]]
        """,
    "drive.py": """
        import json

        from celery import chain, chord, group, signature
        from celery.result import AsyncResult, GroupResult

        from shop.celery import app
        from shop.mails import send
        from shop.orders import (
            add, fail, flaky, hopeless, note, note_failure, replaced, total, where,
        )

        found = {}


        def see(name, result):
            found[name] = result.get(timeout=50)


        def failure(result):
            try:
                result.get(timeout=50)
            except Exception as error:
                return f"{type(error).__name__}: {error}"


        see("delay", add.delay(2, 2))
        see("options", add.apply_async((2,), {"y": 3}, countdown=0.1, task_id="mine"))
        see("by name", app.send_task("shop.orders.add", (1, 1)))
        see("signature", signature("shop.orders.add", args=(4, 4)).delay())
        see("partial", add.s(2).delay(8))
        see("immutable", add.si(2, 2).apply_async((9, 9)))
        see("set", add.s(2, 2).set(queue="mails").clone().delay())
        see("chain", chain(add.s(1, 1), add.s(2), add.s(3))())
        see("bars", (add.s(1, 1) | add.s(2) | group(add.s(1), add.s(2))).delay())
        see("group", group(add.s(n, n) for n in range(4))())
        see("chord", chord([add.s(n, n) for n in range(4)])(total.s()))
        see("group into chord", (group([add.s(1, 1), add.s(2, 2)]) | total.s()).delay())
        see("chunks", add.chunks([(n, n) for n in range(4)], 2)())
        see("starmap", add.starmap([(1, 1), (2, 2)]).delay())
        see("apply", add.apply((2, 2)))
        see("called", type("Value", (), {"get": lambda _, timeout: add(2, 2)})())
        see("route", send.delay("you"))
        see("queue", where.delay())
        see("retries", flaky.delay(2))
        see("gave up", hopeless.delay())
        see("replaced", replaced.delay(4))
        see("replaced in a chain", (replaced.s(4) | add.s(100)).delay())
        last = chain(add.s(1, 1), add.s(2))()
        see("parent", last.parent)
        many = group(add.s(1, 1), add.s(2, 2))()
        many.get(timeout=50)
        found["kind"] = isinstance(many, GroupResult)
        found["count"] = [many.completed_count(), many.successful(), len(many)]
        again = AsyncResult(last.id)
        found["state"] = [again.get(timeout=50), again.state, again.successful()]
        found["failure"] = failure(fail.delay("no money"))
        found["chain fails"] = failure((fail.si("no money") | add.s(1)).delay())
        found["chord fails"] = failure(
            chord([add.s(1, 1), fail.si("no money")])(total.s())
        )
        add.apply_async((1, 1), link=note.si("linked")).get(timeout=50)
        fail.s("no luck").on_error(note_failure.s()).delay()
        print(json.dumps(found))
        """,
}

EXPECTED: dict[str, Any] = {
    "delay": 4,
    "options": 5,
    "by name": 2,
    "signature": 8,
    "partial": 10,
    "immutable": 4,
    "set": 4,
    "chain": 7,
    "bars": [5, 6],
    "group": [0, 2, 4, 6],
    "chord": 12,
    "group into chord": 6,
    "chunks": [[0, 2], [4, 6]],
    "starmap": [2, 4],
    "apply": 4,
    "called": 4,
    "route": ["you", "mails.out", 3],
    "queue": "orders",
    "retries": 2,
    "gave up": "gave up",
    "replaced": 9,
    "replaced in a chain": 109,
    "parent": 2,
    "kind": True,
    "count": [2, True, 2],
    "state": [4, "SUCCESS", True],
    "failure": "ValueError: no money",
    "chain fails": "ValueError: no money",
    "chord fails": "ValueError: no money",
}

NOTES = {
    "from the config",
    "from the handler",
    "linked",
    "shop.orders.fail failed: no luck",
}


@pytest.fixture(params=WAYS)
def project(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Project:
    return Project.written(tmp_path, FILES, request.param, server)


def test_a_project_does_the_same_in_all_ways(project: Project) -> None:
    with project.running("shop"), project.notes() as notes:
        assert json.loads(project.told("drive.py")) == EXPECTED
        eventually(lambda: notes.smembers("notes") == NOTES, "all notes")
