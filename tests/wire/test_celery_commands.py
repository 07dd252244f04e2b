"""The `celery` command itself, as people type it, with `beatd worker` behind it.

The project is one as people have them: a package with settings as Django's, read by
`config_from_object(..., namespace="CELERY")`.
"""

import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery
import pytest

from beatd.version import __version__
from tests.preloaded import Preloaded
from tests.processes import Running, beatd, environment, module
from tests.servers import PATIENCE, Server, eventually
from tests.wire.clients import celery_client

pytestmark = pytest.mark.xdist_group("celery_commands")

HOST = socket.gethostname()
LONG = 60.0
"""Seconds for Celery's command, which imports for as long as a second, to answer."""

OURS, THEIRS = f"ours@{HOST}", f"theirs@{HOST}"

ONE = ("-d", OURS, "-t", str(PATIENCE))
"""Words that ask our worker, and end when it has answered."""

FILES = {
    "__init__.py": "",
    "celery.py": """
from celery import Celery

app = Celery("proj")
app.config_from_object("proj.settings", namespace="CELERY")
app.autodiscover_tasks(["proj"])
""",
    "settings.py": """
DEBUG = True
SECRET_KEY = "hush"
CELERY_BROKER_URL = {broker!r}
CELERY_RESULT_BACKEND = {backend!r}
CELERY_TIMEZONE = "Asia/Kathmandu"
CELERY_TASK_TIME_LIMIT = 300
CELERY_BEAT_SCHEDULE = {{
    "tick": {{"task": "proj.tasks.add", "schedule": 1.0, "args": (2, 3)}},
}}
""",
    "tasks.py": """
import time
from pathlib import Path

from celery import shared_task


@shared_task
def add(x, y):
    return x + y


@shared_task(acks_late=True)
def hold(path):
    # A line for each run, at its beginning; the end when a file is there.
    with open(path, "a") as file:
        print("began", file=file)
    while not Path(path + ".end").exists():
        time.sleep(0.01)
    return "held"


@shared_task
def fail():
    raise ValueError("no such thing")


@shared_task
def sleep(seconds):
    time.sleep(seconds)


@shared_task(bind=True)
def who(self):
    time.sleep(0.02)
    return self.request.hostname
""",
}


@dataclass(frozen=True, slots=True)
class Proj:
    """A project on disk, and what is typed in its folder."""

    folder: Path
    command: Preloaded

    def celery(self, *words: str, status: int = 0) -> str:
        """Run `celery -A proj` to its end; give what it printed."""
        done = self.command.run(
            "celery", "-A", "proj", *words, cwd=self.folder, env=environment()
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")

    def inspect(self, *words: str) -> Any:
        """Return the worker's answer to `celery inspect`."""
        printed = self.celery("inspect", "--json", *ONE, *words)
        return json.loads(printed)[OURS]

    def control(self, *words: str) -> Any:
        """Return the worker's answer to `celery control`, good or bad."""
        (printed,) = json.loads(self.celery("control", "--json", *ONE, *words))
        (answer,) = printed[OURS].values()
        return answer

    def call(self, task: str, *words: str) -> str:
        """Return the id of what `celery call` sent."""
        return self.celery("call", f"proj.tasks.{task}", *words).strip()


def until(process: Running, words: str) -> None:
    """Wait until its output has these words."""
    eventually(lambda: words in process.output, repr(words), LONG)


@pytest.fixture(scope="module")
def command() -> Iterator[Preloaded]:
    """The command, and what it needs of a project's."""
    with Preloaded("celery.bin.celery", "celery.backends.redis") as command:
        yield command


def written(folder: Path, server: Server, command: Preloaded) -> Proj:
    (folder / "proj").mkdir()
    for name, text in FILES.items():
        text = text.format(broker=server.url(0), backend=server.url(1))
        (folder / "proj" / name).write_text(text)
    return Proj(folder, command)


@pytest.fixture(scope="module")
def proj(
    tmp_path_factory: pytest.TempPathFactory, command: Preloaded
) -> Iterator[Proj]:
    """The project on a server of its own, and one worker of beatd's that runs it."""
    with Server() as apart:
        project = written(tmp_path_factory.mktemp("proj"), apart, command)
        options = ("-c", "2", "-l", "INFO", "-E", "-n", "ours@%h")
        with beatd("worker", "-A", "proj", *options, cwd=project.folder) as worker:
            until(worker, "is ready")
            yield project


def test_status_and_ping_find_the_worker(proj: Proj) -> None:
    assert proj.celery("status").splitlines() == [
        f"->  {OURS}: OK",
        "",
        "1 node online.",
    ]
    assert "pong" in proj.celery("inspect", "ping")


def test_inspect_shows_what_runs_waits_and_is_known(proj: Proj) -> None:
    running = proj.call("sleep", "-a", "[120]")
    later = proj.call("add", "-a", "[1, 2]", "--countdown", "600")

    (active,) = eventually(lambda: proj.inspect("active"), "a run", LONG)
    assert (active["id"], active["args"]) == (running, [120])
    (scheduled,) = eventually(lambda: proj.inspect("scheduled"), "a call", LONG)
    assert scheduled["request"]["id"] == later
    assert proj.inspect("reserved") == []
    assert "proj.tasks.add" in proj.inspect("registered")
    assert proj.inspect("stats")["pool"]["max-concurrency"] == 2
    assert [one["name"] for one in proj.inspect("active_queues")] == ["celery"]
    conf = proj.inspect("conf")
    assert (conf["timezone"], conf["task_time_limit"]) == ("Asia/Kathmandu", 300)
    assert "hush" not in json.dumps(conf)
    report = proj.inspect("report")["ok"]
    assert f"software -> celery:{celery.__version__} kombu:" in report
    assert f" beatd:{__version__} py:" in report

    assert proj.control("terminate", "SIGKILL", running) == f"terminate: {running}"
    assert "terminated" in proj.celery("result", running, status=1)
    proj.control("revoke", later)
    assert set(proj.inspect("revoked")) >= {later}


def test_control_steers_the_worker(proj: Proj) -> None:
    assert (
        proj.control("rate_limit", "proj.tasks.fail", "9/m")
        == "new rate limit set successfully"
    )
    assert "proj.tasks.fail [rate_limit=9/m]" in proj.inspect(
        "registered", "rate_limit"
    )
    assert proj.control("time_limit", "proj.tasks.fail", "10", "20") == (
        "time limits set successfully"
    )
    waits = proj.call("add", "-a", "[1, 2]", "--queue", "other")
    assert proj.control("add_consumer", "other") == "add consumer other"
    assert proj.celery("result", waits).strip() == "3"
    assert proj.control("cancel_consumer", "other") == "no longer consuming from other"
    assert proj.control("pool_grow", "1") == "pool will grow"
    assert proj.control("pool_shrink", "1") == "pool will shrink"
    assert "worker_remote_shutdown is off" in proj.control("shutdown")


def test_call_and_result_give_what_the_task_gave(proj: Proj) -> None:
    good, bad = proj.call("add", "-a", "[40, 2]"), proj.call("fail")

    assert proj.celery("result", good).strip() == "42"
    assert "ValueError: no such thing" in proj.celery("result", bad, status=1)
    assert "in fail" in proj.celery("result", "--traceback", bad)


def test_events_are_dumped_as_they_happen(proj: Proj) -> None:
    words = ("-A", "proj", "events", "--dump")
    with module("celery", *words, cwd=proj.folder) as dump:
        until(dump, f"{OURS} [")  # a heartbeat: it listens
        called = proj.call("add", "-a", "[20, 3]")

        until(dump, f"task received: proj.tasks.add({called})")
        until(dump, f"task succeeded: proj.tasks.add({called})")
        until(dump, "result=23,")
        dump.stop(signal.SIGINT)


def test_purge_takes_away_what_waits(
    tmp_path: Path, server: Server, command: Preloaded
) -> None:
    project = written(tmp_path, server, command)
    ids = [project.call("add", "-a", "[1, 2]") for _ in range(2)]
    assert len(set(ids)) == 2

    assert project.celery("purge", "-f").startswith("Purged 2 messages from 1 known")

    project.call("add", "-a", "[1, 2]")
    options = ("-A", "proj", "-c", "1", "--purge", "-l", "INFO")
    with beatd("worker", *options, cwd=tmp_path) as worker:
        until(worker, "removed 1 message")
        until(worker, "is ready")


# Side by side


def test_both_kinds_of_workers_share_a_queue_that_beatd_fills(
    tmp_path: Path, server: Server, command: Preloaded
) -> None:
    project = written(tmp_path, server, command)
    urls = server.url(0), server.url(1)
    options = ("-c", "1", "-l", "INFO", "-n")
    celerys = (*options, "theirs@%h")
    ours = ("-A", "proj", *options, "ours@%h")

    with (
        celery_client(*urls) as client,
        module("celery", "-A", "proj", "worker", *celerys, cwd=tmp_path) as theirs,
        beatd("worker", *ours, cwd=tmp_path) as worker,
        beatd("-A", "proj", "-l", "INFO", cwd=tmp_path) as scheduler,
    ):
        until(worker, "is ready")
        until(theirs, "ready.")
        until(scheduler, "tick queued")
        hosts: set[str] = set()

        def both_take_part() -> bool:
            results = [client.send_task("proj.tasks.who") for _ in range(10)]
            hosts.update(result.get(timeout=PATIENCE) for result in results)
            return len(hosts) > 1

        eventually(both_take_part)
        assert hosts == {OURS, THEIRS}
        eventually(lambda: project.celery("status").count(": OK") == 2)
        # What the scheduler put there runs on either of them.
        eventually(
            lambda: any(
                "proj.tasks.add[" in line and "succeeded" in line
                for line in (theirs.output + worker.output).splitlines()
            )
        )


SOON = """
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 0.1,
    "unacked_restore_throttle": 1,
}
"""


def test_what_a_worker_holds_is_not_taken_by_a_celery_worker(
    tmp_path: Path, server: Server, command: Preloaded
) -> None:
    """Celery's takes back what was held for a second; ours holds one for longer."""
    written(tmp_path, server, command)
    options = ("-c", "1", "-l", "INFO", "-n")
    theirs = ("worker", *options, "theirs@%h", "-Q", "celery,theirs")
    runs = tmp_path / "runs"

    with (
        celery_client(server.url(0), server.url(1)) as client,
        server.client() as raw,
        beatd("worker", "-A", "proj", *options, "ours@%h", cwd=tmp_path) as ours,
    ):
        until(ours, "is ready")
        held = client.send_task("proj.tasks.hold", [str(runs)])
        eventually(runs.exists, "the run")
        # From here on: ours would put back what is due, too.
        with (tmp_path / "proj" / "settings.py").open("a") as settings:
            settings.write(SOON)
        # This was taken later, and left there by a Celery worker that was killed.
        left = client.send_task("proj.tasks.add", [1, 2], queue="theirs")
        message = json.loads(raw.rpop("theirs"))
        raw.hset("unacked", "left", json.dumps([message, "", "theirs"]))
        raw.zadd("unacked_index", {"left": raw.time()[0] + 1})

        with module("celery", "-A", "proj", *theirs, cwd=tmp_path):
            assert left.get(timeout=PATIENCE) == 3  # so all that was due was looked at
            again = client.send_task("proj.tasks.add", [3, 4], queue="theirs")
            assert again.get(timeout=PATIENCE) == 7
            assert held.state == "PENDING"
            (tmp_path / "runs.end").touch()
            assert held.get(timeout=PATIENCE) == "held"

    assert runs.read_text().splitlines() == ["began"]
