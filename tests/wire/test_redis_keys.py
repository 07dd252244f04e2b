"""What sending and emitting leave in Redis equals what Celery left there."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from beatd import Beatd
from beatd.brokers.items import Emission, Outgoing, Term
from beatd.brokers.redis import RedisBroker
from beatd.instant import MINUTE
from beatd.routing import Route
from beatd.timetable.ledger import Mark
from tests.servers import PATIENCE, Server
from tests.wire.clients import celery_client
from tests.wire.vectors import NOON, Vector, python, vectors

ROUTED = [
    vector
    for vector in vectors()
    if vector.id.startswith(("route.", "opt.", "msg.priority."))
    and vector.call["fn"] == "send_task"
    # There Celery does not know what it sends to; our settings always do.
    and vector.kind != "route.broadcast"
]


def send(broker: RedisBroker, route: Route, raw: bytes) -> None:
    broker.send([Outgoing(route, raw)])


def emit(broker: RedisBroker, route: Route, raw: bytes) -> None:
    term = broker.acquire("the test", MINUTE, 0)
    assert isinstance(term, Term)
    broker.emit(term, [Emission("entry", Mark(NOON, ""), route, raw)], MINUTE)


@pytest.mark.parametrize("put", [send, emit])
@pytest.mark.parametrize("vector", ROUTED, ids=lambda vector: vector.id)
def test_redis_holds_what_celery_would_have_put_there(
    server: Server, vector: Vector, put: Callable[[RedisBroker, Route, bytes], None]
) -> None:
    db = 3 if vector.kind == "opt.db" else 0
    broker = RedisBroker(server.url(db), namespace="wire", options=vector.transport)
    router = vector.router()
    task, options = vector.call["name"], python(vector.call["options"])
    queue = router.declares(router.options(task, options))
    route = router.route(task, options)
    raws = {message.raw for message in vector.messages} or {"lost"}
    raw = raws.pop().encode()
    assert not raws
    with server.client() as client, client.pubsub() as news:
        news.psubscribe("*")
        news.get_message(timeout=PATIENCE)
        for key, members in vector.bindings.items():
            if not key.endswith(f".{queue.exchange}"):  # bound by others before
                client.sadd(key, *members)

        broker.declare([queue])
        put(broker, route, raw)
        client.publish("the end", b"")

        left = lying_in(client) if db == 0 else {}
        published = heard(news)
    broker.close()

    lists = {m.key: [m.raw.encode()] for m in vector.messages}
    if route.exchange_type == "fanout":
        assert published == lists
        lists = {}
    bindings = {
        key: {member.encode() for member in members}
        for key, members in vector.bindings.items()
    }
    assert left == lists | bindings


@pytest.mark.parametrize("kind", ["topic", "direct", None])
def test_a_queue_that_is_made_up_is_bound_as_celery_binds_it(
    server: Server, kind: str | None
) -> None:
    settings: dict[str, Any] = {"task_create_missing_queue_exchange_type": kind}
    name = f"made up {kind}"  # kombu remembers what it has declared
    ours = Beatd("client", broker=server.url(), set_as_current=False, **settings)
    left = []
    with celery_client(server.url()) as theirs, server.client() as client:
        theirs.conf.update(settings)
        for app in (theirs, ours):
            app.send_task("proj.add", queue=name)
            left.append(lying_in(client))
            client.flushall()
    ours.close()

    for one in left:
        (message,) = one.pop(name)
        one["to"] = json.loads(message)["properties"]["delivery_info"]
    assert left[0] == left[1]


def lying_in(client: Any) -> dict[str, Any]:
    """Return all lists and sets that are not our own."""
    read = {
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": lambda key: client.smembers(key),
    }
    return {
        key.decode(): read[kind](key)
        for key in client.scan_iter()
        if b"{beatd:" not in key and (kind := client.type(key)) in read
    }


def heard(news: Any) -> dict[str, list[bytes]]:
    """Return what was published, by channel."""
    found: dict[str, list[bytes]] = {}
    while (message := news.get_message(timeout=PATIENCE))["channel"] != b"the end":
        found.setdefault(message["channel"].decode(), []).append(message["data"])
    return found
