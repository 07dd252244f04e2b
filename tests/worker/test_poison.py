"""A message that kills whoever runs it, among twenty that do no harm."""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import DeadLetter
from beatd.brokers.redis import RedisBroker
from beatd.brokers.sqlite import SQLiteBroker
from tests.servers import Server, eventually
from tests.worker.project import Project, WorkerProcess

MARKS = [f"mark-{number}" for number in range(20)]


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, server.url(0), server.url(1))
    made.configure(worker_lease_timeout=1, worker_prefetch_multiplier=30)
    yield made
    made.app.close()


@pytest.fixture
def broker(server: Server) -> Iterator[Broker]:
    broker = RedisBroker(server.url(0), namespace="default")
    yield broker
    broker.close()


def send_all(project: Project) -> None:
    """Send the poison in the midst of the others."""
    for number, name in enumerate(MARKS):
        if number == len(MARKS) // 2:
            project.app.send_task("proj.die")
        project.app.send_task("proj.mark", [name])


def all_have_run(project: Project) -> bool:
    return all(project.runs(name) for name in MARKS)


def number_told(project: Project, server: Server) -> int:
    """Return of how many deliveries the broker knows that they have ended."""
    path = project.folder / "broker.db"
    if path.exists():
        with closing(sqlite3.connect(path)) as db:
            told = db.execute("SELECT ended FROM workers WHERE lease > 0").fetchall()
        return sum(len(ended.split()) for (ended,) in told)
    with server.client() as client:
        keys = client.keys("*:ended:*")
        return sum(len((client.get(key) or b"").split()) for key in keys)


def broker_of(project: Project, server: Server) -> Broker:
    path = project.folder / "broker.db"
    if path.exists():
        return SQLiteBroker(path, namespace="default")
    return RedisBroker(server.url(0), namespace="default")


def only_letter(broker: Broker) -> DeadLetter:
    [letter] = eventually(broker.dead_letters)
    return letter


def test_a_message_that_kills_its_worker_is_set_aside_and_none_beside_it(
    project: Project, broker: Broker
) -> None:
    send_all(project)
    deaths = 0

    while not broker.dead_letters():
        with WorkerProcess(project.folder, ("-P", "solo")) as worker:
            eventually(lambda: not worker.is_alive or broker.dead_letters())
            if not worker.is_alive:
                deaths += 1
                continue
            eventually(lambda: all_have_run(project))

    letter = only_letter(broker)
    assert deaths == 3
    assert letter.task == "proj.die"
    assert letter.reason == "delivered 3 times, and no worker lived to tell the end"
    # Those that were in flight with it when it first killed have run again.
    assert all(project.runs(name) in (1, 2) for name in MARKS)


def test_a_message_that_kills_its_process_is_set_aside_and_none_beside_it(
    project: Project, broker: Broker
) -> None:
    send_all(project)

    with project.worker("-c", "2"):
        letter = only_letter(broker)
        eventually(lambda: all_have_run(project))

    assert letter.task == "proj.die"
    assert letter.reason.startswith("delivered 3 times, each time fatal; ")
    assert letter.deliveries == 3
    assert len(broker.dead_letters()) == 1
    assert all(project.runs(name) == 1 for name in MARKS)


# A worker that is killed from outside


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Server]:
    """A server for results that is away until it is started."""
    with Server(save='""', dir=tmp_path) as results:
        results.kill()
        yield results


@pytest.fixture(params=["redis", "sqlite"])
def anywhere(
    request: pytest.FixtureRequest, server: Server, results: Server, tmp_path: Path
) -> Iterator[Project]:
    """A project on Redis or SQLite."""
    is_file = request.param == "sqlite"
    broker = f"sqlite:///{tmp_path}/broker.db" if is_file else server.url(0)
    made = Project(tmp_path, broker, results.url())
    made.configure(worker_lease_timeout=1, worker_prefetch_multiplier=30)
    yield made
    made.app.close()


def test_what_a_killed_worker_held_is_taken_as_its_processes_run_it(
    anywhere: Project, results: Server
) -> None:
    results.start()
    for name in MARKS:
        anywhere.app.send_task("proj.mark", [name, 0, "go on"])
    with WorkerProcess(anywhere.folder, ("-c", "2")) as worker:
        eventually(lambda: anywhere.runs(MARKS[1]))
        worker.signal(signal.SIGKILL)
        worker.wait()
    anywhere.release("go on")

    with anywhere.worker("-c", "2") as worker:
        eventually(lambda: all_have_run(anywhere))

    assert (
        "took 2 messages from queue celery with which 1 worker died"
        in worker.log.read_text()
    )


def test_what_had_ended_when_its_worker_was_killed_is_no_suspect(
    anywhere: Project, server: Server, results: Server
) -> None:
    for name in MARKS:
        anywhere.app.send_task("proj.mark", [name])
    with WorkerProcess(anywhere.folder, ("-c", "2")) as worker:
        eventually(lambda: number_told(anywhere, server) == len(MARKS))
        worker.signal(signal.SIGKILL)
        worker.wait()

    with anywhere.worker("-c", "2") as worker:
        results.start()
        eventually(lambda: all(anywhere.runs(name) == 2 for name in MARKS))

    assert "gave back 20 deliveries" in worker.log.read_text()
    assert "worker died" not in worker.log.read_text()


def test_no_message_is_set_aside_beside_a_deadly_one_while_the_results_are_away(
    anywhere: Project, server: Server, results: Server
) -> None:
    send_all(anywhere)
    deaths = 0

    while deaths < 3:
        with WorkerProcess(anywhere.folder, ("-P", "solo")) as worker:
            eventually(lambda: not worker.is_alive)
            deaths += 1
    results.start()
    with anywhere.worker("-P", "solo"):
        broker = broker_of(anywhere, server)
        letter = only_letter(broker)
        eventually(lambda: all_have_run(anywhere))

    assert letter.task == "proj.die"
    assert len(broker.dead_letters()) == 1
    broker.close()
