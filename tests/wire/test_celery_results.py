"""Ends of runs that only the worker's loop knows, in the backend of a Celery app."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from beatd.celery_apps.results import CeleryResults
from beatd.errors import ResultRefused, ResultUnavailable, WorkerLost
from beatd.results.base import Meta, State
from tests.servers import Server

KEY = "celery-task-meta-"

# Celery itself calls what its client of Redis calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex")


@pytest.fixture
def app(server: Server) -> Iterator[Any]:
    with server.client() as client:
        client.flushall()
    app = Celery("proj", backend=server.url(), set_as_current=False)
    yield app
    app.close()


def lost(task_id: str) -> Meta:
    return Meta(task_id, State.FAILURE, WorkerLost("gone"))


def test_a_result_that_is_refused_holds_up_no_other(server: Server, app: Any) -> None:
    with server.client() as client:
        client.sadd(f"{KEY}taken", "a")
        known = {f"{KEY}taken".encode(), f"{KEY}other".encode()}

        with pytest.raises(ResultRefused) as refusal:
            CeleryResults(app).store([lost("taken"), lost("other")])

        assert list(refusal.value.reasons) == [0]
        assert "WRONGTYPE" in refusal.value.reasons[0]
        assert app.AsyncResult("other").state == "FAILURE"
        assert set(client.keys(f"{KEY}*")) == known


def test_a_server_that_is_full_refuses_no_single_result(
    server: Server, app: Any
) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(ResultUnavailable) as error:
                CeleryResults(app).store([lost("one"), lost("other")])
        finally:
            client.config_set("maxmemory", 0)

    assert not isinstance(error.value, ResultRefused)
