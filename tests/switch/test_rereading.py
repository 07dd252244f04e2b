"""A reload takes what changed in imported modules and in apps, whole or not at all."""

import os
import signal
from io import BytesIO
from pathlib import Path

import pytest

from beatd.config.options import Options
from beatd.errors import ConfigError
from beatd.service.rereading import answer, read_again
from tests.processes import beatd
from tests.servers import Server
from tests.switch.files import write

pytestmark = pytest.mark.usefixtures("afresh")


def test_a_reload_of_an_app_takes_what_changed_in_its_modules(
    tmp_path: Path, server: Server
) -> None:
    entry = "{'%s': {'task': 't', 'schedule': 0.1}}"
    files = {
        "proj/__init__.py": "",
        "proj/celery.py": f"""
            from celery import Celery
            from proj.schedule import ENTRIES
            app = Celery("proj", broker="{server.url()}", backend="{server.url()}")
            app.conf.beat_schedule = ENTRIES
            """,
        "proj/schedule.py": f"ENTRIES = {entry % 'tick'}",
    }
    write(tmp_path, files)

    with beatd("-A", "proj", "-l", "INFO", cwd=tmp_path) as running:
        running.until("tick queued")
        write(tmp_path, {"proj/schedule.py": f"\nENTRIES = {entry % 'tock'}"})
        running.send(signal.SIGHUP)
        running.until("reloaded: 1 entry")
        running.until("tock queued")

        write(tmp_path, {"proj/schedule.py": "ENTRIES = {}['gone']"})
        running.send(signal.SIGHUP)
        running.until("kept the old config")
        queued = running.output.count("tock queued")
        running.until("tock queued", times=queued + 2)
        assert running.stop() == 0

    assert "proj/schedule.py:1: this line raised KeyError: 'gone'" in running.output
    assert "Traceback" not in running.output


def test_the_modules_of_a_config_are_read_as_they_are_now(tmp_path: Path) -> None:
    write(tmp_path, {"conf.py": "from helper import beat_schedule, timezone"})
    for zone in ("Asia/Tokyo", "Europe/Berlin"):
        entries = f"beat_schedule = {{'{zone}': {{'task': 't', 'schedule': 60}}}}"
        write(tmp_path, {"helper.py": f"timezone = '{zone}'\n{entries}\n"})

        taken = read_again(Options(config="conf"), "beat")

        assert taken.zone == zone
        assert [entry.name for entry in taken.entries] == [zone]


def test_what_the_config_sets_in_the_environment_is_set_anew(tmp_path: Path) -> None:
    text = "import os\nos.environ.setdefault('ZONE_OF_A_TEST', '%s')\n"
    after = "timezone = os.environ['ZONE_OF_A_TEST']\n"
    for zone in ("Asia/Tokyo", "Europe/Berlin"):
        write(tmp_path, {"conf.py": text % zone + after})

        assert read_again(Options(config="conf"), "beat").zone == zone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timezone = 'Europe/Pariss'", "no zone named 'Europe/Pariss'"),
        (
            "import os; os._exit(3)",
            "ended with status 3",
        ),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    ],
)
def test_a_config_that_cannot_be_read_again_is_refused_as_a_whole(
    tmp_path: Path, text: str, said: str
) -> None:
    write(tmp_path, {"conf.py": text})

    with pytest.raises(ConfigError, match=said):
        read_again(Options(config="conf"), "beat")


def test_what_no_other_process_can_be_told_is_said(tmp_path: Path) -> None:
    text = """
        broker_transport_options = {"made": lambda: 1}
        beat_schedule = {"a": {"task": "t", "schedule": 60}}
        """
    write(tmp_path, {"conf.py": text})

    taken = read_again(Options(config="conf"), "beat")

    assert [entry.name for entry in taken.entries] == ["a"]
    (problem,) = taken.warnings
    assert problem.message.startswith("imported modules are not read again: ")
    assert problem.hint == "restart to take what changed in them"


def test_an_entry_whose_call_is_made_for_each_slot_is_named(tmp_path: Path) -> None:
    text = """
        from celery import Celery
        from celery.beat import BeatLazyFunc
        app = Celery("lazy", broker="redis://h", backend="redis://h", set_as_current=0)
        app.conf.beat_schedule = {
            "a": {"task": "t", "schedule": 60, "args": [BeatLazyFunc(lambda: 1)]}
        }
        """
    write(tmp_path, {"lazy_app.py": text})

    taken = read_again(Options(app="lazy_app"), "beat")

    assert [entry.name for entry in taken.entries] == ["a"]
    assert [problem.message for problem in taken.warnings] == [
        "imported modules are not read again: entry 'a' calls the app for each slot: an"
        " argument is a BeatLazyFunc"
    ]


def test_an_interpreter_that_nobody_asks_any_more_ends_without_a_word() -> None:
    for half in (b"", b"\0\0"):
        answered = BytesIO()

        answer(BytesIO(half), answered, leave=list)

        assert answered.getvalue() == b""


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_worker_of_greenlets_works_while_a_config_is_read_again(
    pool: str, tmp_path: Path
) -> None:
    app = """
        from beatd import Beatd
        app = Beatd("proj", broker="sqlite:///broker.db", task_ignore_result=True)
        app.conf.beat_schedule = {"%s": {"task": "proj.done", "schedule": 0.1}}
        @app.task
        def done(): ...
        %s
        """
    write(tmp_path, {"proj.py": app % ("tick", "")})
    os.mkfifo(tmp_path / "gate")
    options = ("worker", "-A", "proj", "-P", pool, "-B", "-l", "INFO")

    with beatd(*options, cwd=tmp_path) as running:
        running.until("succeeded")
        write(tmp_path, {"proj.py": app % ("tock", "open('gate').read()")})
        running.send(signal.SIGHUP)
        with (tmp_path / "gate").open("w"):  # once it is being read
            running.until("succeeded", times=running.output.count("succeeded") + 5)
        running.until("reloaded: 1 entry")
        running.until("tock queued")
        assert running.stop() == 0
