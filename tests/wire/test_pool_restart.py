"""A real Celery client has a worker run new code, without a task lost on the way."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.processes import Running, beatd
from tests.servers import Server, eventually

PATIENCE = 60.0
"""Seconds; each new interpreter imports the app and, for one of Celery's, Celery."""

NODE = f"w@{socket.gethostname()}"

APPS = {
    "beatd": "from beatd import Beatd as App, shared_task",
    "celery": "from celery import Celery as App, shared_task",
}

PROJECT = """\
import os
import time
from pathlib import Path

{imports}

app = App("proj", broker={broker!r}, backend={backend!r})
app.conf.worker_pool_restarts = True
app.conf.worker_proc_alive_timeout = 60
HERE = Path(__file__).parent


@app.task
def version():
    return {version!r}


@app.task
def origin():
    return Path(f"/proc/{{os.getppid()}}/cmdline").read_text()


@shared_task
def stay():
    (HERE / "stays").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return version.run()


{more}
"""

ADDED = """\
@app.task
def added():
    return "added"


@app.task(time_limit=0.5)
def late():
    time.sleep(120)
"""

EXTRA = """\
from proj import app


@app.task
def extra():
    return "extra"
"""


@dataclass
class Site:
    """A project in a folder, and Celery's client of its worker."""

    folder: Path
    urls: tuple[str, str]
    imports: str
    client: Celery

    def write(self, version: str, more: str = "") -> None:
        broker, backend = self.urls
        text = PROJECT.format(
            imports=self.imports,
            broker=broker,
            backend=backend,
            version=version,
            more=more,
        )
        (self.folder / "proj.py").write_text(text)

    def worker(self, start_method: str, *options: str) -> "Iterator[Running]":
        words = ("-A", "proj", "-n", "w@%h", "-l", "info", "--pool-start-method")
        with beatd("worker", *words, start_method, *options, cwd=self.folder) as worker:
            worker.until("is ready")
            yield worker

    def value(self, task: str) -> Any:
        return self.client.send_task(f"proj.{task}").get(timeout=PATIENCE)

    def restart(self, **arguments: object) -> Any:
        control = self.client.control
        (answer,) = control.pool_restart(
            **arguments, destination=[NODE], reply=True, timeout=PATIENCE
        )
        return answer[NODE]

    def until_it_runs(self, version: str) -> None:
        eventually(lambda: self.value("version") == version, version, PATIENCE)


@pytest.fixture(params=APPS)
def site(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path
) -> Iterator[Site]:
    urls = (server.url(0), server.url(1))
    with Celery("client", broker=urls[0], backend=urls[1]) as client:
        site = Site(tmp_path, urls, APPS[request.param], client)
        site.write("the first")
        yield site


working = contextmanager(Site.worker)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_new_code_runs_after_a_restart_and_what_ran_ends_in_peace(
    site: Site, start_method: str
) -> None:
    with working(site, start_method, "-c", "2"):
        staying = site.client.send_task("proj.stay")
        eventually((site.folder / "stays").exists, "a task to begin", PATIENCE)
        assert site.value("version") == "the first"
        assert ("beatd.spawned" in site.value("origin")) == (start_method == "spawn")
        site.write("the second one", ADDED)

        answer = site.restart(modules=["proj"], reload=True)

        assert answer == {"ok": "reload started"}
        site.until_it_runs("the second one")
        assert "beatd.spawned" in site.value("origin")
        assert site.value("added") == "added"
        (site.folder / "go").touch()
        assert staying.get(timeout=PATIENCE) == "the first"


def test_options_of_tasks_are_those_of_the_new_code(site: Site) -> None:
    with working(site, "fork", "-c", "1") as worker:
        assert site.value("version") == "the first"
        site.write("the second one", ADDED)
        site.restart(reload=True)
        site.until_it_runs("the second one")

        with pytest.raises(Exception, match=r"0\.5"):
            site.value("late")
        assert "new processes run what follows" in worker.output


def test_code_that_cannot_be_loaded_is_named_and_the_old_goes_on(site: Site) -> None:
    with working(site, "fork", "-c", "1") as worker:
        assert site.value("version") == "the first"
        site.write("the second one", "def broken(:")
        assert site.restart(reload=True) == {"ok": "reload started"}
        worker.until("went on with the old code")
        assert "syntax error" in worker.output
        assert "proj.py:" in worker.output
        assert site.value("version") == "the first"

        site.write("the third and last")
        site.restart(reload=True)
        site.until_it_runs("the third and last")


def test_a_module_that_nobody_named_before_is_imported(site: Site) -> None:
    (site.folder / "more.py").write_text(EXTRA)
    with working(site, "fork", "-c", "1") as worker:
        assert site.restart(modules=["nowhere"]) == {"ok": "reload started"}
        worker.until("went on with the old code")
        assert "no module named 'nowhere'" in worker.output

        site.restart(modules=["more"])
        worker.until("new processes run what follows")
        extra = site.client.send_task("more.extra")

        assert extra.get(timeout=PATIENCE) == "extra"


def test_what_is_no_list_of_modules_is_refused(site: Site) -> None:
    with working(site, "fork", "-c", "1"):
        assert "expected names of modules" in site.restart(modules=[1])["error"]
        assert "no message carries one" in site.restart(reloader="os.system")["error"]
        assert site.value("version") == "the first"
