"""Handlers of a Celery app's `worker_process_shutdown` that take long."""

from contextlib import ExitStack
from pathlib import Path

from tests.processes import module
from tests.servers import PATIENCE, Server
from tests.switch.files import write
from tests.wire.clients import celery_client

SECONDS = 7  # more than the five that a process has to end without handlers

PROJECT = f"""
    import os
    import time
    from pathlib import Path

    from celery import Celery, signals

    app = Celery("proj", broker=os.environ["BROKER"])


    @app.task
    def work():
        Path(f"worked-{{os.getpid()}}").touch()


    @signals.worker_process_shutdown.connect
    def flush(pid, **_):
        time.sleep({SECONDS})
        Path(f"flushed-{{os.getpid()}}").touch()
    """


def test_handlers_that_flush_for_long_end_as_with_celery(
    tmp_path: Path, server: Server
) -> None:
    workers = {}
    with ExitStack() as stack:  # side by side: they have long to wait
        for number, program in enumerate(("celery", "beatd")):
            folder, broker = tmp_path / program, server.url(number)
            write(folder, {"proj.py": PROJECT})
            client = stack.enter_context(celery_client(broker))
            client.send_task("proj.work")
            arguments = ("-A", "proj", "worker", "-c", "1", "-l", "info")
            workers[program] = stack.enter_context(
                module(program, *arguments, cwd=folder, BROKER=broker)
            )
        for worker in workers.values():
            worker.until("succeeded")
            worker.process.terminate()
        statuses = [one.process.wait(PATIENCE) for one in workers.values()]

    for program in workers:
        (worked,) = (tmp_path / program).glob("worked-*")
        assert worked.with_name(worked.name.replace("worked", "flushed")).exists()
    assert statuses == [0, 0]
    told = workers["beatd"].output
    assert told.count("waiting for its handlers of worker_process_shutdown") == 1
