"""docs/migration.md: its commands are run, one after another, as they stand there."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.triggers import cron, date, interval

from beatd import schedules
from beatd.instant import datetime_of, instant_of
from beatd.schedules.zones import zone_of
from tests.django_site import fill, write_site
from tests.migrate.test_django_tables import FILL
from tests.migrate.test_redbeat import ADD, PROJECT
from tests.processes import ROOT, environment, module, ran
from tests.servers import PATIENCE, Server
from tests.switch.files import write

PAGE = (ROOT / "docs" / "migration.md").read_text()


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n.*?(?=^## |\Z)", PAGE, re.M | re.S)
    return str(found)


def steps(title: str) -> Iterator[tuple[str, str]]:
    """Yield each block of a section: its kind, and what is in it.

    A block of Python belongs to the file that the line before names: after `At the end
    of` it is added there, else it is all of it. A line that says `Take the lines at the
    end of` a file out is a step of its own.
    """
    for before, kind, text in re.findall(
        r"([^\n]*)\n\n```(sh|python)\n(.*?)```", section(title), re.S
    ):
        if before.startswith("Take the lines at the end of"):
            yield before, ""
        if kind == "sh":
            yield from (("sh", line) for line in text.splitlines())
        else:
            yield before, text


class Follower:
    """Does what a section says, in a folder."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {"PYTHONPATH": f"{folder}:{ROOT}", **env}
        self.said = ""
        self.added: dict[str, str] = {}

    def follow(self, title: str) -> None:
        """Do the steps of a section."""
        for kind, text in steps(title):
            self._do(kind, text)

    def _do(self, kind: str, text: str) -> None:
        if kind != "sh":
            (name,) = re.findall(r"`([\w/]+\.py)`", kind)
            path = self.folder / name
            if kind.startswith("At the end of"):
                self.added[name] = f"\n{text}"
                path.write_text(path.read_text() + self.added[name])
            elif kind.startswith("Take the lines"):
                path.write_text(path.read_text().removesuffix(self.added.pop(name)))
            else:
                path.write_text(text)
            return
        words = shlex.split(text, comments=True)
        if words[0] == "rm":
            subprocess.run(text, shell=True, cwd=self.folder, check=True)
        elif words[0] == "python":
            self.run([sys.executable, *words[1:]])
        elif _runs_on(words):
            name, *rest = words
            level = "DEBUG" if name == "celery" else "INFO"
            with module(
                name, *rest, "-l", level, cwd=self.folder, **self.env
            ) as running:
                running.until(_runs_on(words))
                self.said = running.output
                if name == "beatd":  # celery beat is killed: its stop may hang
                    assert running.stop() == 0
        else:
            self._hear(ran(*words, cwd=self.folder, **self.env))

    def run(self, words: list[str]) -> None:
        """Run a command to its end; it has to succeed."""
        self._hear(
            subprocess.run(
                words,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env=environment(**self.env),
                check=False,
            )
        )

    def _hear(self, done: "subprocess.CompletedProcess[str]") -> None:
        assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
        self.said = done.stdout


def _runs_on(words: list[str]) -> str:
    """Return what a command says once it runs on; empty for one that ends."""
    if words[0] == "celery":
        return "beat: Waking up"  # it begins to start with entries that it cannot use
    if words[1] == "worker":
        return "ready"
    return "leading, term" if words[1].startswith("-") else ""


def test_from_celery_beat_and_back(tmp_path: Path, server: Server) -> None:
    text = f"""
        from celery import Celery
        app = Celery("proj", broker="{server.url()}")
        app.conf.beat_schedule = {{"often": {{"task": "t", "schedule": 1.0}}}}
        """
    write(tmp_path, {"proj.py": text})
    follower = Follower(tmp_path)
    with module("celery", "-A", "proj", "beat", "-l", "INFO", cwd=tmp_path) as theirs:
        theirs.until("Sending due task often", times=2)
        theirs.stop()

    follower.follow("From celery beat")

    assert "beat: Starting..." in follower.said


def test_from_redbeat_and_back(tmp_path: Path, server: Server) -> None:
    write(tmp_path, {"proj.py": PROJECT.format(url=server.url()), "add.py": ADD})
    follower = Follower(tmp_path)
    with module("celery", "-A", "proj", "beat", "-l", "INFO", cwd=tmp_path) as theirs:
        theirs.until("Sending due task often", times=2)
        with module("add", cwd=tmp_path) as added:
            added.process.wait(PATIENCE)
        theirs.stop()

    follower.follow("From RedBeat")

    assert "added" in (tmp_path / "entries.py").read_text()
    assert "beat: Starting..." in follower.said


def test_from_django_celery_beat_and_back(tmp_path: Path, server: Server) -> None:
    write_site(tmp_path, server.url(), site="proj", database="db.sqlite3")
    fill(tmp_path, FILL, site="proj")
    follower = Follower(tmp_path, DJANGO_SETTINGS_MODULE="proj.settings")

    follower.follow("From django-celery-beat")

    assert (tmp_path / "more.py").read_text().count('"task"') == 7
    assert "beat: Starting..." in follower.said


def test_from_apscheduler(tmp_path: Path) -> None:
    Follower(tmp_path).follow("From APScheduler")


def test_from_cron(tmp_path: Path) -> None:
    (tmp_path / "old.crontab").write_text("MAILTO=me\n0 4 * * * df -h | tail -1\n")

    Follower(tmp_path).follow("From cron")

    assert "beatd sends no mail" in (tmp_path / "jobs.py").read_text()


ROWS = re.findall(
    r"^\| `(\w+Trigger\(.*?\))` \| `(.*?)`", section("From APScheduler"), re.M
)
TRIGGERS = {
    "CronTrigger": cron.CronTrigger,
    "DateTrigger": date.DateTrigger,
    "IntervalTrigger": interval.IntervalTrigger,
}
WRITTEN = {name: getattr(schedules, name) for name in schedules.__all__}


@pytest.mark.parametrize(("theirs", "ours"), ROWS)
def test_a_trigger_of_apscheduler_has_the_slots_of_its_entry(
    theirs: str, ours: str
) -> None:
    now = datetime(2026, 11, 30, 12, 0, 0, 1, tzinfo=UTC)
    trigger = eval(theirs.replace(")", ", timezone='UTC')"), TRIGGERS)
    schedule = schedules.read(eval(ours, WRITTEN)).in_zone(zone_of("UTC"))
    if isinstance(trigger, interval.IntervalTrigger):
        assert schedule.next_after(0) == trigger.interval.total_seconds() * 1000
        return

    fired, slot = None, instant_of(now)
    for _ in range(5):
        fired = trigger.get_next_fire_time(fired, now)
        if fired is None:
            break
        found = schedule.next_after(slot)
        assert found is not None
        assert datetime_of(found) == fired
        slot, now = found, fired


def test_the_page_has_all_sections() -> None:
    assert len(ROWS) == 9
    for title in (
        "celery beat",
        "RedBeat",
        "django-celery-beat",
        "APScheduler",
        "cron",
    ):
        assert [kind for kind, _ in steps(f"From {title}") if kind == "sh"]
        assert "**Back**" in section(f"From {title}")
