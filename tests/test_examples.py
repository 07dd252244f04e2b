"""The examples, as their readers run them; the article's project is in test_article."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT, Running, beatd, ended
from tests.servers import eventually

FOLDER = ROOT / "examples" / "schedules"

CONFIGS = {
    "commands": {"disk-space", "tidy-up", "health"},
    "basic": {"tick", "every-minute", "nightly-report"},
    "every_kind": {"kind-text", "relative", "catch-up", "paused", "with-options"},
    "timezones": {"opening-Asia/Kolkata", "in-the-gap", "in-utc"},
}
"""Each config, and some of its entries."""


def test_all_examples_are_tried() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")}

    assert files == CONFIGS.keys() | {"tasks"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_well_and_listed(tmp_path: Path, name: str) -> None:
    config = str(FOLDER / f"{name}.py")
    check = ended("check", "--config", config, cwd=tmp_path)
    listed = ended("list", "--config", config, "--json", cwd=tmp_path)

    assert check.returncode == 0, check.stdout + check.stderr
    entries = {entry["name"] for entry in json.loads(listed.stdout)["entries"]}
    assert entries >= CONFIGS[name]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("basic", "tasks.tick"),
        ("every_kind", "tasks.slow"),
        ("commands", "beatd.run"),
    ],
)
def test_scheduler_and_worker_run_a_config(
    tmp_path: Path, name: str, task: str
) -> None:
    options = ("--config", str(FOLDER / f"{name}.py"), "-l", "INFO", "-c", "2")
    with beatd("worker", "-B", *options, cwd=tmp_path) as running:
        eventually(lambda: succeeded(running, task), f"a run of {task}")

        assert running.stop() == 0
    assert "Traceback" not in running.output


def succeeded(running: Running, task: str) -> bool:
    """Return whether the log tells of a run that ended well."""
    return any(
        task in line and "succeeded" in line for line in running.output.splitlines()
    )


# Zones


def runs(cwd: Path, entry: str, start: str, end: str) -> list[str]:
    """Return when the entry of timezones.py runs, as `beatd next` says it."""
    said = ended(
        *("next", "--config", str(FOLDER / "timezones.py"), entry, "--json"),
        *("--at", start, "--until", end, "--limit", "100"),
        cwd=cwd,
    )
    return [run["at"] for run in json.loads(said.stdout)["runs"]]


def test_the_scheduler_starts_on_the_zones(tmp_path: Path) -> None:
    config = str(FOLDER / "timezones.py")
    with beatd("--config", config, "-l", "INFO", cwd=tmp_path) as running:
        running.until("leading, term")

        assert running.stop() == 0


def test_what_lies_in_the_gap_runs_when_it_ends_and_once_when_the_hour_comes_twice(
    tmp_path: Path,
) -> None:
    def nights(start: str, end: str) -> list[str]:
        return runs(tmp_path, "in-the-gap", start, end)

    assert nights("2027-03-27 12:00", "2027-03-28 12:00") == [
        "2027-03-28T03:00:00+02:00"
    ]
    assert nights("2027-10-30 12:00", "2027-10-31 12:00") == [
        "2027-10-31T02:30:00+02:00"
    ]


def test_a_star_follows_the_hands_of_the_clock_through_both_hours(
    tmp_path: Path,
) -> None:
    night = runs(tmp_path, "through-the-night", "2027-10-31 01:50", "2027-10-31 03:00")

    quarters = ("00", "15", "30", "45")
    assert night == [
        *(f"2027-10-31T02:{quarter}:00+02:00" for quarter in quarters),
        *(f"2027-10-31T02:{quarter}:00+01:00" for quarter in quarters),
        "2027-10-31T03:00:00+01:00",
    ]


def test_an_interval_does_not_look_at_the_clock(tmp_path: Path) -> None:
    assert runs(
        tmp_path, "by-elapsed-time", "2027-03-27 12:00", "2027-03-28 12:00"
    ) == [
        "2027-03-27T13:00:00+01:00",
        "2027-03-27T19:00:00+01:00",
        "2027-03-28T01:00:00+01:00",
        "2027-03-28T08:00:00+02:00",
    ]


@pytest.mark.parametrize(
    ("zone", "before", "after"),
    [
        # From Friday to Monday over the change of the clocks there or in Berlin.
        ("Europe/London", "2027-03-26T10:00:00+01:00", "2027-03-29T10:00:00+02:00"),
        ("Asia/Kolkata", "2027-03-26T04:30:00+01:00", "2027-03-29T05:30:00+02:00"),
        ("America/New_York", "2027-03-12T15:00:00+01:00", "2027-03-15T14:00:00+01:00"),
    ],
)
def test_an_office_opens_at_nine_of_its_own_clock(
    tmp_path: Path, zone: str, before: str, after: str
) -> None:
    start, end = f"{before[:10]} 00:00", f"{after[:10]} 23:00"

    assert runs(tmp_path, f"opening-{zone}", start, end) == [before, after]


# `make demo`


def demo() -> list[str]:
    """Return the arguments of the command that `make demo` ends with."""
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = said.replace("\\\n", " ").splitlines()[-1]
    return shlex.split(command)[1:]


def test_the_demo_shows_results_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "demo").mkdir()  # as the line before it does

    with beatd(*demo(), cwd=tmp_path) as running:
        eventually(lambda: succeeded(running, "tasks.tick"), "a result on the terminal")

        assert running.interrupt() == 0
    assert "Traceback" not in running.output
    assert (tmp_path / "demo" / "schedule.db").exists()
