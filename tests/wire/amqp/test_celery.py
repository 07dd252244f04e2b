"""beatd before Celery's own workers on a real RabbitMQ."""

from pathlib import Path

import pytest

from beatd import Beatd
from tests.processes import beatd, module
from tests.rabbitmq import VHost
from tests.servers import eventually

pytestmark = pytest.mark.xdist_group("rabbitmq")

PROJECT = """
from pathlib import Path
from celery import Celery

app = Celery("proj", broker={url!r})
app.conf.task_ignore_result = True
app.conf.beat_schedule = {{"each": {{"task": "proj.note", "schedule": 0.5}}}}


@app.task(name="proj.note", bind=True)
def note(self, *args, **kwargs):
    slot = self.request.get("beatd_slot")
    with Path("seen").open("a") as seen:
        print(self.request.id, slot, args, kwargs, file=seen)
"""


def test_entries_and_calls_are_run_by_celerys_worker(
    vhost: VHost, tmp_path: Path
) -> None:
    (tmp_path / "proj.py").write_text(PROJECT.format(url=vhost.url))
    seen = tmp_path / "seen"
    seen.touch()
    worker = module(
        "celery", "-A", "proj", "worker", "-P", "solo", "-l", "INFO", cwd=tmp_path
    )
    scheduler = beatd("-A", "proj", "-l", "INFO", cwd=tmp_path)
    with worker, scheduler as running:
        running.until("leading, term")
        app = Beatd(broker_url=vhost.url)
        sent = app.send_task("proj.note", (1, "ü"), {"unit": None})
        eventually(lambda: len(seen.read_text().splitlines()) > 3)
        running.until("at least once")
        app.close()

    lines = seen.read_text().splitlines()
    assert f"{sent.id} None (1, 'ü') {{'unit': None}}" in lines
    ids = [line.split()[0] for line in lines]
    assert len(ids) == len({*ids})
