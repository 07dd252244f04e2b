"""`beatd import celery`: with celery beat as it is, and at the command line."""

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beatd.migrate.shelves import read_shelve
from tests.migrate.test_shelves import by_dumb, by_sqlite, entries_of, rows
from tests.processes import beatd, ended, module
from tests.servers import Server
from tests.switch.files import write

CONFIG = {
    "conf.py": """
        from datetime import timedelta
        from beatd.schedules import crontab, every
        broker_url = "sqlite:///broker.db"
        beat_schedule = {
            "a": {"task": "t", "schedule": every(hours=1, align=False)},
            "new": {"task": "t", "schedule": crontab(minute=0, hour=4)},
        }
        """
}
MOMENT = datetime(2026, 11, 30, 12, 0, 1, tzinfo=UTC)


def test_after_celery_beat_no_slot_is_emitted_twice(
    tmp_path: Path, server: Server
) -> None:
    text = f"""
        from celery import Celery
        app = Celery("proj", broker="{server.url()}")
        app.conf.beat_schedule = {{
            "often": {{"task": "t", "schedule": 1.0}},
            "daily": {{"task": "t", "schedule": 86400.0}},
        }}
        """
    write(tmp_path, {"proj.py": text})
    with module("celery", "-A", "proj", "beat", "-l", "INFO", cwd=tmp_path) as theirs:
        # It says so before it sends: the third line stands after the second message.
        theirs.until("Sending due task often", times=3)
        assert theirs.stop() == 0
    shelve = tmp_path / "celerybeat-schedule"
    last = {one.name: one.last for one in read_shelve(shelve, UTC).entries}
    with server.client() as client:
        before = client.llen("celery")

    offered = ended("check", "-A", "proj", cwd=tmp_path)
    (command,) = re.findall("beatd (import celery .*)", offered.stdout)
    done = ended(*command.split(), "--yes", cwd=tmp_path)
    listed = ended("list", "-A", "proj", "--json", cwd=tmp_path)
    with server.client() as client:
        after = client.llen("celery")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        "celerybeat-schedule: 3 last runs to take over.\n"
        "took over 3 last runs: start beatd, and not the other one again\n"
    )
    assert before == after > 1
    entries = {one["name"]: one for one in json.loads(listed.stdout)["entries"]}
    assert last["often"] is not None
    assert entries["often"]["last_run_at_ts"] == last["often"].at / 1000
    assert entries["often"]["total_run_count"] == last["often"].runs > 1
    assert "import celery" not in ended("check", "-A", "proj", cwd=tmp_path).stdout


def test_without_a_terminal_it_is_only_shown(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    by_dumb(tmp_path / "old", rows(entries_of(a=3, gone=1)))
    before = sorted(one.name for one in tmp_path.iterdir())

    shown = ended("import", "celery", "old", "--config", "conf.py", cwd=tmp_path)

    assert shown.returncode == 0
    assert "not in conf.py: 'gone'\n" in shown.stdout
    assert shown.stdout.endswith(
        "old: 1 last run to take over.\n"
        "nothing was changed.  With the other scheduler stopped: --yes does it\n"
    )
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == before


def test_a_shelve_in_the_place_of_the_schedule_file_is_kept(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    shelve = tmp_path / "celerybeat-schedule"
    by_sqlite(shelve, rows(entries_of(a=3)))
    before = shelve.read_bytes()
    words = ("import", "celery", shelve.name, "--config", "conf.py", "--yes")

    refused = ended("--config", "conf.py", cwd=tmp_path)
    done = ended(*words, cwd=tmp_path)
    again = ended(*words[:2], f"{shelve.name}.celery", *words[3:], cwd=tmp_path)

    assert refused.returncode == 78
    assert "beatd import celery takes it over" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert "celerybeat-schedule is kept as celerybeat-schedule.celery" in done.stdout
    assert (tmp_path / "celerybeat-schedule.celery").read_bytes() == before
    assert "0 last runs to take over, 1 kept as beatd has them" in again.stdout


def test_a_shelve_stays_where_it_is_if_the_import_fails(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    write(tmp_path, {"lead.py": "broker_url = 'sqlite:///broker.db'"})
    shelve = tmp_path / "celerybeat-schedule"
    by_sqlite(shelve, rows(entries_of(a=3)))
    words = ("import", "celery", shelve.name, "--config", "conf.py", "--yes")

    with beatd(
        "--config", "lead.py", "-s", "other", "-l", "INFO", cwd=tmp_path
    ) as leader:
        leader.until("leading, term")
        refused = ended(*words, cwd=tmp_path)
        leader.stop()

    assert refused.returncode == 1
    assert "error: a scheduler of beatd leads (" in refused.stderr
    assert "stop it, run this again, and start it" in refused.stderr
    assert [one.name for one in read_shelve(shelve, UTC).entries] == ["a"]
    assert not (tmp_path / "celerybeat-schedule.celery").exists()


def test_json_says_what_is_taken_over(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    by_dumb(tmp_path / "old", rows(entries_of(a=3, gone=1)))
    words = ("import", "celery", "old", "--config", "conf.py", "--json")

    shown = json.loads(ended(*words, cwd=tmp_path).stdout)
    done = json.loads(ended(*words, "--yes", cwd=tmp_path).stdout)

    assert (shown["written"], done["written"]) == (False, True)
    for document in (shown, done):
        assert document["missing"] == ["gone"]
        assert [(one["name"], one["step"]) for one in document["entries"]] == [
            ("a", "taken"),
            ("new", "new"),
        ]
        assert document["entries"][0]["last_run_at_ts"] == MOMENT.timestamp()


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        ({}, 1, "error: old is not there"),
        ({"b": 1}, 0, "0 last runs to take over"),
        (None, 3, "error: old: there are no entries"),
    ],
)
def test_nothing_to_take_over_is_said(
    tmp_path: Path, make: dict[str, int] | None, status: int, words: str
) -> None:
    write(tmp_path, CONFIG)
    if make != {}:
        by_dumb(tmp_path / "old", rows(entries_of(**(make or {}))))

    said = ended("import", "celery", "old", "--config", "conf.py", cwd=tmp_path)

    assert said.returncode == status
    assert words in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_a_hostile_file_is_one_error(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    pickled = b"cos\nsystem\n(S'touch mark'\ntR."
    by_dumb(tmp_path / "old", {b"entries": pickled})

    said = ended("import", "celery", "old", "--config", "conf.py", cwd=tmp_path)

    assert said.returncode == 1
    assert said.stderr.startswith(
        "error: old is not read, and nothing in it was run: it names 'os.system'"
    )
    assert not (tmp_path / "mark").exists()
