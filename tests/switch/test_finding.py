"""`beatd -A` finds the app that `celery -A` finds."""
# ruff: noqa: E501  (tables of text have one case in a line)

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from celery.app.utils import find_app

from beatd.config.apps import of_app
from beatd.config.faults import Unreadable
from beatd.config.finding import app_named
from beatd.config.places import of_config
from tests.processes import ended, environment
from tests.switch.files import write

CELERY = "from celery import Celery\n"
BEATD = "from beatd import Beatd as Celery\n"


pytestmark = pytest.mark.usefixtures("afresh")

PROJECT = {
    "run.py": """
        class Shop:
            inner = Celery("inner", set_as_current=False)
        def make(name):
            return Celery(name, set_as_current=False)
        notify = make("notify")
        made = {"celery": make("made")}
        conf = {"timezone": "Asia/Tokyo"}
        """,
    "one.py": "whatever = Celery('one', set_as_current=False)",
    "app_first.py": """
        celery = Celery("second", set_as_current=False)
        app = Celery("first", set_as_current=False)
        """,
    "pkg/__init__.py": "celery_app = Celery('pkg', set_as_current=False)",
    "deep/__init__.py": "",
    "deep/celery.py": "app = Celery('deep', set_as_current=False)",
    "deep/other.py": "celery = Celery('other', set_as_current=False)",
    "django_way/__init__.py": """
        from .celery import app as celery_app
        __all__ = ("celery_app",)
        """,
    "django_way/celery.py": "app = Celery('django_way', set_as_current=False)",
    "flask_way/__init__.py": """
        class Flask:
            extensions = {}
        def create_app():
            app = Flask()
            app.extensions["celery"] = Celery("flask_way", set_as_current=False)
            return app
        """,
    "flask_way/make_celery.py": """
        from flask_way import create_app
        flask_app = create_app()
        celery_app = flask_app.extensions["celery"]
        """,
    "folder/mod.py": "mine = Celery('by_file', set_as_current=False)",
}
WORDS = {
    "run": "notify",
    "run.notify": "notify",
    "run:notify": "notify",
    "one": "one",
    "app_first": "first",
    "app_first.celery": "second",
    "pkg": "pkg",
    "pkg.celery_app": "pkg",
    "pkg:celery_app": "pkg",
    "deep": "deep",
    "deep.celery": "deep",
    "deep.celery:app": "deep",
    "deep.celery.app": "deep",
    "deep.other": "other",
    "django_way": "django_way",
    "django_way.celery": "django_way",
    "django_way.celery_app": "django_way",
    "flask_way.make_celery": "flask_way",
    "flask_way.make_celery.celery_app": "flask_way",
}
"""What `celery -A` finds, by the first argument of the app."""
MORE = {
    "run:Shop.inner": "inner",
    "run.py": "notify",
    "run.py:notify": "notify",
    "folder/mod.py": "by_file",
    "deep/celery.py": "deep",
    "./run.py": "notify",
}
"""What only `beatd -A` finds."""


@pytest.mark.parametrize("word", WORDS)
def test_an_app_of_celery_is_the_one_that_celery_finds(
    tmp_path: Path, word: str
) -> None:
    write(tmp_path, PROJECT, CELERY)

    found = app_named(word, tmp_path)

    assert found is find_app(word)
    assert found.main == WORDS[word]


@pytest.mark.parametrize("word", MORE)
def test_files_and_inner_attributes_are_found_too(tmp_path: Path, word: str) -> None:
    write(tmp_path, PROJECT, CELERY)

    assert app_named(word, tmp_path).main == MORE[word]


def test_an_app_of_ours_is_found_in_the_same_ways_without_celery(
    tmp_path: Path,
) -> None:
    write(tmp_path, PROJECT, BEATD)
    script = """
        import sys
        from pathlib import Path
        from beatd.config.finding import app_named
        for word in sys.argv[1:]:
            print(word, app_named(word, Path.cwd()).main)
        assert "celery" not in sys.modules
        """
    words = WORDS | MORE
    answer = subprocess.run(
        [sys.executable, "-c", dedent(script), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )

    assert answer.stderr == ""
    assert dict(line.split() for line in answer.stdout.splitlines()) == words


def test_an_app_that_celery_would_not_get_to_is_still_found(tmp_path: Path) -> None:
    files = {
        "proj.py": """
            app = object()  # of a web framework
            celery = Celery("celery", set_as_current=False)
            """
    }
    write(tmp_path, files, CELERY)

    assert app_named("proj", tmp_path).main == "celery"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("run.nix", "'run' has no 'nix'; it has the app -A run:notify"),
        ("run:notifi", "'run' has no 'notifi'; did you mean 'notify'?"),
        ("run:make", "'run:make' is a function, and no beatd.Beatd or celery.Celery object; give the app that it makes a name in the module, and name that"),
        ("run:conf", "'run:conf' is an object of type dict, and no beatd.Beatd or celery.Celery object; name the app itself"),
        ("run:Shop", "'run:Shop' is a class, and no beatd.Beatd or celery.Celery object; give the app that it makes a name in the module, and name that"),
        ("run:make()", "'run:make()' names no module; write -A module, -A module:attribute or -A file.py: here -A run"),
        (".run", "'.run' names no module; write -A module, -A module:attribute or -A file.py: here -A run"),
        ("run.", "'run.' names no module; write -A module, -A module:attribute or -A file.py: here -A run"),
        ("run:", "'run:' names no module; write -A module, -A module:attribute or -A file.py: here -A run"),
        ("pkg/", "'pkg/' names no module; write -A module, -A module:attribute or -A file.py: here -A pkg"),
        ("deep/celery:app", "'deep/celery:app' names no module; write -A module, -A module:attribute or -A file.py: here -A deep.celery:app"),
        ("pkg.celery_ap", "'pkg' has no 'celery_ap', neither an attribute nor a module; it has the app -A pkg:celery_app"),
        ("flask_way", "no app in 'flask_way': looked for app, celery and any other beatd.Beatd or celery.Celery object; if create_app makes it, write app = create_app(...) in the module"),
        ("empty", "no app in 'empty': looked for app, celery and any other beatd.Beatd or celery.Celery object; name it, as in -A proj:app"),
        ("empty.tasks", "'empty' has no 'tasks'"),
        ("empty.py:app", "'empty' has no 'app'"),
        ("rn.py", "no file rn.py in {folder}; did you mean 'run.py'?"),
        ("hidden", "hidden/celery.py:1: this line failed: No module named 'no_such_package'"),
        ("attribute", "attribute/celery.py:1: this line raised AttributeError: 'int' object has no attribute 'nix'"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_answered_with_what_is_there(
    tmp_path: Path, word: str, said: str
) -> None:
    write(tmp_path, PROJECT, CELERY)
    wrong = {
        "empty.py": "",
        "hidden/__init__.py": "",
        "hidden/celery.py": "import no_such_package",
        "attribute/__init__.py": "",
        "attribute/celery.py": "(1).nix",
    }
    write(tmp_path, wrong)

    with pytest.raises(Unreadable) as caught:
        app_named(word, tmp_path)

    assert str(caught.value) == f"{word}: {said.format(folder=tmp_path)}"


def test_tasks_of_a_module_that_is_no_package_are_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    app = "app = Celery('proj', include=['mod.tasks'], set_as_current=False)"
    write(tmp_path, {"proj.py": app}, CELERY)
    write(tmp_path, {"mod.py": ""})

    with pytest.raises(Unreadable) as caught:
        of_app("proj", tmp_path)

    assert str(caught.value) == (
        "proj: importing it failed: No module named 'mod.tasks'; 'mod' is not a package"
    )


# Configs

CONFIGS = {
    "mod.py": """
        conf = {
            "timezone": "Asia/Tokyo",
        }
        class Base:
            timezone = "Asia/Tokyo"
        class Conf(Base):
            TASK_SERIALIZER = "json"
        made = Conf()
        def function(): ...
        """,
    "pkg/__init__.py": "from pkg import conf",
    "pkg/conf.py": "timezone = 'Asia/Tokyo'",
}


@pytest.mark.parametrize(
    "word",
    [*("mod.conf", "mod:conf", "mod.Conf", "mod:made", "pkg.conf", "pkg:conf")],
)
def test_a_config_may_be_an_object_in_a_module(tmp_path: Path, word: str) -> None:
    write(tmp_path, CONFIGS)

    assert of_config(word, {}, tmp_path).written["timezone"] == "Asia/Tokyo"


@pytest.mark.parametrize(("word", "line"), [("mod.conf", 3), ("mod.Base", 6)])
def test_the_place_of_a_setting_in_an_object_is_known(
    tmp_path: Path, word: str, line: int
) -> None:
    write(tmp_path, CONFIGS)

    place = of_config(word, {}, tmp_path).locate("timezone")

    assert str(place) == f"mod.py:{line}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mod.cnf", "'mod' has no 'cnf'; did you mean 'conf'?"),
        ("mod.deep.conf", "'mod' is a module: it has no modules, and no 'deep'"),
        ("mod:function", "it is a function: give what it returns a name, and name that"),
    ],
)  # fmt: skip
def test_a_word_for_no_config_is_answered_in_a_sentence(
    tmp_path: Path, word: str, said: str
) -> None:
    write(tmp_path, CONFIGS)

    with pytest.raises(Unreadable) as caught:
        of_config(word, {}, tmp_path)

    assert str(caught.value) == f"{word}: {said}"


def test_the_command_line_takes_these_words(tmp_path: Path) -> None:
    write(tmp_path, PROJECT, CELERY)
    write(tmp_path, CONFIGS)

    answer = ended("check", "-A", "run.notify", cwd=tmp_path)

    # The entry is Celery's own: its beat adds `celery.backend_cleanup`, too.
    assert answer.stdout.splitlines()[0] == "run.notify: 1 entry, all is well"
    assert answer.stderr == ""
