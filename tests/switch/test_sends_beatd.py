"""What an entry of a Beatd app sends is what its task's `apply_async` sends."""

import json
from pathlib import Path
from typing import Any

import pytest

from beatd.config.loading import Config, Wanted, load
from beatd.timetable.entry import Entry
from tests.fakes import NOON
from tests.switch.files import write

FILES = {
    "shop/__init__.py": "",
    "shop/app.py": """
        from beatd import Beatd, crontab

        app = Beatd("shop", include=["shop.tasks"], task_default_priority=5)
        app.conf.task_annotations = {"shop.noted": {"queue": "noted"}}
        EVERY = crontab(minute="*/5")
        app.conf.beat_schedule = {
            name: {"schedule": EVERY, "task": f"shop.{name}", **entry}
            for name, entry in {
                "full": {"args": [1]},
                "full_but": {"task": "shop.full", "args": [1], "options":
                    {"queue": "celery", "expires": 30, "ignore_result": False}},
                "plain": {},
                "noted": {},
                "shared": {},
                "unknown": {},
                "too_many": {"task": "shop.plain", "args": [1]},
                "slot": {"slot_argument": "at"},
            }.items()
        }
    """,
    "shop/tasks.py": """
        from beatd import shared_task
        from shop.app import app

        @app.task(name="shop.full", queue="media", priority=3, expires=600,
            time_limit=9, serializer="yaml", ignore_result=True)
        def full(number): ...

        @app.task(name="shop.plain")
        def plain(): ...

        @app.task(name="shop.noted")
        def noted(): ...

        @app.task(name="shop.slot")
        def slot(at): ...

        @shared_task(name="shop.shared", queue="shared")
        def shared(): ...
    """,
}


@pytest.fixture
def config(tmp_path: Path, afresh: None) -> Config:
    write(tmp_path, FILES)
    return load(Wanted(app="shop.app"))


def sent(entry: Entry) -> dict[str, Any]:
    made = entry.message.made(id="i", now=NOON, slot=NOON, expires=None)
    message: dict[str, Any] = json.loads(made.message)
    return message


def test_the_options_of_the_task_count(config: Config) -> None:
    entries = {entry.name: entry for entry in config.entries}
    routes = {name: entry.message.route for name, entry in entries.items()}

    assert {name: (route.queue, route.priority) for name, route in routes.items()} == {
        "full": ("media", 3),
        "full_but": ("celery", 3),
        "plain": ("celery", 5),
        "noted": ("noted", 5),
        "shared": ("shared", 5),
        "unknown": ("celery", 5),
        "slot": ("celery", 5),
    }
    full, but = sent(entries["full"]), sent(entries["full_but"])
    assert full["content-type"] == "application/x-yaml"
    assert full["headers"]["timelimit"] == [9, None]
    assert full["headers"]["ignore_result"] is True
    assert full["properties"]["expiration"] == "600000"
    assert but["properties"]["expiration"] == "30000"
    assert but["headers"]["ignore_result"] is False
    assert sent(entries["plain"])["headers"]["ignore_result"] is False
    assert sent(entries["unknown"])["headers"]["ignore_result"] is None


def test_arguments_that_the_task_does_not_take_are_a_bad_entry(config: Config) -> None:
    (bad,) = config.bad

    assert bad.name == "too_many"
    assert "calling shop.plain raised TypeError: " in str(bad.problems[0])


def test_tasks_that_cannot_be_imported_are_warned_of(
    tmp_path: Path, afresh: None
) -> None:
    write(tmp_path, {**FILES, "shop/tasks.py": "import no_such_module"})

    config = load(Wanted(app="shop.app"))

    assert len(config.entries) == 8
    (warning,) = config.warnings
    assert "no_such_module" in str(warning)
    assert "sent without the options of their tasks" in str(warning)
