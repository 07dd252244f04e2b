"""The contract of Broadcast: what is said to everybody who listens."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beatd.brokers.base import Broadcast, Subscription
from beatd.brokers.items import Outgoing
from beatd.brokers.redis import RedisBroker
from beatd.brokers.redis.listening import pattern_of
from beatd.brokers.redis.wire import WireNames
from beatd.errors import BrokerUnavailable
from beatd.instant import SECOND
from beatd.routing import Queue, Route
from tests.brokers.backends import Backend, Memory, Redis
from tests.servers import PATIENCE, Server, eventually

PIDBOX = Queue("w1.celery.pidbox", "celery.pidbox", "fanout", expires=10)
LONG = int(PATIENCE) * SECOND

ANSWERS = Queue("me.reply", "reply.celery.pidbox", "direct", "me", expires=10)


@pytest.fixture(params=["memory", "redis"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made: Backend = Memory()
    if request.param == "redis":
        made = Redis(request.getfixturevalue("server"))
    yield made
    made.close()


@pytest.fixture
def broker(backend: Backend) -> Broadcast:
    broker = backend.connect()
    assert isinstance(broker, Broadcast)
    return broker


@pytest.fixture
def other(backend: Backend) -> Broadcast:
    broker = backend.connect()
    assert isinstance(broker, Broadcast)
    return broker


def heard_by(subscription: Subscription, number: int) -> list[bytes]:
    """Wait until so many were heard, and give them."""
    heard: list[bytes] = []

    def listen() -> bool:
        heard.extend(subscription.wait(SECOND))
        return len(heard) >= number

    eventually(listen, f"{number} to be heard")
    return heard


def message_for_all(
    text: str, key: str = "", exchange: str = "celery.pidbox"
) -> Outgoing:
    return Outgoing(Route("", exchange, key, "fanout"), text.encode())


def test_all_who_listen_hear_it_in_order(broker: Broadcast, other: Broadcast) -> None:
    subscriptions = [broker.listen(PIDBOX), other.listen(PIDBOX)]
    for subscription in subscriptions:
        assert subscription.wait(0) == []
    broker.send([message_for_all("one"), message_for_all("two")])

    for subscription in subscriptions:
        assert heard_by(subscription, 2) == [b"one", b"two"]
        subscription.close()


def test_what_was_said_before_is_not_heard(broker: Broadcast) -> None:
    broker.send([message_for_all("early")])
    subscription = broker.listen(PIDBOX)

    assert subscription.wait(50) == []
    subscription.close()


@pytest.mark.parametrize(
    ("key", "heard"),
    [
        ("#", [b"online", b"multi"]),
        ("worker.#", [b"online"]),
        ("worker.online", [b"online"]),
        ("task.*", [b"multi"]),
    ],
)
def test_a_routing_key_chooses_what_is_heard(
    broker: Broadcast, key: str, heard: list[bytes]
) -> None:
    subscription = broker.listen(Queue("celeryev.me", "celeryev", "fanout", key))
    subscription.wait(0)
    broker.send([message_for_all("not this", exchange="another")])
    broker.send([message_for_all("online", "worker.online", "celeryev")])
    broker.send([message_for_all("multi", "task.multi", "celeryev")])

    assert heard_by(subscription, len(heard)) == heard
    assert subscription.wait(0) == []
    subscription.close()


def test_waiting_can_be_ended_from_another_thread(broker: Broadcast) -> None:
    subscription = broker.listen(PIDBOX)
    interrupting = threading.Timer(0.05, subscription.interrupt)
    interrupting.start()
    began = time.monotonic()

    assert subscription.wait(LONG) == []
    assert time.monotonic() - began < PATIENCE / 2
    interrupting.join()
    subscription.close()


def test_a_question_is_answered_by_all_who_hear_it(
    broker: Broadcast, other: Broadcast
) -> None:
    subscription = other.listen(PIDBOX)
    assert subscription.wait(0) == []  # it hears from now on

    def answer() -> None:
        [question] = heard_by(subscription, 1)
        route = Route("", "reply.celery.pidbox", "me")
        other.send([Outgoing(route, b"yes, " + question)])

    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        answering = threads.submit(answer)
        assert broker.ask(message_for_all("there?"), ANSWERS, LONG) == [b"yes, there?"]
        answering.result()
    assert time.monotonic() - began < PATIENCE / 2, "for no others"
    subscription.close()


def test_a_question_that_nobody_hears_has_no_answers(broker: Broadcast) -> None:
    began = time.monotonic()

    assert broker.ask(message_for_all("there?"), ANSWERS, LONG) == []
    assert time.monotonic() - began < PATIENCE / 2


def test_those_who_do_not_answer_are_not_waited_for_for_ever(
    broker: Broadcast, other: Broadcast
) -> None:
    subscription = other.listen(PIDBOX)
    subscription.wait(0)

    assert broker.ask(message_for_all("there?"), ANSWERS, 50) == []
    subscription.close()


# Redis


def test_listening_goes_on_after_the_server_was_gone() -> None:
    with Server() as server:
        broker = RedisBroker(server.url(), namespace="test")
        subscription = broker.listen(PIDBOX)
        subscription.wait(0)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            subscription.wait(10 * SECOND)
        server.start()
        subscription.wait(0)
        broker.send([message_for_all("again")])

        assert eventually(lambda: subscription.wait(SECOND)) == [b"again"]
        subscription.close()
        broker.close()


def test_a_question_may_wait_for_longer_than_a_socket(server: Server) -> None:
    options = {"socket_timeout": 1}
    broker = RedisBroker(server.url(), namespace="test", options=options)
    subscription = broker.listen(PIDBOX)
    subscription.wait(0)

    assert broker.ask(message_for_all("there?"), ANSWERS, 3 * SECOND // 2) == []
    subscription.close()
    broker.close()


def test_a_node_is_bound_as_kombu_binds_it(server: Server) -> None:
    broker = RedisBroker(server.url(), namespace="test")
    subscription = broker.listen(PIDBOX)
    subscription.wait(0)
    with server.client() as client:
        members = client.smembers("_kombu.binding.celery.pidbox")

        assert members == {b"\x06\x16\x06\x16w1.celery.pidbox"}
        assert client.zscore("_kombu.binding_deadlines", "celery.pidbox")
        assert not client.exists("_kombu.binding_permanent.celery.pidbox")
    subscription.close()
    broker.close()


def test_a_question_leaves_nothing_behind(server: Server) -> None:
    broker = RedisBroker(server.url(), namespace="test")
    broker.ask(message_for_all("there?"), ANSWERS, 0)
    with server.client() as client:
        assert not client.exists("_kombu.binding.reply.celery.pidbox", "me.reply")
    broker.close()


@pytest.mark.parametrize(
    ("options", "key", "pattern"),
    [
        ({}, "", "/3.celeryev"),
        ({}, "worker.#", "/3.celeryev/worker.*"),
        ({"fanout_prefix": False}, "#", "celeryev/*"),
        ({"fanout_prefix": "all."}, "", "all.celeryev"),
        ({"fanout_patterns": False}, "worker.#", "/3.celeryev"),
        ({"global_keyprefix": "a*b[1]?\\"}, "#", "a\\*b\\[1\\]\\?\\\\/3.celeryev/*"),
    ],
)
def test_patterns_take_only_the_key_for_one(
    options: dict[str, object], key: str, pattern: str
) -> None:
    queue = Queue("celeryev.me", "celeryev", "fanout", key)

    assert pattern_of(WireNames.of(options, 3), queue) == pattern
