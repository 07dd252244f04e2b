"""The page of metrics, the rules and the dashboard say what beatd really tells."""

import json
import re
from functools import cache
from typing import Any

import pytest
import yaml

from tests.monitoring.metrics import scheduler_rows, worker_rows
from tests.monitoring.tools import run, tool
from tests.processes import ROOT

FOLDER = ROOT / "docs" / "monitoring"
PAGE = FOLDER / "prometheus.md"


@cache
def section(title: str) -> list[str]:
    """Return the lines of a table of the page, without its head."""
    _, _, rest = PAGE.read_text().partition(f"\n## {title}\n")
    lines = rest.partition("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| ")][1:]


def test_the_page_has_each_metric_with_its_meaning() -> None:
    assert section("Metrics of a scheduler") == [one.line for one in scheduler_rows()]
    assert section("Metrics of a worker") == [one.line for one in worker_rows()]


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def test_the_page_has_each_rule_and_each_rule_is_tried() -> None:
    lines = [line_of(rule) for rule in rules()]
    tried = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]

    assert section("Alert rules") == lines
    assert [one["name"] for one in tried] == [
        f"{rule['alert']} {end}" for rule in rules() for end in ("fires", "is silent")
    ]


def test_rules_are_looked_at_as_often_as_their_tests_do() -> None:
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]
    tried = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())

    assert scraped["evaluation_interval"] == tried["evaluation_interval"]


def line_of(rule: dict[str, Any]) -> str:
    summary = re.sub(
        r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", rule["annotations"]["summary"]
    )
    summary = re.sub(r"\{\{ \$value.*?\}\}", "*n*", summary)
    return f"| `{rule['alert']}` | {summary} |"


def queries() -> list[tuple[str, str]]:
    """Return each query of the dashboard, with the title of its panel."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [
        (panel["title"], target["expr"])
        for panel in panels
        for target in panel.get("targets", [])
    ]


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    rows = [*scheduler_rows(), *worker_rows()]
    there = {name for row in rows for name in row.samples}
    asked = [*queries(), *((rule["alert"], rule["expr"]) for rule in rules())]

    missing = [
        (where, name)
        for where, expression in asked
        for name in re.findall(r"\bbeatd_\w+", expression)
        if name not in there
    ]
    assert missing == []
    assert len(asked) > 40


@pytest.mark.parametrize("kind", ["stat", "timeseries", "table"])
def test_panels_do_not_overlap_and_have_titles(kind: str) -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(one["title"] for one in panels if one["type"] == kind)


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    promtool = tool("promtool")

    checked = run([promtool, "check", "rules", "rules.yaml"], FOLDER).stdout
    tried = run([promtool, "test", "rules", "rules_test.yaml"], FOLDER).stdout

    assert f"{len(rules())} rules found" in checked
    assert "SUCCESS" in tried
    assert (
        "SUCCESS" in run([promtool, "check", "config", "prometheus.yml"], FOLDER).stdout
    )
