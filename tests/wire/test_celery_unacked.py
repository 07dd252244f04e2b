"""A fleet is switched over: what Celery's workers held when they were killed runs."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.processes import beatd, module
from tests.servers import PATIENCE, Server, emptied, eventually
from tests.wire.clients import celery_client

PROJECT = """
import time

from celery import Celery

app = Celery("proj", broker={broker!r}, backend={backend!r})
app.conf.update(
    task_acks_late=True,
    broker_transport_options={{
        "visibility_timeout": {visible},
        "unacked_restore_interval": 0.1,
        "unacked_restore_throttle": 1,
    }},
)


@app.task(name="proj.add")
def add(x, y):
    return x + y


@app.task(name="proj.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return "slept"
"""


def write(folder: Path, server: Server, visible: float) -> None:
    """Leave the project, for workers that start from now on."""
    where = {"broker": server.url(0), "backend": server.url(1)}
    (folder / "proj.py").write_text(PROJECT.format(visible=visible, **where))


def held(raw: Any) -> int:
    return int(raw.hlen("unacked"))


@pytest.fixture
def fresh(server: Server) -> Server:
    with emptied(server):
        return server


def test_what_a_killed_celery_worker_held_is_run(tmp_path: Path, fresh: Server) -> None:
    write(tmp_path, fresh, visible=3600)
    with (
        celery_client(fresh.url(0), fresh.url(1)) as client,
        fresh.client() as raw,
    ):
        with module(
            "celery", "-A", "proj", "worker", "-c", "1", cwd=tmp_path
        ) as theirs:
            sent = [client.send_task("proj.sleep", [600])]
            sent += [client.send_task("proj.add", [n, n]) for n in range(6)]
            eventually(lambda: held(raw) == 4, "the worker to hold what it prefetches")
            os.killpg(theirs.process.pid, signal.SIGKILL)
            theirs.process.wait()

        # While it might live, all that it holds is left to it.
        arguments = ("worker", "-A", "proj", "-c", "2", "-l", "INFO")
        with beatd(*arguments, cwd=tmp_path) as ours:
            rest = [one.get(timeout=PATIENCE) for one in sent[4:]]
            assert rest == [6, 8, 10]
            assert held(raw) == 4
            assert ours.stop() == 0
        write(tmp_path, fresh, visible=1)
        with beatd(*arguments, cwd=tmp_path) as ours:
            assert [one.get(timeout=PATIENCE) for one in sent[1:4]] == [0, 2, 4]
            ours.until("put back 4 messages that workers of Celery's had held")
            assert held(raw) == 0
