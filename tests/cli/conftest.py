"""The shop of the mock-ups: its config, its schedule file, and the time there."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time

from beatd.cli import beatd
from beatd.cli.output import Screen
from beatd.config.loading import Wanted, load
from beatd.instant import Instant, datetime_of, instant_of
from beatd.scheduler.schedule_file import ScheduleFile
from tests.fakes import FakeClock

SHOP = """\
from beatd.schedules import crontab

timezone = "Europe/Berlin"
beat_schedule = {
    "tick": {"task": "shop.tasks.tick", "schedule": 2},
    "sync-crm": {"task": "shop.tasks.sync", "schedule": "*/5 * * * *"},
    "report-sales": {
        "task": "shop.tasks.report",
        "schedule": "30 * * * *",
        "args": (7,),
        "kwargs": {"kind": "sales", "api_token": "hush"},
        "options": {"queue": "reports"},
    },
    "nightly-backup": {
        "task": "backups.run",
        "schedule": crontab(minute=30, hour=2),
        "description": "all of it",
    },
    "invoice-run": {"task": "shop.tasks.invoice", "schedule": "0 6 1 * *"},
    "old-import": {
        "task": "shop.tasks.old",
        "schedule": "0 4 * * sun",
        "enabled": False,
    },
}
"""

LAST_RUNS = {
    "tick": "2026-11-23T14:05:12+01:00",
    "sync-crm": "2026-11-23T14:05:00+01:00",
    "report-sales": "2026-11-23T13:30:00+01:00",
    "nightly-backup": "2026-11-23T02:30:00+01:00",
    "invoice-run": "2026-11-01T06:00:00+01:00",
    "old-import": "2026-11-15T04:00:00+01:00",
}


def at(text: str) -> Instant:
    """Return an instant that is written with its offset."""
    return instant_of(datetime.fromisoformat(text))


NOW = at("2026-11-23T14:05:12+01:00")

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def unsaid(document: Any) -> set[str]:
    """Return the names in a JSON document that its section of the page does not have.

    The names that end in `_ts` are said there once for all.
    """
    page = PAGE.read_text()
    general, *sections = page[page.index("## JSON") :].split("\n### ")
    [section] = [one for one in sections if f"`{document['schema']}`" in one]
    said = set(re.findall(r"`(\w+)`", general + section))
    return {name.removesuffix("_ts") for name in _names(document)} - said


def _names(part: Any) -> Iterator[str]:
    match part:
        case dict():
            yield from part
            for value in part.values():
                yield from _names(value)
        case list():
            for value in part:
                yield from _names(value)


class Run(Protocol):
    """Runs `beatd` with these words, on `screen` or else in a pipe."""

    def __call__(
        self, *words: str, screen: Screen | None = None, status: int = 0
    ) -> Result: ...


@pytest.fixture
def run() -> Run:
    def run(*words: str, screen: Screen | None = None, status: int = 0) -> Result:
        result = CliRunner().invoke(beatd, words, obj=screen, catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture(autouse=True)
def folder(
    forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A working directory of the test's own, at the time of the mock-ups."""
    monkeypatch.chdir(tmp_path)
    ours = [name for name in os.environ if name.startswith("BEATD_")]
    for name in ("NO_COLOR", "CLICOLOR_FORCE", *ours):
        monkeypatch.delenv(name, raising=False)
    with freeze_time(datetime_of(NOW), ignore=["_pytest.timing"]):
        yield tmp_path


@pytest.fixture
def shop(folder: Path) -> Path:
    """The shop's config, called celeryconfig.py; nothing ran yet."""
    path = folder / "celeryconfig.py"
    path.write_text(SHOP)
    return path


def ran(
    refused: Mapping[str, str] | None = None,
    held: Mapping[str, str] | None = None,
    uncertain: Mapping[str, int] | None = None,
    config: str = "",
    /,
    **last_runs: str,
) -> None:
    """Let the schedule file say when these entries, `_` for `-`, ran last.

    `refused` has the reasons of entries that the broker refuses, `held` of those that
    wait for their runs. `uncertain` has numbers of slots in doubt, `config` is the
    digest of the entries that ran.
    """
    entries = {entry.name: entry for entry in load(Wanted()).entries}
    marks = {}
    for word, last in last_runs.items():
        name = word.replace("_", "-")
        new = entries[name].mark_from(None, at(last))
        marks[name] = new._replace(runs=3, last=at(last))
    file = ScheduleFile(
        Path("celerybeat-schedule"),
        namespace="default",
        timezone="Europe/Berlin",
        clock=FakeClock(),
    )
    assert file.try_lock()
    file.rewrite(marks, gone=(), era=0, term=1)
    file.note_refused(refused or {})
    file.note_held(held or {})
    lost = {(name, "uncertain"): number for name, number in (uncertain or {}).items()}
    file.record({}, lost)
    file.note_config(config)
    file.flush()
    file.unlock()


@pytest.fixture
def running_shop(shop: Path) -> Path:
    """The shop's config, with a schedule file beside it."""
    ran(**{name.replace("-", "_"): last for name, last in LAST_RUNS.items()})
    return shop
