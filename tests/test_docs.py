"""The README and the pages beside it: what they tell to type can be typed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from beatd.cli import beatd as command
from tests.processes import ROOT, beatd, ended
from tests.servers import eventually

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def typed() -> Iterator[tuple[str, str]]:
    """Give each line of `beatd` that a page has among its code, and the page's name."""
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


# Five minutes


def test_five_minutes_with_the_readme_end_in_a_run(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Five minutes") : text.index("## In front of Celery")]
    files = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", section, re.DOTALL)
    for name, source in files:
        (tmp_path / name).write_text(source)
    check, listed, run = (
        shlex.split(line, comments=True)[1:]
        for line in re.findall(r"^ {4}(beatd .*)$", section, re.MULTILINE)
    )

    assert {name for name, _ in files} == {"config.py", "tasks.py"}
    assert ended(*check, cwd=tmp_path).returncode == 0
    assert "tick            every 10 s" in ended(*listed, cwd=tmp_path).stdout
    with beatd(*run, cwd=tmp_path) as worker:
        eventually(lambda: "succeeded" in worker.output, "a run", patience=40)
        assert worker.stop() == 0
