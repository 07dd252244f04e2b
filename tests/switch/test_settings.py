"""The settings of a Celery app, by Celery's own `conf`."""
# ruff: noqa: E501  (tables of text have one case in a line)

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import pytest

from beatd.config.loading import Wanted, load
from beatd.config.settings import local_zone
from beatd.errors import ConfigError
from beatd.instant import instant_of
from tests.preloaded import Preloaded
from tests.processes import ended, environment
from tests.switch.files import write

pytestmark = pytest.mark.usefixtures("afresh")


class Read(Protocol):
    """Returns what beatd and Celery read, each in its way: `tests/switch/reading`."""

    def __call__(self, folder: Path, word: str, *names: str, **env: str) -> Any: ...


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    imports = (
        *("celery.app.amqp", "celery.app.task", "celery.backends.base", "celery.beat"),
        *("celery.fixups.django", "celery.loaders.app", "celery.worker.worker"),
        *("kombu.transport.redis", "beatd.config.loading"),
    )
    with Preloaded(*imports) as reading:

        def read(folder: Path, word: str, *names: str, **env: str) -> Any:
            name, own = "tests.switch.reading", environment(**env)
            answer = reading.run(name, word, *names, cwd=folder, env=own)
            assert answer.returncode == 0, answer.stderr
            return json.loads(answer.stdout)

        yield read


@dataclass
class Project:
    """A project, and what is in its settings."""

    files: dict[str, str]
    settings: dict[str, Any]
    zone: str = "UTC"
    entries: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


PLAIN = "from celery import Celery\napp = Celery('proj', broker='redis://h/0')\n"

DJANGO = {
    "site_of/__init__.py": "from site_of.celery import app as celery_app",
    "site_of/celery.py": """
        import os
        from celery import Celery
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of.settings")
        app = Celery("site_of")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
        """,
    "site_of/base.py": """
        INSTALLED_APPS = ["shop"]
        TIME_ZONE = "Asia/Tokyo"
        CELERY_BROKER_URL = "redis://h/0"
        CELERY_TASK_TIME_LIMIT = 30
        CELERY_BEAT_SCHEDULE = {
            "tick": {"task": "shop.tasks.tick", "schedule": 30},
        }
        """,
    "site_of/settings.py": "from site_of.base import *\nCELERY_TASK_TIME_LIMIT = 40\n",
    "shop/__init__.py": "",
    "shop/tasks.py": """
        from celery import shared_task
        @shared_task
        def tick():
            pass
        """,
}
SHOP = '{"tick": {"task": "shop.tick", "schedule": 30, "args": (1,)}}'

PROJECTS = {
    "another namespace": Project(
        {
            "proj.py": PLAIN + "app.config_from_object('conf', namespace='XY')",
            "conf.py": f"XY_TASK_TIME_LIMIT = 5\nXY_TIMEZONE = 'Asia/Tokyo'\nXY_BEAT_SCHEDULE = {SHOP}\nCELERY_TASK_SOFT_TIME_LIMIT = 3",
        },
        {"task_time_limit": 5, "task_soft_time_limit": None},
        "Asia/Tokyo",
        ["tick"],
    ),
    "no namespace": Project(
        {
            "proj.py": PLAIN + "app.config_from_object('conf')",
            "conf.py": f"task_time_limit = 5\nbeat_schedule = {SHOP}\nTASK_SOFT_TIME_LIMIT = 3",
        },
        {"task_time_limit": 5, "task_soft_time_limit": None},
        entries=["tick"],
    ),
    "a name-space that the app does not have": Project(
        {
            "proj.py": PLAIN + "app.config_from_object('conf')",
            "conf.py": "task_time_limit = 5\nCELERY_TASK_SOFT_TIME_LIMIT = 3",
        },
        {"task_time_limit": 5, "task_soft_time_limit": None},
    ),
    "old names": Project(
        {
            "proj.py": "from celery import Celery\napp = Celery('proj')\napp.config_from_object('conf')",
            "conf.py": f"CELERYD_TASK_TIME_LIMIT = 5\nCELERY_DEFAULT_QUEUE = 'old'\nCELERYBEAT_SCHEDULE = {SHOP}\nCELERY_TIMEZONE = 'Asia/Tokyo'\nBROKER_URL = 'redis://h/0'",
        },
        {"task_time_limit": 5, "task_default_queue": "old"},
        "Asia/Tokyo",
        ["tick"],
    ),
    "a class": Project(
        {
            "proj.py": PLAIN
            + f"class Base:\n    task_time_limit = 5\nclass Conf(Base):\n    beat_schedule = {SHOP}\napp.config_from_object(Conf)",
        },
        {"task_time_limit": 5},
        entries=["tick"],
    ),
    "a dict in a module": Project(
        {
            "proj.py": PLAIN + "app.config_from_object('conf:SETTINGS')",
            "conf.py": f"SETTINGS = dict(task_time_limit=5, beat_schedule={SHOP})",
        },
        {"task_time_limit": 5},
        entries=["tick"],
    ),
    "changed afterwards": Project(
        {
            "proj.py": PLAIN
            + "app.config_from_object('conf')\napp.conf.task_time_limit\napp.conf.update(task_time_limit=7, timezone='Asia/Tokyo')\napp.conf.task_default_queue = 'late'",
            "conf.py": f"task_time_limit = 5\nbeat_schedule = {SHOP}",
        },
        {"task_time_limit": 7, "task_default_queue": "late"},
        "Asia/Tokyo",
        ["tick"],
    ),
    "lazy values": Project(
        {
            "proj.py": PLAIN
            + "from kombu.utils.functional import lazy\napp.add_defaults(lambda: dict(task_time_limit=5))",
        },
        {"task_time_limit": 5},
    ),
    "the environment": Project(
        {"proj.py": "from celery import Celery\napp = Celery('proj')"},
        {},
        env={"CELERY_CONFIG_MODULE": "elsewhere", "CELERY_BROKER_URL": "redis://h/0"},
    ),
    "periodic tasks by code": Project(
        {
            "proj.py": PLAIN
            + dedent(
                """
                from celery.schedules import crontab
                @app.task
                def add(x, y=0): pass
                @app.on_after_configure.connect
                def configured(sender, **kwargs):
                    sender.add_periodic_task(10, add.s(1), name="ten")
                    sender.add_periodic_task(crontab(minute=5), add.s(2, y=3).set(queue="fast", link=add.s(5)), expires=9)
                @app.on_after_finalize.connect
                def finalized(sender, **kwargs):
                    sender.add_periodic_task(20.0, add.si(4), args=(1,), kwargs={"y": 2}, name="twenty")
                """
            ),
        },
        {},
        entries=["ten", "proj.add(2, y=3)", "twenty"],
    ),
    "Django": Project(DJANGO, {"task_time_limit": 40}, "Asia/Tokyo", ["tick"]),
    "queues of kombu": Project(
        {
            "proj.py": PLAIN
            + "from kombu import Exchange, Queue\napp.conf.task_queues = [Queue('a', Exchange('x', type='topic'), routing_key='a.#'), Queue('b')]",
        },
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", PROJECTS)
def test_beatd_reads_what_celery_reads(read: Read, tmp_path: Path, which: str) -> None:
    project = PROJECTS[which]
    write(tmp_path, project.files)
    write(tmp_path, {"elsewhere.py": "task_time_limit = 5"})
    word = next(iter(project.files)).partition("/")[0].removesuffix(".py")

    found = read(tmp_path, word, *project.settings, **project.env)

    assert found["ours"] == found["theirs"] == project.settings
    assert found["zone"] == [project.zone, project.zone]
    assert found["our_entries"] == found["their_entries"]
    assert list(found["our_entries"]) == [*project.entries, "celery.backend_cleanup"]
    assert found["bad"] == []


def test_a_value_that_is_made_when_it_is_needed_is_made(tmp_path: Path) -> None:
    text = """
        from django.utils.functional import lazystr
        from kombu.utils.functional import lazy
        app.conf.task_time_limit = lazy(lambda: 5)
        app.conf.task_default_queue = lazystr("late")
        """
    write(tmp_path, {"proj.py": PLAIN + dedent(text)})

    settings = load(Wanted(app="proj", folder=tmp_path)).settings

    assert (settings.task_time_limit, settings.task_default_queue) == (5, "late")


OWN = "{'celery.backend_cleanup': {'task': 'mine', 'schedule': 60}}"


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("app.conf.result_backend = 'redis://h/0'", []),
        ("app.conf.result_expires = None", []),
        ("app.conf.result_backend = 'file:///tmp'", ["celery.backend_cleanup"]),
        (f"app.conf.beat_schedule = {OWN}", ["celery.backend_cleanup"]),
    ],
)
def test_the_cleanup_of_results_is_scheduled_where_celery_does(
    read: Read, tmp_path: Path, text: str, entries: list[str]
) -> None:
    write(tmp_path, {"proj.py": PLAIN + text})

    found = read(tmp_path, "proj")

    assert found["our_entries"] == found["their_entries"]
    assert list(found["our_entries"]) == entries


def test_the_cleanup_comes_when_celerys_comes(tmp_path: Path) -> None:
    write(tmp_path, {"proj.py": PLAIN + "app.conf.timezone = 'Asia/Tokyo'"})

    (entry,) = load(Wanted(app="proj", folder=tmp_path)).entries

    first = entry.schedule.next_after(instant_of(datetime(2026, 11, 30, tzinfo=UTC)))
    assert first == instant_of(datetime(2026, 11, 30, 19, tzinfo=UTC))  # 04:00 there


def test_a_backend_whose_driver_is_missing_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"proj.py": PLAIN + "app.conf.result_backend = 'nix://h'"})

    warnings = load(Wanted(app="proj", folder=tmp_path)).warnings

    assert [str(one) for one in warnings] == [
        "result_backend: reading it raised ModuleNotFoundError: No module named 'nix';"
        " celery.backend_cleanup is not scheduled, and old results may stay"
    ]


# Zones


@pytest.mark.parametrize(
    ("text", "env", "zone"),
    [
        ("enable_utc = False", {"TZ": "America/New_York"}, "America/New_York"),
        ("enable_utc = False", {"TZ": ":Asia/Tokyo"}, "Asia/Tokyo"),
        ("enable_utc = False\ntimezone = 'Asia/Kolkata'", {"TZ": "Asia/Tokyo"}, "Asia/Kolkata"),
        ("enable_utc = True", {"TZ": "Asia/Tokyo"}, "UTC"),
        ("task_time_limit = 5", {"TZ": "Asia/Tokyo"}, "UTC"),
        ("TIME_ZONE = 'Asia/Kolkata'", {}, "Asia/Kolkata"),
        ("TIME_ZONE = 'Asia/Kolkata'\ntimezone = 'Asia/Tokyo'", {}, "Asia/Tokyo"),
        ("TIME_ZONE = 'Asia/Kolkata'\nenable_utc = False", {"TZ": "Asia/Tokyo"}, "Asia/Kolkata"),
        ("from zoneinfo import ZoneInfo\ntimezone = ZoneInfo('Asia/Tokyo')", {}, "Asia/Tokyo"),
    ],
)  # fmt: skip
def test_the_zone_is_the_one_of_the_app(
    read: Read,
    tmp_path: Path,
    text: str,
    env: dict[str, str],
    zone: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = "app = Celery('proj', broker='redis://h/0')\napp.config_from_object('conf')"
    write(tmp_path, {"proj.py": app}, "from celery import Celery\n")
    write(tmp_path, {"ours.py": app}, "from beatd import Beatd as Celery\n")
    write(tmp_path, {"conf.py": text})
    monkeypatch.delenv("TZ", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    local_zone.cache_clear()

    found = load(Wanted(app="ours")), load(Wanted(config="conf"))
    zones = [str(one.settings.zone) for one in found]

    local_zone.cache_clear()
    assert zones == read(tmp_path, "proj", **env)["zone"] == [zone, zone]


def test_local_time_without_a_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"conf.py": "enable_utc = False\n"})

    answer = ended("check", "--config", "conf.py", cwd=tmp_path, TZ="XYZ-3")

    assert answer.returncode == 1
    assert answer.stdout.splitlines()[3:] == [
        "conf.py:1: error: enable_utc: off means local time, and this machine's zone has"
        " no name",
        "    1 | enable_utc = False",
        "      |              ^^^^^",
        "    set timezone, as in timezone = 'Europe/Berlin', or $TZ",
        "",
        "fix the errors; until then beatd refuses to start.",
    ]


# What is written and not read


def test_what_is_wrong_is_shown_where_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, DJANGO)
    more = {
        "site_of/base.py": "CELERY_BEAT_SHEDULE = {}",
        "site_of/settings.py": """
            CELERY_BEAT_SCHEDULE["tick"]["optons"] = {}
            CELERY_TIMEZONE = "Asia/Tokio"
            """,
        "site_of/celery.py": """
            app.conf.update(worker_concurency=3)
            app.conf.task_time_limmit = 3
            """,
    }
    write(tmp_path, {name: dedent(DJANGO[name]) + dedent(more[name]) for name in more})

    answer = ended("check", "-A", "site_of", cwd=tmp_path)

    for said in (
        "site_of/base.py:9: error: unknown setting 'CELERY_BEAT_SHEDULE'\n"
        "    9 | CELERY_BEAT_SHEDULE = {}\n"
        "      | ^^^^^^^^^^^^^^^^^^^\n"
        "    did you mean 'CELERY_BEAT_SCHEDULE'?",
        "site_of/base.py:7: error: entry 'tick': unknown key 'optons'",
        "site_of/settings.py:5: error: timezone: no zone named 'Asia/Tokio'",
        "site_of/celery.py:9: error: unknown setting 'worker_concurency'",
        "site_of/celery.py:10: error: unknown setting 'task_time_limmit'",
    ):
        assert said in answer.stdout
    assert answer.returncode == 1
    assert answer.stderr == ""


def test_a_name_of_another_namespace_is_named_with_its_right_form(
    tmp_path: Path,
) -> None:
    write(tmp_path, PROJECTS["a name-space that the app does not have"].files)

    answer = ended("check", "-A", "proj", cwd=tmp_path)

    assert answer.stdout.splitlines()[2:] == [
        "conf.py:2: warning: CELERY_TASK_SOFT_TIME_LIMIT: Celery does not read this name"
        " without a namespace",
        "    2 | CELERY_TASK_SOFT_TIME_LIMIT = 3",
        "      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "    write task_soft_time_limit, or give the app namespace='CELERY'",
    ]


def test_a_misspelt_name_keeps_nothing_from_starting(
    read: Read, tmp_path: Path
) -> None:
    write(tmp_path, DJANGO)
    write(
        tmp_path,
        {"site_of/settings.py": "from .base import *\nCELERY_BEAT_SHEDULE = {}"},
    )

    assert read(tmp_path, "site_of")["warnings"] == [
        "site_of/settings.py:2: unknown setting 'CELERY_BEAT_SHEDULE'; did you mean"
        " 'CELERY_BEAT_SCHEDULE'?"
    ]


# What raises


RAISES = """
    app = Celery("proj", broker="redis://h/0", set_as_current=False)
    @app.{event}.connect
    def periodic(sender, **kwargs):
        sender.add_periodic_task(3, None.s(), name="none")
    """


@pytest.mark.parametrize("event", ["on_after_configure", "on_after_finalize"])
@pytest.mark.parametrize("first", ["celery import", "beatd import Beatd as"])
def test_what_a_receiver_raises_is_a_reason_not_to_start(
    tmp_path: Path, event: str, first: str
) -> None:
    write(tmp_path, {"proj.py": RAISES.format(event=event)}, f"from {first} Celery\n")

    with pytest.raises(ConfigError) as caught:
        load(Wanted(app="proj"))

    assert str(caught.value) == (
        "cannot use proj\n  proj.py:6: this line raised AttributeError:"
        " 'NoneType' object has no attribute 's'"
    )


@pytest.mark.parametrize("command", ["beat", "worker", "check"])
def test_what_a_receiver_raises_is_one_message(tmp_path: Path, command: str) -> None:
    text = RAISES.format(event="on_after_configure")
    write(tmp_path, {"proj.py": text}, "from celery import Celery\n")

    answer = ended(
        *([] if command == "beat" else [command]), "-A", "proj", cwd=tmp_path
    )

    said = answer.stdout + answer.stderr
    assert answer.returncode == 78
    assert "this line raised AttributeError" in said
    assert "Traceback" not in said


def test_a_compression_that_only_kombu_knows_is_a_reason_not_to_start(
    tmp_path: Path,
) -> None:
    text = """
        from celery import Celery
        from kombu import compression

        compression.register(bytes, bytes, "application/x-ours", aliases=["ours"])
        app = Celery("proj", broker="redis://127.0.0.1:1/0")
        app.conf.task_compression = "ours"
        """
    write(tmp_path, {"proj.py": text})

    said = ended("worker", "-A", "proj", cwd=tmp_path)

    assert said.returncode == 78
    assert "task_compression" in said.stderr
    assert "no compression named 'ours'" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_serializer_that_only_kombu_knows_is_a_reason_not_to_start(
    tmp_path: Path,
) -> None:
    text = """
        import json
        from celery import Celery
        from kombu.serialization import register

        register("ours", json.dumps, json.loads, content_type="application/x-ours")
        app = Celery("proj", broker="redis://127.0.0.1:1/0")
        app.conf.accept_content = ["json", "ours"]
        """
    write(tmp_path, {"proj.py": text})

    said = ended("worker", "-A", "proj", cwd=tmp_path)

    assert said.returncode == 78
    assert "accept_content" in said.stderr
    assert "no serializer named 'ours'" in said.stderr
    assert "Traceback" not in said.stderr
