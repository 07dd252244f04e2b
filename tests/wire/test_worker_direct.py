"""A queue for each worker alone, which a real Celery client sends to."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from celery import Celery
from celery.utils import nodenames

from beatd import Beatd
from beatd.routing import worker_direct
from tests.processes import beatd
from tests.servers import PATIENCE, Server
from tests.wire.clients import celery_client

HOST = socket.gethostname()

PROJECT = """
from beatd import Beatd

app = Beatd("proj", broker={broker!r}, backend={backend!r}, worker_direct=True)


@app.task(bind=True)
def where(self):
    return self.request.hostname
"""


@pytest.fixture(scope="module")
def urls(_server: Server) -> tuple[str, str]:
    with _server.client() as raw:
        raw.flushall()
    return _server.url(0), _server.url(1)


@pytest.fixture(scope="module")
def client(
    urls: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Celery]:
    """Yield a client of two workers, of which one takes from another queue."""
    folder = tmp_path_factory.mktemp("proj")
    (folder / "proj.py").write_text(PROJECT.format(broker=urls[0], backend=urls[1]))
    with ExitStack() as stack:
        client = stack.enter_context(celery_client(*urls))
        for options in (["-n", "w1@%h"], ["-n", "w2@%h", "-Q", "slow"]):
            worker = beatd(
                *("worker", "-A", "proj", "-P", "solo", "-l", "info", *options),
                cwd=folder,
            )
            stack.enter_context(worker).until("is ready")
        yield client


def test_a_call_for_one_worker_reaches_that_one(client: Celery) -> None:
    for node in (f"w1@{HOST}", f"w2@{HOST}") * 3:
        own = nodenames.worker_direct(node)
        sent = client.send_task("proj.where", queue=own)

        assert sent.get(timeout=PATIENCE) == node


def test_it_is_listed_as_celery_lists_it(client: Celery) -> None:
    node = f"w2@{HOST}"
    found = client.control.inspect(timeout=PATIENCE, destination=[node]).active_queues()

    slow, own = found[node]
    assert slow["name"] == "slow"
    assert (own["name"], own["routing_key"]) == (f"{node}.dq2", node)
    assert (own["exchange"]["name"], own["exchange"]["type"]) == ("C.dq2", "direct")


@pytest.mark.parametrize("direct", [worker_direct, nodenames.worker_direct])
def test_an_app_of_ours_takes_either_packages_word_for_it(
    client: Celery, urls: tuple[str, str], direct: Any
) -> None:
    app = Beatd(broker=urls[0], backend=urls[1], set_as_current=False)
    node = f"w2@{HOST}"

    sent = app.send_task("proj.where", queue=direct(node))

    assert sent.get(timeout=PATIENCE) == node
    app.close()
