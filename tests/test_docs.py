"""The README and the pages beside it: what they tell to type can be typed."""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from beatd import schedules
from beatd.cli import beatd as command
from beatd.config.entries import KEYS
from beatd.config.loading import examine_source
from beatd.config.source import Source
from tests.processes import ROOT, beatd, ended
from tests.servers import eventually
from tests.test_layers import LINES, ours, packaged, room_of

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def typed() -> Iterator[tuple[str, str]]:
    """Yield each line of `beatd` in the code of a page, with the name of the page."""
    for page in PAGES:
        for line in re.findall(r"^ *beatd(?: .*)?$", page.read_text(), re.MULTILINE):
            if line.startswith("    ") or f"\n{line}\n" in _fenced(page.read_text()):
                yield page.name, line.strip()


def _fenced(text: str) -> str:
    return "".join(re.findall(r"```sh(.*?)```", text, re.DOTALL))


def test_the_pages_have_lines_to_type() -> None:
    assert len([*typed()]) > 10


@pytest.mark.parametrize(("page", "line"), [*typed()])
def test_a_line_that_a_page_tells_to_type_is_understood(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]

    assert page.endswith(".md")
    parse(command, words)


def parse(known: click.Command, words: list[str]) -> None:
    """Read words as the command line does, and do nothing."""
    if isinstance(known, click.Group) and words and not words[0].startswith("-"):
        named = known.get_command(click.Context(known), words[0])
        assert named is not None, words[0]
        parse(named, words[1:])
    else:
        known.make_context(known.name, words)


# For those who change it


def test_the_table_of_rooms_says_what_each_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\|([^|]*)\|$", page, re.MULTILINE)
    left_out = {
        "errors",
        "instant",
        "text",
        "bounds",
        "ids",
        "event_log",
        "parts",
        "clock",
        "version",
    }
    found: dict[str, set[str]] = {}
    for module, path in packaged():
        imported = {room_of(name) for name in ours(path) if name}
        mine = found.setdefault(room_of(module), set())
        mine |= imported - {room_of(module)} - left_out

    told = {room: set(re.findall(r"\w+", imports)) for room, imports in rows}

    entrances = {"__main__", "reread", "spawned"}
    assert told == {
        room: imports
        for room, imports in found.items()
        if room not in left_out | entrances
    }
    above: set[str] = set()
    for room in told:
        assert told[room] <= above, room
        above.add(room)


def test_every_thread_has_its_line() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.compile(r"""(?:Thread\(.*name=|\.start\()"([\w-]+)""")
    names = {
        name
        for path in (ROOT / "beatd").rglob("*.py")
        for name in named.findall(path.read_text())
    }

    assert len(names) > 15
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_what_a_page_names_of_the_tree_is_there(page: str) -> None:
    """Modules as `worker/loop`, all else as it lies there."""
    text = (ROOT / page).read_text()
    rooms = "|".join(sorted({room_of(module) for module in LINES}))
    modules = re.findall(rf"(?<![\w/])((?:{rooms})/[\w/]*\w)", text)
    files = re.findall(r"(?<![\w/])((?:tests|docs|benchmarks)/[\w./-]*\w)", text)
    there = [ROOT / name for name in files]
    there += [_file_of(ROOT / "beatd" / name) for name in modules]

    assert len(there) > 5
    assert [path for path in there if not path.exists()] == []


def test_each_promise_has_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "promises.md").read_text()
    promises = re.findall(r"^\| (?!what |the rule |---).*\|$", text, re.MULTILINE)
    promises = [line for line in promises if not line.startswith("|---")]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)

    assert len(promises) > 40
    assert [line for line in promises if ".py::test_" not in line] == []
    assert [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / path).read_text()
    ] == []


def _file_of(module: Path) -> Path:
    return module if module.is_dir() else module.with_name(f"{module.name}.py")


# Five minutes


def test_five_minutes_with_the_readme_end_in_a_run(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Five minutes") : text.index("## In front of Celery")]
    files = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", section, re.DOTALL)
    for name, source in files:
        (tmp_path / name).write_text(source)
    check, listed, well, run = (
        shlex.split(line, comments=True)[1:]
        for line in re.findall(r"^ {4}(beatd .*)$", section, re.MULTILINE)
    )

    assert {name for name, _ in files} == {"config.py", "tasks.py"}
    assert ended(*check, cwd=tmp_path).returncode == 0
    assert "tick            every 10 s" in ended(*listed, cwd=tmp_path).stdout
    with beatd(*run, cwd=tmp_path) as worker:
        eventually(lambda: "succeeded" in worker.output, "a run", patience=40)
        assert ended(*well, cwd=tmp_path).stdout.startswith("healthy")
        assert worker.stop() == 0


# Entries

ENTRIES = (ROOT / "docs" / "entries.md").read_text()

WRITTEN = {
    **{name: getattr(schedules, name) for name in schedules.__all__},
    **{"datetime": datetime, "timedelta": timedelta, "UTC": UTC},
}


def rows_of(title: str) -> list[list[str]]:
    """Return the cells of the tables under this title, without their heads."""
    (section,) = re.findall(rf"^## {title}\n.*?(?=^## )", ENTRIES, re.M | re.S)
    lines = re.findall(r"^\| (.*) \|\n(?!\|---)", section, re.M)
    return [line.split(" | ") for line in lines]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_of_entries_names_every_key() -> None:
    named = {key for cells in rows_of("Keys") for key in spans(cells[0])}

    assert named == KEYS


@pytest.mark.parametrize(
    "text", [span for cells in rows_of("Schedules") for span in spans(cells[0])]
)
def test_a_schedule_of_the_page_is_one(text: str) -> None:
    assert schedules.read(eval(text, WRITTEN)).describe()


@pytest.mark.parametrize(
    "text",
    [
        span
        for cells in rows_of("Looked for most often")
        for span in spans(cells[1])
        if span.startswith('"') and "..." not in span
    ],
)
def test_what_the_page_says_to_write_is_an_entry(text: str) -> None:
    written = {"task": "shop.add", "schedule": 60, **eval(f"{{{text}}}", WRITTEN)}
    found = Source("the page", {"beat_schedule": {"an-entry": written}})

    report = examine_source(found)

    assert report.problems == []
