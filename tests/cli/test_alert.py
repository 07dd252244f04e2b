"""`beatd alert test`, and what other commands say of alerts."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, unsaid

CONFIG = """
result_backend = "sqlite:///results.db"
beat_alerts = {{
    "tick": {{"command": ["sh", "-c", "cat >> told"], "max_run": 60}},
    "tock": {{"command": ["sh", "-c", "echo no luck; exit 3"]}},
    "{other}": {{"function": "ops_of_test.page"}},
}}
beat_schedule = {{
    name: {{"task": "tasks.t", "schedule": 60}} for name in ("tick", "tock", "third")
}}
"""


@pytest.fixture
def config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "celeryconfig.py"
    path.write_text(CONFIG.format(other="third"))
    (folder / "ops_of_test.py").write_text(
        "from pathlib import Path\n"
        "def page(alert): Path('paged').write_text(alert['entry'])\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    return path


def test_a_test_says_what_happened_with_each_target(run: Run, config: Path) -> None:
    result = run("alert", "test", status=1)

    lines = result.stdout.splitlines()
    assert lines[0].startswith("third: function ops_of_test.page: ok, ")
    assert lines[1].startswith("tick: command sh: ok, ")
    assert lines[2] == "tock: command sh: FAILED: sh: it ended with status 3: no luck"
    assert "1 of 3 tries failed" in result.stderr
    told = json.loads((config.parent / "told").read_text())
    assert told["text"] == "tick: this is a test of beatd's alerts: nothing has failed"
    assert (config.parent / "paged").read_text() == "third"


def test_a_test_of_one_entry_tries_its_targets_only(run: Run, config: Path) -> None:
    assert run("alert", "test", "tick").stdout.startswith("tick: command sh: ok")
    assert "no entry named 'tik'" in run("alert", "test", "tik", status=3).stderr


@pytest.mark.parametrize(
    ("rules", "words"),
    [("{}", "there is no rule of alerts"), ("{'*': {}}", "alerts go to the log only")],
)
def test_who_has_nobody_to_tell_is_told(
    run: Run, config: Path, rules: str, words: str
) -> None:
    config.write_text(f"{config.read_text()}\nbeat_alerts = {rules}\n")

    assert words in run("alert", "test", status=3).stderr


def test_show_says_what_is_told_of_an_entry_and_to_whom(run: Run, config: Path) -> None:
    told = "late by more than 10 s, missed, failed, recovered, goes on for 60 s"
    said = " ".join(run("show", "tick").stdout.split())
    assert f"alerts {told} to: log, command sh" in said

    document = json.loads(run("show", "tick", "--json").stdout)
    assert document["alerts"] == {
        "told": told.split(", "),
        "ways": ["log", "command sh"],
    }
    assert unsaid(document) == set()


def test_check_imports_the_functions_that_are_told(run: Run, config: Path) -> None:
    (config.parent / "ops_of_test.py").write_text("")
    said = " ".join(run("check", "--import", status=1).stdout.split())
    assert "alerts: function ops_of_test.page: it cannot be imported" in said
