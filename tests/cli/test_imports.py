"""What a command imports: no more than it needs, and what is large only when needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = {
    *("asyncio", "celery", "croniter", "email", "hiredis", "http", "kombu", "logging"),
    *("msgspec", "multiprocessing", "redis", "rich", "socket", "sqlite3", "ssl"),
    *("sqlitedict", "subprocess", "urllib.request"),
}
"""Packages that take time to import."""

ASK = """
import json, sys
from beatd.cli import main
status = main(sys.argv[1:])
print(json.dumps([*sys.modules]), file=sys.stderr)
sys.exit(status)
"""


def imported_by(program: str, *words: str, folder: Path) -> set[str]:
    """Return the modules that a new interpreter has imported at the end."""
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    )
    return {*json.loads(done.stderr.splitlines()[-1])}


def large(modules: set[str]) -> set[str]:
    return {name for name in LARGE if name in modules}


def rooms_of(modules: set[str]) -> set[str]:
    """Return the rooms of beatd that these modules are in."""
    return {name.split(".")[1] for name in modules if name.startswith("beatd.")}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_the_names_of_commands_and_options_alone(
    option: str, tmp_path: Path
) -> None:
    modules = imported_by(ASK, option, folder=tmp_path)

    assert large(modules) == set()
    assert rooms_of(modules) == {"cli", "config", "errors", "service", "version"}
    assert sum(name.startswith("beatd") for name in modules) <= 12


def test_a_list_of_entries_imports_neither_a_scheduler_nor_a_worker(
    tmp_path: Path,
) -> None:
    (tmp_path / "celeryconfig.py").write_text(
        'beat_schedule = {"a": {"task": "t", "schedule": 60}}\n'
    )

    modules = imported_by(ASK, "list", folder=tmp_path)

    assert rooms_of(modules) & {"worker", "pools", "runs", "tasks", "alerts"} == set()
    assert "beatd.scheduler.loop" not in modules
    assert large(modules) <= {"msgspec", "logging", "socket", "sqlite3", "ssl"}


def test_a_worker_alone_imports_no_scheduler(tmp_path: Path) -> None:
    program = """
import json, sys
import beatd.service.worker
print(json.dumps([*sys.modules]), file=sys.stderr)
"""

    modules = imported_by(program, folder=tmp_path)

    assert rooms_of(modules) & {"scheduler", "alerts", "migrate"} == set()
    assert large(modules) & {"redis", "urllib.request", "celery"} == set()
