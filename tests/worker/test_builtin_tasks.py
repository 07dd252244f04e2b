"""`beatd.run` and `beatd.http` in real workers: off, on, and ended in every way."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from beatd.errors import (
    CommandFailed,
    NotRegistered,
    RequestFailed,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
)
from beatd.pools import NAMES
from beatd.tasks.async_result import AsyncResult
from tests.commands import FAMILY, gone, pids
from tests.processes import beatd
from tests.servers import PATIENCE, Server, eventually
from tests.worker.project import Project

INTERRUPTED = [name for name in NAMES if name not in ("gevent", "eventlet")]


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Project:
    made = Project(tmp_path, server.url(0), server.url(1))
    made.configure(builtin_tasks=["beatd.run", "beatd.http"])
    return made


def run(project: Project, command: Any, **options: Any) -> AsyncResult[Any]:
    shell = isinstance(command, str)
    kwargs = {"command": command, "shell": shell, "cwd": str(project.folder)}
    return project.app.send_task("beatd.run", kwargs=kwargs, **options)


def all_gone(folder: Path) -> None:
    left = pids(folder)
    eventually(lambda: all(map(gone, left)), "the end of all processes")


@pytest.mark.parametrize("pool", NAMES)
def test_commands_run_in_every_pool(project: Project, pool: str) -> None:
    with project.worker("-P", pool, "-c", "2"):
        well = run(project, ["echo", "hello"])
        failing = run(project, "echo no >&2; exit 7")
        none = project.app.send_task("beatd.http", ["http://127.0.0.1:9/"])

        output = {"status": 0, "output": "hello\n", "omitted": 0}
        assert well.get(timeout=PATIENCE) == output
        with pytest.raises(CommandFailed, match="status 7; its last lines:\n  no"):
            failing.get(timeout=PATIENCE)
        with pytest.raises(RequestFailed, match=r"(?i)refused"):
            none.get(timeout=PATIENCE)


def test_a_worker_that_is_not_told_to_runs_none(project: Project) -> None:
    project.configure()
    with project.worker("-c", "1") as worker:
        with pytest.raises(NotRegistered):
            run(project, ["touch", "there"]).get(timeout=PATIENCE)

        worker.await_line("builtin_tasks = ['beatd.run']")
    assert not (project.folder / "there").exists()


def test_arguments_that_it_does_not_take_are_said(project: Project) -> None:
    with project.worker("-c", "1"):
        sent = project.app.send_task("beatd.run", kwargs={"command": "ls -l"})

        with pytest.raises(ValueError, match="no shell is asked for"):
            sent.get(timeout=PATIENCE)


def test_a_command_knows_its_run(project: Project) -> None:
    with project.worker("-c", "1"):
        sent = run(
            project,
            "echo $BEATD_TASK_ID $BEATD_SLOT",
            headers={"beatd_slot": "2027-01-01T02:30:00+01:00"},
        )

        output = sent.get(timeout=PATIENCE)["output"]
    assert output == f"{sent.id} 2027-01-01T02:30:00+01:00\n"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_time_limit_ends_the_whole_command(project: Project, pool: str) -> None:
    with project.worker("-P", pool, "-c", "1"):
        late = run(project, f"{FAMILY}wait", time_limit=2)
        after = run(project, ["true"])

        with pytest.raises(TimeLimitExceeded):
            late.get(timeout=PATIENCE)
        assert after.get(timeout=PATIENCE)["status"] == 0
        all_gone(project.folder)


@pytest.mark.parametrize("pool", INTERRUPTED)
def test_a_soft_time_limit_ends_the_whole_command(project: Project, pool: str) -> None:
    with project.worker("-P", pool, "-c", "1"):
        late = run(project, f"{FAMILY}wait", soft_time_limit=2)

        with pytest.raises(SoftTimeLimitExceeded):
            late.get(timeout=PATIENCE)
        all_gone(project.folder)


def test_a_run_that_is_revoked_ends_with_its_command(project: Project) -> None:
    with project.worker("-c", "1"):
        going = run(project, f"{FAMILY}wait")
        pids(project.folder)

        project.app.control.revoke(going.id, terminate=True)

        all_gone(project.folder)
        eventually(lambda: going.state == "REVOKED", "its state")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_no_command_outlives_a_worker_that_is_killed(
    project: Project, pool: str
) -> None:
    with project.worker("-P", pool, "-c", "1") as worker:
        run(project, f"trap '' HUP INT; {FAMILY}wait")
        pids(project.folder)

        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()

        all_gone(project.folder)


def test_a_warm_stop_waits_for_the_command(project: Project) -> None:
    with project.worker("-c", "1") as worker:
        going = run(project, "touch begun; until [ -e go ]; do sleep 0.1; done")
        eventually((project.folder / "begun").exists, "its beginning")
        worker.signal(signal.SIGTERM)
        worker.await_line("stop")
        project.release("go")

        assert worker.wait() == 0
    assert going.get(timeout=PATIENCE)["status"] == 0


def test_a_config_module_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text(
        """
builtin_tasks = ["beatd.run"]
beat_schedule = {
    "note": {
        "task": "beatd.run",
        "schedule": 1,
        "kwargs": {"command": "echo $BEATD_SLOT >> slots", "shell": True},
    }
}
"""
    )
    slots = tmp_path / "slots"
    options = ("-c", "1", "-l", "INFO")
    with beatd("worker", "-B", *options, cwd=tmp_path) as running:
        running.until("] (note) succeeded after")  # the entry, of ten with this task
        eventually(
            lambda: slots.exists() and slots.read_text().count("+00:00\n") > 1, "slots"
        )

        assert running.stop() == 0


def test_an_app_of_celery_has_them_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(
        f"""
from celery import Celery

app = Celery("proj", broker={server.url(0)!r}, backend={server.url(1)!r})
app.conf.builtin_tasks = ["beatd.run"]
"""
    )
    client = Celery("client", broker=server.url(0), backend=server.url(1))
    options = ("-c", "1", "-l", "INFO")
    with beatd("worker", "-A", "proj", *options, cwd=tmp_path) as running:
        running.until("is ready")
        kwargs = {"command": f"{FAMILY}wait", "shell": True, "cwd": str(tmp_path)}
        late = client.send_task("beatd.run", kwargs=kwargs, time_limit=2)
        well = client.send_task("beatd.run", [["echo", "hi"]])

        assert well.get(timeout=PATIENCE)["output"] == "hi\n"
        eventually(late.failed, "its failure")
        all_gone(tmp_path)
        assert running.stop() == 0
