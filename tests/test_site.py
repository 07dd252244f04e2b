"""The site that `make docs` builds: its pages, their links, its first steps."""

import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.site.hooks import FORMS, foreign, linked
from tests.pictures import FOLDER, drawn, printed
from tests.processes import ROOT, beatd, ended
from tests.servers import eventually

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def of_nav(part: Any) -> Iterator[str]:
    match part:
        case str():
            yield part
        case dict():
            for value in part.values():
                yield from of_nav(value)
        case list():
            for value in part:
                yield from of_nav(value)


def test_each_page_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    assert sorted(of_nav(config["nav"])) == sorted(
        str(page.relative_to(DOCS)) for page in PAGES
    )


@cache
def prose(page: Path) -> str:
    """Return a page without its code."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "`", text)


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as mkdocs makes them."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", READ, ids=name)
def test_each_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)

    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_of_the_site_links_nothing_that_the_site_lacks(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s:#]+)[)#]", prose(page))

    assert [
        target
        for target in targets
        if DOCS not in (page.parent / target).resolve().parents
    ] == []


# The glossary


def test_the_glossary_is_in_order_and_all_its_words_are_linked() -> None:
    titles = re.findall(r"^## (.*)$", (DOCS / "glossary.md").read_text(), re.M)

    assert titles == sorted(titles)
    assert anchors(DOCS / "glossary.md") - {"glossary"} == set(FORMS)


def test_a_word_of_the_glossary_is_linked_where_a_page_uses_it_first() -> None:
    page = "<h1>Slots</h1><p>Two <code>slots</code> and a slot, then slots.</p>"

    assert linked(page, "glossary.html") == (
        "<h1>Slots</h1><p>Two <code>slots</code> and a "
        '<a class="word" href="glossary.html#slot">slot</a>, then slots.</p>'
    )


@pytest.mark.parametrize(
    "text",
    [
        "<a href='x'>a slot</a>",
        "<pre><span>slot</span></pre>",
        "<p>time-slot</p>",
        "<p>this leads to trouble</p>",
        "<svg><text>slot</text></svg>",
    ],
)
def test_no_link_is_made_where_it_would_be_wrong(text: str) -> None:
    assert linked(text, "glossary.html") == text


def test_what_a_browser_would_load_from_another_server_is_found() -> None:
    page = (
        '<link rel="canonical" href="https://docs/"><a href="https://celery/">Celery</a>'
        '<script src="https://cdn/x.js"></script><img src="list.svg">'
        '<link href="//fonts/a.css"><style>@import url(https://cdn/b.css)</style>'
    )

    assert foreign(page) == ["https://cdn/x.js", "//fonts/a.css", "https://cdn/b.css"]


# Pictures


@pytest.mark.usefixtures("forgotten")
def test_the_pictures_show_what_the_commands_print_now() -> None:
    for name, text in printed():
        made = drawn(text, f"beatd {name}")
        assert (FOLDER / f"{name}.svg").read_text() == made, "python -m tests.pictures"


# First steps


def commands(title: str) -> list[list[str]]:
    """Return the commands that a section of the page tells to type, as words."""
    text = (DOCS / "first-steps.md").read_text()
    [section] = re.findall(rf"^## {title}\n.*?(?=^## )", text, re.M | re.S)
    lines = "".join(re.findall(r"```sh\n(.*?)```", section, re.S)).splitlines()
    return [line.split() for line in lines]


def of_guides() -> list[str]:
    """Return what guides tell to type beside a scheduler that runs, each line once.

    Left out is what asks about a date, which comes and goes, about dead letters, of
    which there are none, and whether it is well at this very moment.
    """
    pages = ("troubleshooting.md", "operations.md", "two-data-centres.md")
    text = "".join((DOCS / page).read_text() for page in pages)
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
    plain = (line.partition("#")[0].strip() for line in lines)
    passing = re.compile(r" dead | --exit-code|\d{4}-\d\d-\d\d")
    return [*dict.fromkeys(line for line in plain if not passing.search(line))]


def test_the_guides_have_commands() -> None:
    assert len(of_guides()) > 7


def test_the_first_steps_can_be_taken(tmp_path: Path) -> None:
    text = (DOCS / "first-steps.md").read_text()
    for file, source in re.findall(
        r"`(\w+\.py)` [^\n]*\n\n```python\n(.*?)```", text, re.S
    ):
        (tmp_path / file).write_text(source)

    for _, *words in commands("Look before you start"):
        assert ended(*words, cwd=tmp_path).returncode == 0
    env = {"BEATD_CONFIG": "config.py"}
    exported, [_, *start] = commands("Start it")
    assert exported == ["export", "BEATD_CONFIG=config.py"]
    with beatd(*start, cwd=tmp_path, **env) as worker:
        worker.until("succeeded")
        for _, *words in commands("See what it does")[2:]:
            said = ended(*words, cwd=tmp_path, **env)
            assert (said.returncode, said.stderr) == (0, ""), words
            assert said.stdout
        for line in of_guides():
            said = ended(*shlex.split(line)[1:], cwd=tmp_path, **env)
            # 1: --strict minds the night when clocks change.
            status = 1 if "--strict" in line else 0
            assert said.returncode == status, line + said.stderr
            assert "Traceback" not in said.stdout + said.stderr
        assert worker.interrupt() == 0
    with ExitStack() as stack:
        [_, *leads], [_, *works] = commands("Start a second one")
        first = stack.enter_context(beatd(*leads, cwd=tmp_path, **env))
        first.until("leading")
        runs = stack.enter_context(beatd(*works, cwd=tmp_path, **env))
        runs.until("succeeded")
        second = stack.enter_context(beatd(*leads, cwd=tmp_path, **env))
        second.until("standing by")
        assert first.interrupt() == 0
        second.until("leading")
        second.until("tick queued")
        eventually(lambda: runs.output.count("succeeded") > 1, "a run of the second's")
