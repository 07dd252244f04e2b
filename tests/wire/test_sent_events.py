"""Celery's own monitor hears of what clients, workers and the scheduler send."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd import Beatd
from tests.processes import beatd
from tests.servers import PATIENCE, Server, eventually
from tests.wire.clients import celery_client
from tests.wire.listener import Listener

PROJECT = """
from beatd import Beatd

app = Beatd("proj", broker={broker!r}, backend={backend!r})
app.conf.update(
    task_send_sent_event=True,
    event_serializer={serializer!r},
    timezone="Asia/Kathmandu",
    beat_schedule={{"tick": {{"task": "proj.tick", "schedule": 0.3}}}},
)


@app.task
def tick():
    pass


@app.task(bind=True)
def flaky(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return "done"
"""


@pytest.fixture(params=["json", "yaml", "pickle"])
def apps(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path
) -> Iterator[tuple[Beatd, Listener]]:
    """Yield an app of ours with a worker, a scheduler, and a monitor of Celery's."""
    urls, serializer = (server.url(0), server.url(1)), request.param
    text = PROJECT.format(broker=urls[0], backend=urls[1], serializer=serializer)
    (tmp_path / "proj.py").write_text(text)
    settings = {"task_send_sent_event": True, "event_serializer": serializer}
    ours = Beatd(broker=urls[0], backend=urls[1], set_as_current=False)
    ours.conf.update(settings)
    options = ("-P", "solo", "-l", "info", "-B", "-E")
    with (
        celery_client(urls[0]) as theirs,
        beatd("worker", "-A", "proj", *options, cwd=tmp_path) as worker,
    ):
        theirs.conf.update(settings)
        worker.until("is ready")
        with Listener(theirs) as listener:
            yield ours, listener
        assert worker.stop() == 0, worker.output
    ours.close()


def test_calls_are_told_by_whoever_sends_them(apps: tuple[Beatd, Listener]) -> None:
    app, listener = apps
    called = app.send_task("proj.flaky")
    assert called.get(timeout=PATIENCE) == "done"

    types = ["task-sent", "task-received", "task-started", "task-succeeded"]
    eventually(lambda: listener.of(called.id).count("task-sent") == 2)
    eventually(lambda: set(types) <= set(listener.of(called.id)))
    first, second = listener.sent(called.id)
    assert [one["retries"] for one in (first, second)] == [0, 1]
    assert first["hostname"] != second["hostname"]
    assert listener.state.tasks[called.id].client.startswith("gen")

    emitted = eventually(lambda: [one for one in listener.sent() if is_tick(one)])
    assert emitted[0]["queue"] == emitted[0]["routing_key"] == "celery"
    # The monitor has set the times right that come from other zones.
    eventually(lambda: "task-received" in listener.of(emitted[0]["uuid"]))
    times = [one["timestamp"] for one in listener.events]
    assert max(times) - min(times) < 600


def is_tick(event: dict[str, object]) -> bool:
    return event["name"] == "proj.tick"
