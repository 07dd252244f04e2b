"""What is different from Celery's own run of its tests: who their worker is.

The tests' worker is by itself a thread of their process. Here it is the command that
`SUITE_WORKER` says, under the name that the tests expect.
"""

import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery.utils.nodenames import anon_nodename

from tests.servers import PATIENCE, eventually

LONGEST = 300.0
"""Seconds for a worker to start, and for a test that has no bound of its own."""


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Any,
    celery_includes: Iterable[str],
    celery_class_tasks: Iterable[Any],
) -> Iterator[None]:
    """Run the worker for the whole session; the tests' process only sends."""
    app = celery_session_app
    for module in celery_includes:
        app.loader.import_task_module(module)
    for task in celery_class_tasks:
        app.register_task(task)
    app.finalize()
    app.set_current()
    app.set_default()
    name = anon_nodename()
    command = [*shlex.split(os.environ["SUITE_WORKER"]), "-n", name]
    with Path(os.environ["SUITE_LOG"]).open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            ping = partial(app.control.ping, destination=[name])
            eventually(ping, f"{command}", LONGEST)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST))
