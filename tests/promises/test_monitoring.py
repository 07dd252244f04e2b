"""A real Prometheus reads a running beatd: each query of the dashboard has data."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.monitoring.test_pages import FOLDER, queries, rules
from tests.monitoring.tools import tool
from tests.processes import beatd
from tests.servers import Server, eventually, number_of, reserved_port

pytestmark = pytest.mark.promise

WAIT = 120.0
"""Seconds until all that is asked for has happened, and was read twice."""

CONFIG = """\
from beatd import Beatd, every

app = Beatd("shop", broker="{url}", result_backend="{url}")
app.conf.beat_schedule = {{
    "tick": {{"task": "shop.tick", "schedule": every(1)}},
    "lonely": {{
        "task": "shop.tick", "schedule": every(2), "options": {{"queue": "lonely"}},
    }},
    "off": {{"task": "shop.tick", "schedule": every(1), "enabled": False}},
    "bad": {{"task": "shop.tick", "schedule": "nonsense"}},
}}

@app.task(name="shop.tick")
def tick():
    pass
"""

PROMETHEUS = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: beatd
    static_configs: [{{targets: ["127.0.0.1:{first}", "127.0.0.1:{second}"]}}]
  - job_name: beatd-worker
    static_configs: [{{targets: ["127.0.0.1:{worker}"]}}]
"""

VARIABLES = {"$job": ".*", "$worker_job": ".*", "$__rate_interval": "10s"}


class Prometheus:
    """A Prometheus that runs, by its port."""

    def __init__(self, port: int) -> None:
        self._place = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **asked: str) -> Any:
        """Return what it answers; None while it does not listen yet."""
        place = f"{self._place}/{path}?{urlencode(asked)}"
        try:
            with urlopen(place, timeout=10) as answer:
                return json.load(answer)["data"]
        except URLError:
            return None

    def values(self, expression: str) -> Sequence[float]:
        """Return the values of all series that an expression has now."""
        found = self.get("query", query=expression) or {"result": []}
        return [float(one["value"][1]) for one in found["result"]]


@contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """Run a Prometheus of this config for the block's time."""
    (folder / "prometheus.yml").write_text(config)
    with reserved_port() as reserved, (folder / "prometheus.log").open("wb") as log:
        port = number_of(reserved)
        words = [
            *(tool("prometheus"), "--config.file=prometheus.yml"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.path=data"),
        ]
        with subprocess.Popen(words, cwd=folder, stdout=log, stderr=log) as process:
            try:
                yield Prometheus(port)
            finally:
                os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def running(server: Server, tmp_path: Path) -> Iterator[Prometheus]:
    """Two schedulers and a worker that emit and run, and a Prometheus beside them."""
    (tmp_path / "shop.py").write_text(CONFIG.format(url=server.url()))
    with ExitStack() as stack:
        reserved = [stack.enter_context(reserved_port()) for _ in range(3)]
        first, second, worker = map(number_of, reserved)
        for options in (
            ("-s", "first.db", "--http", str(first)),
            ("-s", "second.db", "--http", str(second)),
            ("worker", "-Q", "celery", "-c", "1", "--http", str(worker)),
        ):
            stack.enter_context(beatd("-A", "shop", *options, cwd=tmp_path))
        ports = {"first": first, "second": second, "worker": worker}
        config = PROMETHEUS.format(rules=FOLDER / "rules.yaml", **ports)
        yield stack.enter_context(prometheus(tmp_path, config))


def test_each_query_of_the_dashboard_has_an_answer(running: Prometheus) -> None:
    expressions = dict[str, str]()
    for title, expression in queries():
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        expressions[expression] = title
    silent = set(expressions)

    def all_answer() -> bool:
        silent.intersection_update([one for one in silent if not has_data(one)])
        return not silent

    def has_data(expression: str) -> bool:
        return any(value == value for value in running.values(expression))

    try:
        eventually(all_answer, "each query", WAIT)
    except AssertionError:
        pytest.fail(f"no data for {[(expressions[one], one) for one in silent]}")

    assert len(expressions) > 25
    emitted = running.values("sum(beatd_emitted_total)")
    ended = running.values('sum(beatd_worker_tasks_total{state="SUCCESS"})')
    assert 0 < ended[0] <= emitted[0]
    assert running.values("max(beatd_standbys)") == [1]
    known = running.get("rules")["groups"][0]["rules"]
    assert {one["name"] for one in known} == {rule["alert"] for rule in rules()}
    assert {one["health"] for one in known} == {"ok"}
    eventually(lambda: {"BeatdQueueNotTaken", "BeatdEntryBad"} <= told(running), "both")


def told(running: Prometheus) -> set[str]:
    """Return the alerts that are on their way, or there."""
    return {one["labels"]["alertname"] for one in running.get("alerts")["alerts"]}
