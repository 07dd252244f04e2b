"""What is seen of a run in the solo pool while it lasts, as with Celery's own."""

from pathlib import Path

import pytest

from tests.processes import module
from tests.servers import PATIENCE, Server, eventually
from tests.switch.files import write
from tests.wire.clients import celery_client

PROJECT = """
    import os
    import time
    from pathlib import Path

    app = Celery("proj", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
    app.conf.task_track_started = True


    @app.task
    def wait():
        while not Path("go").exists():
            time.sleep(0.01)
        return "gone"
    """


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("celery", "celery import"),
        ("beatd", "celery import"),
        ("beatd", "beatd import Beatd as"),
    ],
)
def test_a_run_in_the_solo_pool_is_started_while_it_lasts(
    tmp_path: Path, server: Server, program: str, kind: str
) -> None:
    write(tmp_path, {"proj.py": PROJECT}, f"from {kind} Celery\n")
    arguments = ("-A", "proj", "worker", "-P", "solo", "-l", "info", "-n", "s@h")

    with (
        celery_client(server.url(), server.url()) as client,
        module(program, *arguments, cwd=tmp_path, BROKER=server.url()) as worker,
    ):
        sent = client.send_task("proj.wait")
        eventually(lambda: sent.state == "STARTED", "the run to be seen")
        started = sent.info
        (tmp_path / "go").touch()
        assert sent.get(timeout=PATIENCE) == "gone"

    assert started == {"pid": worker.process.pid, "hostname": "s@h"}
