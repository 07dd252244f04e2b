"""Results in Redis beyond the contract: faults, and Celery on the other side."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from celery import Celery
from celery.exceptions import NotRegistered

from beatd import errors, results
from beatd.config.settings import read
from beatd.errors import ConfigError, MessageError, ResultUnavailable
from beatd.instant import SECOND
from beatd.results.base import Meta, ResultBackend, State
from beatd.results.redis import RedisResults
from tests.servers import PATIENCE, Server, eventually, number_of, reserved_port
from tests.wire.clients import celery_client

# Celery calls what redis-py wants nobody to call any more.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")


def at(url: str, **settings: object) -> ResultBackend:
    return results.connect(read({"result_backend": url, **settings}).settings)


@pytest.fixture
def backend(server: Server) -> Iterator[ResultBackend]:
    backend = at(server.url())
    yield backend
    backend.close()


@pytest.fixture
def celery(server: Server) -> Iterator[Celery]:
    with celery_client(server.url(), server.url()) as client:
        yield client


def test_celery_reads_what_we_store(celery: Celery, backend: ResultBackend) -> None:
    backend.store([Meta("a", State.SUCCESS, {"sum": 42})])
    missing = errors.NotRegistered("shop.add")
    backend.store([Meta("b", State.FAILURE, missing, "trace")])

    assert celery.AsyncResult("a").get(timeout=PATIENCE) == {"sum": 42}
    with pytest.raises(NotRegistered, match=r"shop\.add"):
        celery.AsyncResult("b").get(timeout=PATIENCE)


def test_celery_is_woken_by_what_we_store(
    celery: Celery, backend: ResultBackend, server: Server
) -> None:
    found: list[object] = []
    client = threading.Thread(
        target=lambda: found.append(celery.AsyncResult("a").get(timeout=PATIENCE))
    )
    client.start()
    await_listener(server, "a")

    backend.store([Meta("a", State.SUCCESS, 42)])
    client.join(PATIENCE)

    assert found == [42]


def test_we_read_what_celery_stores(celery: Celery, backend: ResultBackend) -> None:
    celery.backend.store_result("a", [1, 2], "SUCCESS")
    celery.backend.store_result("b", ValueError("no"), "FAILURE", traceback="trace")

    found = backend.load(["a", "b"])

    assert found["a"].result == [1, 2]
    assert repr(found["b"].result) == "ValueError('no')"
    assert found["b"].traceback == "trace"


def test_we_are_woken_by_what_celery_stores(
    celery: Celery, backend: ResultBackend, server: Server
) -> None:
    found: list[Meta | None] = []
    waiting = threading.Thread(
        target=lambda: found.append(backend.wait("a", int(PATIENCE * SECOND)))
    )
    waiting.start()
    await_listener(server, "a")

    celery.backend.store_result("a", 42, "SUCCESS")
    waiting.join(PATIENCE)

    assert [meta and meta.result for meta in found] == [42]


def test_what_is_stored_just_after_the_look_wakes_who_waits(
    backend: ResultBackend, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(RedisResults):
        """Looks, and is slow to say that nothing was there."""

        def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
            found = super().load(task_ids)
            if not found:
                backend.store([Meta("a", State.SUCCESS, 42)])
            return found

    monkeypatch.setattr("beatd.results.redis.SILENCE", int(PATIENCE * SECOND))
    late = at(server.url())
    late.__class__ = Late
    began = time.monotonic()

    meta = late.wait("a", int(PATIENCE * SECOND))

    assert meta is not None
    assert meta.result == 42
    assert time.monotonic() - began < PATIENCE / 2
    late.close()


def await_listener(server: Server, task_id: str) -> None:
    channel = f"celery-task-meta-{task_id}"
    with server.client() as client:
        eventually(lambda: client.pubsub_numsub(channel)[0][1], "someone to listen")


def test_storing_a_batch_takes_one_round_trip(
    backend: ResultBackend, server: Server
) -> None:
    backend.store([Meta("first", State.SUCCESS)])  # the script is known now
    with server.client() as client:
        client.config_resetstat()

        backend.store([Meta(f"id-{number}", State.SUCCESS) for number in range(100)])

        calls = client.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 1
    assert calls["cmdstat_setex"]["calls"] == 100


def test_garbage_is_named_when_read_and_replaced_when_stored(
    backend: ResultBackend, server: Server
) -> None:
    with server.client() as client:
        client.set("celery-task-meta-a", b"\xff garbage")

    with pytest.raises(MessageError, match="result of task a: not json"):
        backend.load(["a"])
    backend.store([Meta("a", State.SUCCESS, 42)])

    assert backend.load(["a"])["a"].result == 42


def test_a_server_that_is_away_is_said_without_secrets() -> None:
    meta = Meta("a", State.SUCCESS)
    with reserved_port() as port:
        backend = at(f"redis://:hush@127.0.0.1:{number_of(port)}/0")

        for request in (
            lambda: backend.store([meta]),
            lambda: backend.load(["a"]),
            lambda: backend.wait("a", 1000),
            lambda: backend.forget("a"),
        ):
            with pytest.raises(ResultUnavailable, match=r"127\.0\.0\.1") as raised:
                request()
            assert "hush" not in str(raised.value)


def test_a_wrong_password_is_said_without_it(server: Server) -> None:
    backend = at(server.url(user="nobody:hush"))

    with pytest.raises(ResultUnavailable, match="no such user") as raised:
        backend.load(["a"])

    assert "hush" not in str(raised.value)
    backend.close()


def test_results_go_on_when_the_server_comes_back() -> None:
    with Server() as server:
        backend = at(server.url())
        backend.store([Meta("a", State.SUCCESS)])

        server.kill()
        with pytest.raises(ResultUnavailable):
            backend.store([Meta("b", State.SUCCESS)])
        server.start()

        backend.store([Meta("b", State.SUCCESS)])
        assert list(backend.load(["a", "b"])) == ["b"]
        backend.close()


def test_an_address_of_another_kind_is_refused_with_those_we_know() -> None:
    with pytest.raises(ConfigError, match=r"rpc://.*redis://.*sqlite://"):
        at("rpc://")
