"""A master that dies, hangs and comes back, behind three sentinels."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.promises.harness import Beatd, Scene
from tests.promises.workers import Shop, shop
from tests.sentinels import NAME, Group
from tests.servers import PATIENCE, Server, eventually

pytestmark = pytest.mark.promise

OPTIONS = f"""
broker_transport_options = {{"master_name": {NAME!r}}}
"""


@dataclass
class MasterQueue:
    """Celery's default queue at the server that is the master."""

    group: Group

    def messages(self) -> list[bytes]:
        with self.group.master().client() as client:
            raw: list[bytes] = client.lrange("celery", 0, -1)
        return raw


@pytest.fixture
def group() -> Iterator[Group]:
    with Group(replicas=2, sentinels=3) as group:
        yield group


@pytest.fixture
def scene(tmp_path: Path, group: Group) -> Iterator[Scene]:
    scene = Scene(tmp_path, MasterQueue(group), group.url)
    yield scene
    scene.close()


def add(scene: Scene, settings: str) -> None:
    with (scene.directory / "schedule_config.py").open("a") as config:
        config.write(OPTIONS + settings)


def two_schedulers(scene: Scene) -> tuple[Beatd, Beatd]:
    leader = scene.beatd("first", schedule_file="first.db").start()
    scene.until_slots(1)  # the first lead at a new broker is given back again
    standby = scene.beatd("second", schedule_file="second.db").start()
    standby.until("standing by")
    return leader, standby


def test_no_slot_is_lost_or_doubled_when_the_master_dies_and_when_it_hangs(
    scene: Scene, group: Group
) -> None:
    add(scene, "beat_min_replicas = 1\n")
    two_schedulers(scene)

    killed = group.master()
    killed.kill()
    group.await_other(killed)
    scene.until_slots(10)
    killed.start()  # as a master, until the sentinels make it a replica
    eventually(lambda: group.role(killed) == "slave")
    scene.until_slots(10)
    hung = group.master()
    hung.freeze()
    group.await_other(hung)
    scene.until_slots(10)
    hung.thaw()  # and it takes itself for the master, until it hears
    eventually(lambda: group.role(hung) == "slave")
    scene.until_slots(10)

    scene.check()


def cut_off(replica: Server) -> None:
    """Let a replica get nothing more of its master, and keep what it has."""
    with replica.client() as client:
        client.config_set("masteruser", "nobody")
        client.config_set("masterauth", "wrong")
        client.execute_command("CLIENT", "KILL", "TYPE", "master")


@pytest.mark.parametrize("lost_writes", ["resend", "keep"])
def test_what_a_promoted_replica_lacks_is_named_and_never_doubled(
    tmp_path: Path, lost_writes: str
) -> None:
    with Group(replicas=1, sentinels=3) as group:
        scene = Scene(tmp_path, MasterQueue(group), group.url)
        add(scene, f"beat_lost_writes = {lost_writes!r}\n")
        leader, standby = two_schedulers(scene)
        master = group.master()
        [replica] = [one for one in group.servers if one is not master]
        scene.until_slots(3)
        cut_off(replica)
        scene.until_slots(5)
        lacking = {name: set(scene.slots(name)) for name in ("each", "second")}

        master.kill()
        group.await_other(master)
        scene.until_slots(10)
        logs = leader.log.read_text() + standby.log.read_text()
        scene.close()

        [number] = re.findall(r"were set back: of (\d+) slots?", logs)
        queued = {name: scene.slots(name) for name in lacking}
        if lost_writes == "resend":
            scene.check()
        else:
            missing = [
                slot for name in lacking for slot in lacking[name] - {*queued[name]}
            ]
            assert 5 <= len(missing) <= int(number)
            assert all(len({*some}) == len(some) for some in queued.values())


@pytest.fixture
def behind(tmp_path: Path, group: Group) -> Iterator[Shop]:
    """A shop whose broker and results are the group's master."""
    with shop(tmp_path, group.url, group.url) as made:
        options = {"broker_transport_options", "result_backend_transport_options"}
        lines = [f"app.conf.{one} = {{'master_name': {NAME!r}}}" for one in options]
        tasks = tmp_path / "shop.py"
        first, line, rest = tasks.read_text().partition("app = Beatd(")
        made_here, _, rest = rest.partition("\n")
        tasks.write_text("\n".join([first + line + made_here, *lines, rest]))
        for one in options:
            setattr(made.app.conf, one, {"master_name": NAME})
        yield made


def test_workers_and_clients_go_on_at_the_next_master(
    behind: Shop, group: Group
) -> None:
    worker = behind.worker("-c", "2")
    behind.send(["before"])
    behind.until_ended(["before"])
    behind.send(["meanwhile"], until="over")
    behind.until_running(worker)

    first = group.master()
    first.kill()
    group.await_other(first)
    behind.send(["1", "2", "3"])
    behind.until_ended(["1", "2", "3"])
    first.start()
    eventually(lambda: group.role(first) == "slave")
    eventually(lambda: group.follows(first))
    second = group.master()
    second.freeze()
    group.await_other(second)
    second.thaw()
    behind.release("over")
    behind.send(["4", "5", "6"])
    behind.until_ended(["meanwhile", "4", "5", "6"])

    names = ["before", "meanwhile", *"123456"]
    assert [behind.app.AsyncResult(one).get(timeout=PATIENCE) for one in names] == names
    assert {name: len(runs) for name, runs in behind.runs().items()} == dict.fromkeys(
        names, 1
    )


APP = """
import os
import time

from {package} import {kind}

app = {kind}("proj", broker={url!r})
app.conf.broker_transport_options = {{"master_name": {name!r}}}
app.conf.beat_schedule = {{"tick": {{"task": "proj.tick", "schedule": 1.0}}}}
JOURNAL = os.open({journal!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task(name="proj.tick")
def tick():
    os.write(JOURNAL, f"{{time.monotonic()}}\\n".encode())
"""

COMMANDS = {
    "celery": (("celery", "-A", "proj", "beat"), ("celery", "-A", "proj", "worker")),
    "beatd": (("beatd", "-A", "proj"), ("beatd", "worker", "-A", "proj")),
}


@dataclass
class Side:
    """A scheduler and a worker, of beatd or of Celery, and when their task ran."""

    journal: Path
    processes: list["subprocess.Popen[bytes]"]

    def has_run(self, times: int) -> bool:
        return len(self.runs()) >= times

    def runs(self, after: float = 0) -> list[float]:
        """Return the moments of all runs after one, by the monotonic clock."""
        if not self.journal.exists():
            return []
        moments = map(float, self.journal.read_text().split())
        return [one for one in moments if one > after]


@contextmanager
def side(folder: Path, package: str, group: Group, db: int) -> Iterator[Side]:
    """Lend both processes for the block's time; each side has a database."""
    folder = folder / package
    folder.mkdir()
    text = APP.format(
        package=package,
        kind=package.capitalize(),
        url=group.url.replace("/0", f"/{db}"),
        name=NAME,
        journal=str(folder / "journal"),
    )
    (folder / "proj.py").write_text(text)
    processes = []
    try:
        for number, command in enumerate(COMMANDS[package]):
            with (folder / f"{number}.log").open("ab") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command],
                        cwd=folder,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        yield Side(folder / "journal", processes)
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_tasks_run_again_before_the_master_is_back(
    tmp_path: Path, group: Group, fault: str
) -> None:
    with (
        side(tmp_path, "beatd", group, 1) as ours,
        side(tmp_path, "celery", group, 2) as theirs,
    ):
        for one in (ours, theirs):
            eventually(partial(one.has_run, 3), "tasks to run")
        master, at = group.master(), time.monotonic()
        getattr(master, fault)()
        eventually(lambda: ours.runs(after=at + 1), "our task to run again")
        if fault == "freeze":
            master.thaw()
        eventually(lambda: theirs.runs(after=at + 1), "their task to run again")

    # How long it took depends on the machine: `pytest -rP` shows it.
    for name, one in (("beatd", ours), ("celery", theirs)):
        print(f"{fault}: {name} after {one.runs(after=at + 1)[0] - at:.1f} s")
