"""What signals do to a worker, each shown by a real one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import eventually
from tests.worker.project import Project

WAIT = 15.0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("broker", "results")]
    made = Project(tmp_path, urls[0], urls[1])
    yield made
    made.app.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_lets_the_running_task_end(
    project: Project, number: signal.Signals
) -> None:
    with project.worker("-c", "1") as worker:
        running = project.app.send_task("proj.mark", ["running", 1])
        eventually(lambda: project.runs("running"))
        worker.signal(number)
        worker.await_line("stopping, warm")

        assert worker.wait() == 0
    assert running.get(timeout=0) == "running"


@pytest.mark.parametrize(
    "steps",
    [
        [(signal.SIGQUIT, "stopping, cold")],
        [(signal.SIGINT, "stopping, warm"), (signal.SIGINT, "stopping, cold")],
        [(signal.SIGTERM, "stopping, warm"), (signal.SIGQUIT, "stopping, cold")],
    ],
    ids=["QUIT", "INT-INT", "TERM-QUIT"],
)
def test_a_cold_one_leaves_the_running_task_to_the_next_worker(
    project: Project, steps: list[tuple[signal.Signals, str]]
) -> None:
    with project.worker("-c", "1") as worker:
        running = project.app.send_task("proj.mark", ["running", 3600])
        eventually(lambda: project.runs("running"))
        for number, words in steps:
            worker.signal(number)
            worker.await_line(words)
        worker.wait()

    assert not running.ready()
    with project.worker("-c", "1") as worker:
        eventually(lambda: project.runs("running") == 2, "the task to run again")
        worker.signal(signal.SIGQUIT)
        worker.wait()


def test_a_hang_up_is_outlived(project: Project) -> None:
    with project.worker("-c", "1") as worker:
        worker.signal(signal.SIGHUP)

        assert project.app.send_task("proj.add", [1, 1]).get(timeout=WAIT) == 2
        os.kill(worker.pid, 0)
