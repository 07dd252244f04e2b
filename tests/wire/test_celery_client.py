"""A real Celery client, whose tasks beatd's worker runs, over Redis."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, chain
from celery.result import AsyncResult

from tests.groups import grouped
from tests.servers import PATIENCE, Server, eventually
from tests.wire.clients import celery_client
from tests.worker.project import Project

PREFORK, THREADS, SOLO, ASYNCIO = grouped(
    "client", ["prefork", "threads", "solo", "asyncio"]
)


@pytest.fixture(scope="module", params=[PREFORK, THREADS, SOLO, ASYNCIO])
def fleet(
    request: pytest.FixtureRequest,
    _server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Project, Celery]]:
    """Yield a project with a worker of this pool, and a Celery client beside it."""
    with _server.client() as raw:
        raw.flushall()
    urls = _server.url(0), _server.url(1)
    project = Project(tmp_path_factory.mktemp("proj"), *urls)
    options = ("-P", request.param, "-c", "2", "-Q", "celery,slow")
    with celery_client(*urls) as client, project.worker(*options):
        yield project, client
    project.app.close()


@pytest.fixture
def client(fleet: tuple[Project, Celery]) -> Celery:
    return fleet[1]


def test_arguments_arrive_and_the_value_returns(client: Celery) -> None:
    sent = client.send_task("proj.echo", [1, "zwei", None], {"key": [3.5, {"a": True}]})

    echoed = sent.get(timeout=PATIENCE)
    assert echoed["args"] == [1, "zwei", None]
    assert echoed["kwargs"] == {"key": [3.5, {"a": True}]}
    assert echoed["id"] == echoed["root_id"] == sent.id


def test_the_run_time_in_a_result_is_passed_over_by_the_client(client: Celery) -> None:
    sent = client.send_task("proj.add", [2, 3])
    assert sent.get(timeout=PATIENCE) == 5

    meta = client.backend.get_task_meta(sent.id)
    assert 0 <= meta["runtime"] < PATIENCE
    again = AsyncResult(sent.id, app=client)
    assert (again.state, again.result, again.children) == ("SUCCESS", 5, [])
    assert (again.name, again.args, again.kwargs, again.retries) == (None,) * 4
    assert again.date_done.tzinfo is not None
    assert AsyncResult(sent.id, app=client).as_tuple() == ((sent.id, None), None)
    failed = client.send_task("proj.fail", ["no"])
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=PATIENCE)
    assert "runtime" in client.backend.get_task_meta(failed.id)
    again.forget()


def test_a_task_that_the_client_knows_is_called_by_delay(client: Celery) -> None:
    @client.task(name="proj.add", shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def add(x: int, y: int) -> int:
        raise AssertionError("the worker has the code")

    assert add.delay(2, 3).get(timeout=PATIENCE) == 5
    assert add.apply_async((4,), {"y": 5}).get(timeout=PATIENCE) == 9


def test_options_arrive(client: Celery) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    sent = client.send_task(
        "proj.echo",
        queue="slow",
        priority=6,
        expires=expires,
        headers={"colour": "red"},
        time_limit=60,
        soft_time_limit=50,
    )

    echoed = sent.get(timeout=PATIENCE)
    assert (echoed["queue"], echoed["priority"]) == ("slow", 6)
    assert datetime.fromisoformat(echoed["expires"]) == expires
    assert echoed["colour"] == "red"
    assert echoed["timelimit"] == [60, 50]


@pytest.mark.parametrize("option", ["eta", "countdown"])
def test_a_call_for_later_runs_later(client: Celery, option: str) -> None:
    half, grain = timedelta(seconds=0.5), timedelta(milliseconds=1)
    earliest = datetime.now(UTC) + half
    later = {"eta": earliest} if option == "eta" else {"countdown": 0.5}
    sent = client.send_task("proj.echo", **later)
    latest = datetime.now(UTC) + half

    eta = datetime.fromisoformat(sent.get(timeout=PATIENCE)["eta"])
    assert earliest - grain < eta <= latest
    assert datetime.now(UTC) >= eta


def test_what_has_expired_is_revoked(client: Celery) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    sent = client.send_task("proj.echo", expires=past)

    eventually(sent.ready)
    assert sent.state == "REVOKED"
    assert type(sent.result).__name__ == "TaskRevokedError"
    assert sent.result.args == ("expired",)


def test_a_failure_is_raised_by_the_client(client: Celery) -> None:
    sent = client.send_task("proj.fail", ["no such thing"])

    with pytest.raises(ValueError, match="no such thing"):
        sent.get(timeout=PATIENCE)
    assert sent.state == "FAILURE"
    assert "raise ValueError(text)" in sent.traceback


def test_retries_end_well(client: Celery) -> None:
    assert client.send_task("proj.flaky", [2]).get(timeout=PATIENCE) == 2


def test_an_unknown_task_fails_as_celery_says_it(client: Celery) -> None:
    sent = client.send_task("proj.nobody")

    eventually(sent.ready)
    assert type(sent.result).__name__ == "NotRegistered"
    assert sent.result.args == ("proj.nobody",)


def test_the_soft_time_limit_is_raised_in_the_task(client: Celery) -> None:
    assert client.send_task("proj.patient").get(timeout=PATIENCE) == "cleaned up"


@pytest.mark.parametrize("fleet", [PREFORK, THREADS, ASYNCIO], indirect=True)
def test_the_time_limit_ends_a_run(client: Celery) -> None:
    sent = client.send_task("proj.late")

    with pytest.raises(Exception, match=r"0\.3") as raised:
        sent.get(timeout=PATIENCE)
    assert type(raised.value).__name__ == "TimeLimitExceeded"
    assert sent.state == "FAILURE"


def test_the_urgent_goes_first(fleet: tuple[Project, Celery], client: Celery) -> None:
    project, _ = fleet
    client.control.cancel_consumer("slow", reply=True, timeout=PATIENCE, limit=1)
    later = {"kwargs": {"until": "go"}, "queue": "slow"}
    sent = [
        client.send_task("proj.mark", [name], priority=priority, **later)
        for name, priority in [("calm", 9)] * 3 + [("urgent", 0)] * 2
    ]
    client.control.add_consumer("slow", reply=True, timeout=PATIENCE, limit=1)

    eventually(lambda: project.runs("urgent"))
    assert project.runs("calm") == 0
    project.release("go")
    assert sorted(one.get(timeout=PATIENCE) for one in sent) == [
        *["calm"] * 3,
        *["urgent"] * 2,
    ]


def test_links_and_chains_go_on(client: Celery) -> None:
    def add(*args: int) -> Any:
        return client.signature("proj.add", args)

    assert (
        chain(add(1, 2), add(10), add(100)).apply_async().get(timeout=PATIENCE) == 113
    )

    linked = add(7).set(task_id=str(uuid.uuid4()))
    client.send_task("proj.add", [1, 2], link=linked)
    followed = AsyncResult(linked.options["task_id"], app=client)
    assert followed.get(timeout=PATIENCE) == 10


@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "lzma"])
def test_bodies_are_read_however_they_are_packed(
    client: Celery, compression: str | None
) -> None:
    moment = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
    sent = client.send_task(
        "proj.echo", [moment, uuid.UUID(int=7), b"\xff"], compression=compression
    )

    assert sent.get(timeout=PATIENCE)["args"] == [moment, uuid.UUID(int=7), b"\xff"]


def test_a_refused_serializer_is_set_aside_and_the_queue_moves(client: Celery) -> None:
    refused = client.send_task("proj.echo", serializer="pickle")
    after = client.send_task("proj.add", [1, 1])

    assert after.get(timeout=PATIENCE) == 2
    assert "pickle is refused" in str(refused.get(timeout=PATIENCE, propagate=False))
    assert refused.state == "FAILURE"


def test_protocol_1_is_understood(client: Celery) -> None:
    client.conf.task_protocol = 1
    try:
        sent = client.send_task("proj.echo", [1], {"a": 2})
    finally:
        client.conf.task_protocol = 2

    echoed = sent.get(timeout=PATIENCE)
    assert (echoed["args"], echoed["kwargs"]) == ([1], {"a": 2})


def test_many_calls_all_return(client: Celery) -> None:
    sent = [client.send_task("proj.add", [number, number]) for number in range(200)]

    assert [one.get(timeout=PATIENCE) for one in sent] == [2 * n for n in range(200)]
