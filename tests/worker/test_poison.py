"""A message that kills whoever runs it, among twenty that do no harm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import DeadLetter
from beatd.brokers.redis import RedisBroker
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
    assert len(broker.dead_letters()) == 1
    assert all(project.runs(name) == 1 for name in MARKS)
