"""`beatd worker -B` on every worker: one of their schedulers leads, slots run once."""

import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.promises.harness import Beatd, Scene
from tests.servers import Server, eventually

TASKS = """
import json
import os

from beatd import shared_task


def note(task):
    named = ("id", "beatd_entry", "beatd_slot")
    headers = {name: task.request.get(name) for name in named}
    line = json.dumps({"headers": headers}) + "\\n"
    file = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())  # in one piece, whoever else writes
    os.close(file)


@shared_task(bind=True, name="tasks.each")
def each(self):
    note(self)


@shared_task(bind=True, name="tasks.second")
def second(self):
    note(self)
"""


@dataclass
class Runs:
    """The messages for which tasks have run, in the place of a queue."""

    path: Path

    def messages(self) -> list[bytes]:
        """Return what lies behind the runs: one that ran again is still one message."""
        return list(dict.fromkeys(self.all()))

    def all(self) -> list[bytes]:
        return self.path.read_bytes().splitlines() if self.path.exists() else []


@dataclass
class Hosts:
    """Two workers with a scheduler in each; the one in `first` leads."""

    scene: Scene
    first: Beatd
    second: Beatd
    runs: Runs

    def check(self) -> None:
        """See every slot emitted once, as soon as those that run just now have run."""
        eventually(lambda: not missing(self.scene), "slots that are missing")
        self.scene.check()


def missing(scene: Scene) -> bool:
    """Say whether there is a gap; what is doubled or strange is for the check."""
    for entry, step in (("each", scene.every), ("second", 1.0)):
        slots = scene.slots(entry)
        if not slots or len(set(slots)) <= (slots[-1] - slots[0]) / timedelta(
            seconds=step
        ):
            return True
    return False


@pytest.fixture
def hosts(server: Server, tmp_path: Path) -> Iterator[Hosts]:
    (tmp_path / "tasks.py").write_text(TASKS)
    runs = Runs(tmp_path / "runs")
    with closing(Scene(tmp_path, runs, server.url())) as scene:
        first, second = (worker(scene, name) for name in ("first", "second"))
        first.start().until("leading, term")
        second.start().until("standing by")
        yield Hosts(scene, first, second, runs)


def worker(scene: Scene, name: str) -> Beatd:
    """Make one more host, with a worker and a scheduler in it."""
    host = scene.beatd(name, schedule_file=f"{name}.db")
    host.arguments = ["worker", "-B", "-c", "1", "-I", "tasks", *host.arguments]
    return host


def test_two_workers_with_schedulers_run_every_slot_once(hosts: Hosts) -> None:
    hosts.scene.until_slots(10)
    hosts.first.until("succeeded")
    hosts.second.until("succeeded")

    hosts.check()
    assert len(hosts.runs.all()) == len(hosts.runs.messages())


def test_when_the_leader_stops_the_other_worker_goes_on(hosts: Hosts) -> None:
    hosts.scene.until_slots(5)
    hosts.first.send(signal.SIGTERM)
    hosts.second.until("leading, term")
    hosts.scene.until_slots(10)

    assert hosts.first.wait() == 0
    hosts.check()
    assert len(hosts.runs.all()) == len(hosts.runs.messages())


def test_when_the_leader_is_killed_the_other_worker_goes_on(hosts: Hosts) -> None:
    hosts.scene.until_slots(5)
    hosts.first.kill()
    hosts.second.until("leading, term")
    hosts.scene.until_slots(10)

    # Its running task, if any, runs again under its id.
    hosts.check()
