"""Packages around Celery, as they are: the same with Celery's worker and with ours."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.processes import ROOT, module
from tests.servers import PATIENCE, Server, eventually
from tests.switch.files import write
from tests.wire.clients import celery_client

PROJECT = """
    import os
    from pathlib import Path

    from celery import Celery
    from celery_once import AlreadyQueued, QueueOnce
    from celery_singleton import Singleton

    BROKER = os.environ["BROKER"]
    app = Celery("proj", broker=BROKER, backend=BROKER)
    settings = {"url": BROKER, "default_timeout": 3600}
    app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": settings}


    @app.task(base=QueueOnce)
    def once(how):
        if how == "badly":
            raise ValueError(how)
        return how


    @app.task(base=Singleton)
    def single(how):
        if how == "badly":
            raise ValueError(how)
        return how


    @app.task
    def twice(how):
        \"\"\"Call each two times at once; tell what becomes of the second calls.\"\"\"
        once.delay(how)
        first = single.delay(how).id
        try:
            once.delay(how)
        except AlreadyQueued:
            refused = True
        else:
            refused = False
        return [refused, single.delay(how).id == first]
    """


@pytest.mark.parametrize("program", ["celery", "beatd"])
@pytest.mark.parametrize("how", ["well", "badly"])
def test_celery_once_and_celery_singleton_hold_and_release_their_locks(
    tmp_path: Path, server: Server, program: str, how: str
) -> None:
    write(tmp_path, {"proj.py": PROJECT})
    # One at a time: what `twice` has called waits until it has ended.
    arguments = ("-A", "proj", "worker", "-c", "1", "-l", "info")

    with (
        celery_client(server.url(), server.url()) as client,
        server.client() as raw,
        module(program, *arguments, cwd=tmp_path, BROKER=server.url()) as worker,
    ):
        worker.until(" ready")

        def locks() -> Iterator[bytes]:
            for pattern in ("qo_*", "SINGLETONLOCK_*"):
                yield from raw.scan_iter(pattern)

        for _ in range(2):
            sent = client.send_task("proj.twice", [how])
            assert sent.get(timeout=PATIENCE) == [True, True]
            eventually(lambda: not [*locks()], "the locks to be released")


PAGE = ROOT / "docs" / "ecosystem.md"


def test_the_page_names_the_versions_that_are_tested() -> None:
    rows = re.findall(
        r"^\| ([a-z-]+) ([\d.]+[\w.]*) \|", PAGE.read_text(), re.MULTILINE
    )

    assert len(rows) >= 6
    assert rows == [(name, version(name)) for name, _ in rows]
