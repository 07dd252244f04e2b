"""Where a config comes from, and where in its text things stand."""
# ruff: noqa: E501  (tables of text have one case in a line)

import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from beatd import Beatd
from beatd.config.apps import of_app
from beatd.config.faults import Unreadable
from beatd.config.places import of_config
from beatd.config.settings import Place
from beatd.config.source import Source
from tests.rights import as_nobody


@pytest.fixture(autouse=True)
def _modules_and_path_as_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    # Another test of this process may have left one behind.
    monkeypatch.delitem(sys.modules, "celeryconfig", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def config(
    target: str | None, folder: Path, environ: Mapping[str, str] | None = None
) -> Source:
    return of_config(target, environ or {}, folder)


def refusal(target: str | None, folder: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        config(target, folder)
    return str(caught.value)


def app_refusal(target: str, folder: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        of_app(target, folder)
    return str(caught.value)


# Which module or file


def test_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "conf.py", "timezone = 'UTC'")

    found = config("etc/conf.py", tmp_path)

    assert found.written["timezone"] == "UTC"
    assert found.file == "etc/conf.py"


def test_a_file_can_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "conf.py", "from neighbour_zone import timezone")
    write(tmp_path / "etc" / "neighbour_zone.py", "timezone = 'Asia/Tokyo'")

    assert config("etc/conf.py", tmp_path).written["timezone"] == "Asia/Tokyo"


def test_a_module_is_looked_for_in_the_working_directory(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "__init__.py", "")
    write(tmp_path / "shop" / "conf.py", "from . import zone\ntimezone = zone.NAME")
    write(tmp_path / "shop" / "zone.py", "NAME = 'Asia/Tokyo'")

    found = config("shop.conf", tmp_path)

    assert found.written["timezone"] == "Asia/Tokyo"
    assert vars(sys.modules["shop"])["conf"] is sys.modules["shop.conf"]


def test_without_a_name_the_environment_names_the_config(tmp_path: Path) -> None:
    write(tmp_path / "mine.py", "timezone = 'Asia/Tokyo'")
    write(tmp_path / "celeryconfig.py", "timezone = 'UTC'")

    found = config(None, tmp_path, {"BEATD_CONFIG": "mine"})

    assert found.written["timezone"] == "Asia/Tokyo"


def test_without_any_name_it_is_celeryconfig(tmp_path: Path) -> None:
    write(tmp_path / "celeryconfig.py", "timezone = 'UTC'")

    assert config(None, tmp_path).name == "celeryconfig"


def test_what_is_no_setting_is_left_out(tmp_path: Path) -> None:
    write(
        tmp_path / "conf.py",
        """
        import os
        from datetime import timedelta
        _private = 1
        def task_router(name, *args, **kwargs): ...
        timezone = os.environ.get("NO_SUCH_VARIABLE", "UTC")
        """,
    )

    assert dict(config("conf", tmp_path).written) == {"timezone": "UTC"}


# Again


@pytest.mark.parametrize("target", ["conf", "conf.py"])
def test_a_config_is_read_afresh_each_time(tmp_path: Path, target: str) -> None:
    file = write(tmp_path / "conf.py", "CELERYD_CONCURRENCY = 1\ninclude = ['a']")
    config(target, tmp_path)
    write(file, "CELERYD_CONCURRENCY = 2")  # as long, and in the same second

    assert dict(config(target, tmp_path).written) == {"CELERYD_CONCURRENCY": 2}


@pytest.mark.parametrize("target", ["conf", "conf.py"])
def test_a_config_that_cannot_be_read_again_leaves_the_old_module(
    tmp_path: Path, target: str
) -> None:
    file = write(tmp_path / "conf.py", "timezone = 'UTC'")
    config(target, tmp_path)
    old = sys.modules["conf"]
    write(file, "1 / 0")
    refusal(target, tmp_path)

    assert sys.modules["conf"] is old


# None to be had


def test_no_config_at_all_says_how_to_name_one(tmp_path: Path) -> None:
    assert refusal(None, tmp_path) == (
        f"celeryconfig: no celeryconfig.py in {tmp_path}; name a config with --config"
        " FILE or $BEATD_CONFIG, or an app with -A"
    )


def test_a_missing_module_of_a_package_is_named_with_the_nearest(
    tmp_path: Path,
) -> None:
    write(tmp_path / "shop" / "__init__.py", "")
    write(tmp_path / "shop" / "config.py", "")

    assert refusal("shop.confg", tmp_path) == (
        "shop.confg: no module named 'confg' in package 'shop' (looked in"
        f" {tmp_path / 'shop'}); did you mean 'shop.config'?"
    )


def test_a_missing_module_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "shopconfig.py", "")

    said = refusal("shopconfg", tmp_path)

    assert said.startswith("shopconfg: no module named 'shopconfg' (looked in ")
    assert said.endswith("; did you mean 'shopconfig'?")


def test_where_a_module_was_looked_for_is_said_without_pythons_own_folders(
    tmp_path: Path,
) -> None:
    said = refusal("nothinglikeit", tmp_path)

    assert f"(looked in {tmp_path}, " in said
    assert sysconfig.get_path("stdlib") + "," not in said
    assert ".zip" not in said


@pytest.mark.parametrize("closed", ["etc", "etc/conf.py"])
def test_a_file_that_may_not_be_read_is_said_to_be_so(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # unlike pytest's, anyone may enter it
        folder = Path(name)
        folder.chmod(0o755)
        file = write(folder / "etc" / "conf.py", "timezone = 'UTC'")
        (folder / closed).chmod(0)
        with as_nobody():
            said = refusal("etc/conf.py", folder)
        (folder / closed).chmod(0o700)

    assert said == f"etc/conf.py: {file} cannot be read: Permission denied"


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "conf.py").mkdir()

    assert refusal("conf.py", tmp_path) == (
        f"conf.py: {tmp_path / 'conf.py'} is a directory; name a Python file in it"
    )


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "conf.py", "")

    assert refusal("cnf.py", tmp_path) == (
        f"cnf.py: no file cnf.py in {tmp_path}; did you mean 'conf.py'?"
    )
    assert refusal("etc/conf.py", tmp_path) == (
        f"etc/conf.py: no folder {tmp_path / 'etc'}"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = (2\n", "conf.py:2: syntax error: '(' was never closed"),
        ("x = 1\ny = 1 / 0\n", "conf.py:2: this line raised ZeroDivisionError: division by zero"),
        ("\nimport nosuchpackage\n", "conf.py:2: this line failed: No module named 'nosuchpackage'"),
        ("from broken import x\n", "broken.py:1: this line raised KeyError: 'gone'"),
        ("raise SystemExit(3)\n", "conf.py:1: this line raised SystemExit: 3"),
        ("raise ValueError\n", "conf.py:1: this line raised ValueError: no reason given"),
        ("raise ValueError('redis://:secret@host')\n", "conf.py:1: this line raised ValueError: redis://:***@host"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["conf", "conf.py"])
def test_a_config_that_cannot_be_executed_is_named_with_its_line(
    tmp_path: Path, target: str, text: str, said: str
) -> None:
    write(tmp_path / "conf.py", text)
    write(tmp_path / "broken.py", "x = {}['gone']")

    assert refusal(target, tmp_path) == f"{target}: {said}"


def test_a_package_that_raises_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "__init__.py", "\n1 / 0")
    write(tmp_path / "shop" / "conf.py", "")

    assert refusal("shop.conf", tmp_path) == (
        "shop.conf: shop/__init__.py:2: this line raised ZeroDivisionError: division by"
        " zero"
    )


# Where things stand

TEXT = dedent(
    """\
    from beatd.schedules import crontab
    ümläute = 'ä'; timezone = 'Europe/Pariss'
    if True:
        CELERY_INCLUDE = ["tasks"]
    beat_schedule = {
        "tick": {"task": "tasks.tick", "schedule": 2},
        "end": dict(
            task="tasks.end",
            schedule=crontab(hour=6,
                             day_of_month=31),
        ),
    }
    beat_schedule["late"] = {"task": "tasks.late"}
    def helper():
        timezone = "UTC"
    for name in "ab":
        beat_schedule[name] = {}
    """
)


@pytest.mark.parametrize(
    ("path", "line", "key", "value"),
    [
        (("timezone",), 2, "timezone", "'Europe/Pariss'"),
        (("CELERY_INCLUDE",), 4, "CELERY_INCLUDE", '["tasks"]'),
        (("beat_schedule", "tick"), 6, '"tick"', '{"task": "tasks.tick", "schedule": 2}'),
        (("beat_schedule", "tick", "schedule"), 6, '"schedule"', "2"),
        (("beat_schedule", "end", "schedule"), 9, "schedule", "crontab(hour=6,"),
        (("beat_schedule", "end", "schedule", "hour"), 9, "hour", "6"),
        (("beat_schedule", "end", "schedule", "minute"), 9, "schedule", "crontab(hour=6,"),
        (("beat_schedule", "late", "task"), 13, '"task"', '"tasks.late"'),
        (("beat_schedule", "late", "schedule"), 13, 'beat_schedule["late"]', '{"task": "tasks.late"}'),
        (("beat_schedule", "a", "schedule"), 5, "beat_schedule", "{"),
    ],
)  # fmt: skip
def test_the_place_of_a_key_and_of_its_value(
    path: tuple[str, ...], line: int, key: str, value: str
) -> None:
    found = Source("conf", {}, "conf.py", TEXT)
    place, value_place = found.locate(*path), found.locate_value(*path)

    assert place
    assert value_place
    assert place.line == line
    assert found.line(line)[place.column : place.end_column] == key
    value_line = found.line(value_place.line)
    assert value_line[value_place.column : value_place.end_column] == value


def test_what_the_text_does_not_show_has_no_place() -> None:
    assert Source("conf", {}, "conf.py", TEXT).locate("broker_url") is None
    assert Source("app", {}).locate("timezone") is None


def test_keys_that_a_dict_has_twice_are_found() -> None:
    text = dedent(
        """\
        beat_schedule = {
            "tick": {"task": "a", "schedule": 1},
            "tock": {"task": "b", "task": "c"},
            "tick": {"task": "d", "schedule": 2},
        }
        """
    )
    found = Source("conf", {}, "conf.py", text)

    assert list(found.repeated("beat_schedule")) == [
        ("tick", Place("conf.py", 2, 4, 10), Place("conf.py", 4, 4, 10)),
        ("task", Place("conf.py", 3, 13, 19), Place("conf.py", 3, 26, 32)),
    ]
    assert list(found.repeated("timezone")) == []


# Apps


class OurApp(Beatd):
    """An application, for a port of which the reading asks for more than a config."""

    def __init__(self) -> None:
        super().__init__(set_as_current=False)

    def beatd_config(self) -> Source:
        return Source("ours", {"timezone": "UTC"})


OURS = "from tests.test_source import OurApp\n"


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("proj:mine", {"proj.py": "mine = OurApp()"}),
        ("proj:deep.mine", {"proj.py": "class deep: mine = OurApp()"}),
        ("proj", {"proj.py": "app = OurApp()"}),
        ("proj", {"proj.py": "celery = OurApp()"}),
        ("proj", {"proj.py": "whatever = OurApp()"}),
        ("proj", {"proj/__init__.py": "", "proj/celery.py": "app = OurApp()"}),
        ("proj.celery", {"proj/__init__.py": "", "proj/celery.py": "app = OurApp()"}),
    ],
)
def test_an_app_is_found_where_celery_looks_for_it(
    tmp_path: Path, target: str, files: dict[str, str]
) -> None:
    for name, text in files.items():
        write(tmp_path / name, OURS + text)

    assert of_app(target, tmp_path).name == "ours"


def test_a_module_without_an_app_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "proj.py", "appp = 1")

    assert app_refusal("proj", tmp_path) == (
        "proj: no app in 'proj': looked for app, celery and any other beatd.Beatd or"
        " celery.Celery object; name it, as in -A proj:app"
    )
    assert app_refusal("proj:app", tmp_path) == (
        "proj:app: 'proj' has no 'app'; did you mean 'appp'?"
    )
    assert app_refusal("prj", tmp_path).endswith("; did you mean 'proj'?")


def test_an_app_whose_module_raises_is_refused_with_the_line(tmp_path: Path) -> None:
    write(tmp_path / "proj.py", "\n1 / 0")

    assert app_refusal("proj", tmp_path) == (
        "proj: proj.py:2: this line raised ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize(
    ("project", "namespace"),
    [("plain_project", "None"), ("spaced_project", "'CELERY'")],
)
def test_what_was_set_in_a_celery_app_is_read(
    tmp_path: Path, project: str, namespace: str
) -> None:
    write(
        tmp_path / f"{project}.py",
        f"""
        from celery import Celery
        app = Celery(
            "proj", broker="redis://host", backend="redis://host", set_as_current=False
        )
        app.config_from_object("conf", namespace={namespace})
        app.conf.task_soft_time_limit = 5
        @app.task
        def add(x, y):
            return x + y
        @app.on_after_finalize.connect
        def periodic(sender, **kwargs):
            sender.add_periodic_task(10, add.s(2, 3), name="ten")
        """,
    )
    write(
        tmp_path / "conf.py",
        "CELERY_TASK_SERIALIZER = 'yaml'\nCELERY_RESULT_SERIALIZER = 'json'",
    )

    written = of_app(project, tmp_path).written

    assert written["broker_url"] == "redis://host"
    assert written["task_serializer"] == "yaml"
    assert written["task_soft_time_limit"] == 5
    assert written["beat_schedule"] == {
        "ten": {
            "task": f"{project}.add",
            "schedule": 10,
            "args": (2, 3),
            "kwargs": {},
            "options": {},
        }
    }


def test_a_celery_app_whose_tasks_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path / "broken_project.py",
        """
        from celery import Celery
        app = Celery("broken", include=["broken_tasks"], set_as_current=False)
        """,
    )
    write(tmp_path / "broken_tasks.py", "1 / 0")

    assert app_refusal("broken_project", tmp_path) == (
        "broken_project: broken_tasks.py:1: this line raised ZeroDivisionError: division"
        " by zero"
    )


def test_a_name_that_is_no_module_name_is_refused(tmp_path: Path) -> None:
    assert refusal("..", tmp_path).startswith("..: importing it raised ")


def test_a_celery_app_without_settings_gives_what_celery_beat_adds(
    tmp_path: Path,
) -> None:
    write(
        tmp_path / "empty_project.py",
        "from celery import Celery\napp = Celery('empty', set_as_current=False)",
    )

    (written,) = of_app("empty_project", tmp_path).written.items()

    assert written[0] == "beat_schedule"
    assert isinstance(written[1], dict)
    assert list(written[1]) == ["celery.backend_cleanup"]
