"""Several addresses: who goes where, and what becomes of what was taken elsewhere."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis

from beatd.brokers import connect
from beatd.brokers.items import Acknowledge, Delay, GiveBack, Outgoing, SetAside
from beatd.brokers.redis import RedisBroker
from beatd.brokers.redis.failover import Server as Addresses
from beatd.config.settings import Failover
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.instant import MINUTE, SECOND
from beatd.routing import Queue, Route
from tests.brokers.making import messages, outgoing, settle, take_all
from tests.servers import PATIENCE, Server, eventually

LONG = int(PATIENCE) * SECOND
IMPATIENT = {"socket_timeout": 1.5, "socket_connect_timeout": 1.5}


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """Two servers, to be frozen and killed."""
    with Server() as first, Server() as second:
        yield first, second


@pytest.fixture
def broker(pair: tuple[Server, Server]) -> Iterator[RedisBroker]:
    urls = [server.url() for server in pair]
    broker = RedisBroker(urls, namespace="test", options=IMPATIENT)
    yield broker
    broker.close()


def lying_at(server: Server) -> list[bytes]:
    with server.client() as client:
        return [*reversed(client.lrange("celery", 0, -1))]


def lose(broker: RedisBroker) -> None:
    """Let a request fail, as the first one does that meets a fault."""
    with pytest.raises(BrokerUnavailable):
        broker.leader()


# Who goes where


def test_who_begins_while_the_first_is_away_goes_to_the_next_at_once(
    pair: tuple[Server, Server], broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    first.kill()

    with caplog.at_level(logging.WARNING):
        broker.send([outgoing(b"1")])
        broker.send([outgoing(b"2")])

    assert lying_at(second) == [b"1", b"2"]
    [line] = [record.getMessage() for record in caplog.records]
    assert f"going on at {second.url()}" in line
    assert first.url() in line


def test_an_address_is_left_when_it_fails_and_not_before(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    broker.send([outgoing(b"1")])
    first.kill()
    with pytest.raises(BrokerUnavailable, match=str(first.port)):
        broker.send([outgoing(b"2")])
    broker.send([outgoing(b"2")])
    first.start()
    broker.send([outgoing(b"3")])
    second_had = lying_at(second)
    second.kill()
    with pytest.raises(BrokerUnavailable, match=str(second.port)):
        broker.send([outgoing(b"4")])
    broker.send([outgoing(b"4")])

    assert second_had == [b"2", b"3"]
    assert lying_at(first) == [b"4"]


def test_requests_that_fail_together_leave_an_address_once() -> None:
    here = Addresses(["redis://a", "redis://b"], {}, False)

    with suppress(BrokerUnavailable), here.answering():
        with suppress(BrokerUnavailable), here.answering():
            raise redis.ConnectionError
        raise redis.ConnectionError

    assert here.present.url == "redis://b"


def test_a_primary_that_came_back_as_a_replica_is_left(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    broker.ping()
    with first.client() as admin:
        admin.replicaof("127.0.0.1", second.port)
        with pytest.raises(BrokerRefused, match="read-only"):
            broker.send([outgoing(b"1")])

        broker.send([outgoing(b"1")])
        admin.replicaof("NO", "ONE")

    assert lying_at(second) == [b"1"]


def test_a_server_that_became_a_replica_is_connected_to_anew(
    pair: tuple[Server, Server],
) -> None:
    first, second = pair
    here = Addresses([first.url()], {}, False)
    with first.client() as admin, here.answering() as client:
        before = client.client_id()
        admin.replicaof("127.0.0.1", second.port)
    with pytest.raises(BrokerRefused, match="read-only"), here.answering() as client:
        client.set("x", 1)

    # The name of its host may be that of the new primary by now.
    with here.answering() as client:
        assert client.client_id() != before
    here.close()


def test_a_refusal_that_others_would_not_be_free_of_moves_nobody(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    with first.client() as admin:
        admin.config_set("maxmemory", "1")
        for _ in range(3):
            with pytest.raises(BrokerRefused, match="out of memory"):
                broker.send([outgoing(b"1")])
        admin.config_set("maxmemory", "0")
    broker.send([outgoing(b"1")])

    assert lying_at(first) == [b"1"]
    assert lying_at(second) == []


def test_a_pool_without_a_free_connection_moves_nobody(server: Server) -> None:
    urls = [server.url(), "redis://127.0.0.1:1"]
    here = Addresses(urls, {"max_connections": 1, "timeout": 0.05}, False)
    pool = here.present.pool
    taken = pool.get_connection()

    with pytest.raises(BrokerUnavailable, match="No connection"), here.answering() as c:
        c.ping()

    pool.release(taken)
    with here.answering() as client:
        assert client.ping()
    here.close()


@pytest.mark.parametrize(
    ("failover", "visited"),
    [
        (None, "abcabcab"),
        ("round-robin", "abcabcab"),
        (lambda urls: iter([urls[0], urls[2], urls[1]]), "acbabcab"),
        (lambda urls: ["redis://elsewhere"] * 4, "aabcabca"),
    ],
)
def test_the_strategy_says_where_to_go_next(failover: Failover, visited: str) -> None:
    assert walk(failover) == visited


def test_shuffled_addresses_come_in_any_order_and_never_twice_in_a_row() -> None:
    walks = [walk("shuffle") for _ in range(200)]

    assert {one[1] for one in walks} == {"b", "c"}
    assert not [one for one in walks if any(x * 2 in one for x in "abc")]


def walk(failover: Failover) -> str:
    """Let eight addresses in turn fail, and name them."""
    here = Addresses([f"redis://{host}" for host in "abc"], {}, False, failover)
    visited = ""
    for _ in range(8):
        visited += here.present.url[-1]
        with suppress(BrokerUnavailable), here.answering():
            raise redis.ConnectionError
    return visited


@pytest.mark.parametrize("other", ["amqp://h", "sqlite:///x.db", "memory://"])
def test_only_redis_has_several_addresses(other: str) -> None:
    with pytest.raises(ConfigError):
        connect(["redis://h", other], namespace="test")


# What was taken at one address and settled at another


def test_what_was_settled_elsewhere_is_delivered_again_where_it_came_from(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    broker.send([outgoing(b"1"), outgoing(b"2"), outgoing(b"3"), outgoing(b"4")])
    broker.join("w", 500)
    one, two, three, four = broker.take("w", ["celery"], 4, 1)
    first.freeze()
    lose(broker)

    broker.join("w", 500)
    settle(broker, "w", Acknowledge(one), sends=[outgoing(b"follows")])
    settle(broker, "w", SetAside(two, "why"))
    settle(broker, "w", Delay(three, 2**45))
    settle(broker, "w", GiveBack(four))

    assert lying_at(second) == [b"follows"]
    assert broker.dead_letters() == []
    assert broker.delayed(["celery"], 9) == []
    second.freeze()
    first.thaw()
    lose(broker)
    # The worker that took them lives, and is back: they are not its own any more.
    broker.join("w", MINUTE)
    assert eventually(broker.recover) == 4
    again = take_all(broker, "w", ["celery"])
    assert messages(again) == [b"1", b"2", b"3", b"4"]
    assert {delivery.deliveries for delivery in again} == {2}
    second.thaw()


def test_a_lease_is_lost_with_the_address_that_it_was_begun_at(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, _ = pair
    broker.join("w", MINUTE)
    assert broker.stay("w", MINUTE)
    first.kill()
    lose(broker)

    assert not broker.stay("w", MINUTE)
    broker.join("w", MINUTE)
    assert broker.stay("w", MINUTE)


def test_a_fault_does_not_begin_a_lease_again_that_is_lost(
    pair: tuple[Server, Server],
) -> None:
    first, _ = pair
    broker = RedisBroker(first.url(), namespace="test", options=IMPATIENT)
    other = RedisBroker(first.url(), namespace="test")
    broker.send([outgoing(b"1")])
    broker.join("w", 1)
    broker.take("w", ["celery"], 1, 1)
    eventually(other.recover)
    first.freeze()
    lose(broker)
    first.thaw()

    assert not broker.stay("w", MINUTE)
    broker.close()
    other.close()


def test_a_take_that_is_made_again_elsewhere_loses_nothing(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    with first.client() as one, second.client() as other:
        one.lpush("celery", b"here")
        other.lpush("celery", b"there")
    broker.join("w", 300)
    broker.take("w", ["celery"], 1, 1)  # let its answer be lost
    first.freeze()
    lose(broker)

    broker.join("w", MINUTE)
    [there] = broker.take("w", ["celery"], 1, 1)
    settle(broker, "w", Acknowledge(there))
    second.freeze()
    first.thaw()
    lose(broker)
    broker.join("w", MINUTE)
    eventually(broker.recover)

    assert there.message == b"there"
    assert messages(broker.take("w", ["celery"], 1, 2)) == [b"here"]
    second.thaw()
    broker.close()


def test_a_short_fault_costs_nothing_while_the_other_address_is_away(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    second.kill()
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 1)
    first.freeze()
    lose(broker)
    lose(broker)
    first.thaw()

    settle(broker, "w", Acknowledge(one))

    with first.client() as client:
        assert client.keys("*inflight*") == []


# What goes along


def test_what_was_declared_is_known_where_it_goes_on(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    broker.declare([Queue("reports", "media", "topic", "*.pdf")])
    first.kill()
    lose(broker)

    broker.send([Outgoing(Route("", "media", "a.pdf", "topic"), b"1")])

    broker.join("w", MINUTE)
    assert messages(broker.take("w", ["reports"], 1, 1)) == [b"1"]
    assert second.url()


def test_what_was_declared_is_known_to_a_server_that_came_back_empty(
    pair: tuple[Server, Server],
) -> None:
    first, _ = pair
    broker = RedisBroker(first.url(), namespace="test")
    broker.declare([Queue("reports", "media", "topic", "*.pdf")])
    first.kill()
    lose(broker)
    first.start()

    broker.send([Outgoing(Route("", "media", "a.pdf", "topic"), b"1")])

    broker.join("w", MINUTE)
    assert messages(broker.take("w", ["reports"], 1, 1)) == [b"1"]
    broker.close()


def test_a_server_that_is_full_after_a_fault_lets_work_be_settled(
    pair: tuple[Server, Server],
) -> None:
    first, _ = pair
    broker = RedisBroker(first.url(), namespace="test", options=IMPATIENT)
    broker.declare([Queue("reports", "media", "topic", "*.pdf")])
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 1)
    first.freeze()
    lose(broker)
    first.thaw()
    with first.client() as admin:
        admin.config_set("maxmemory", "1")
        settle(broker, "w", Acknowledge(one))
        admin.config_set("maxmemory", "0")

        assert admin.keys("*inflight*") == []
    broker.close()


def test_who_waits_for_messages_hears_of_them_where_it_goes_on(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(broker.await_message, ["celery"], LONG)
        eventually(lambda: _subscribers(first))
        first.kill()
        with pytest.raises(BrokerUnavailable):
            waiting.result(PATIENCE)
        waiting = threads.submit(broker.await_message, ["celery"], LONG)
        eventually(lambda: _subscribers(second))
        broker.send([outgoing(b"1")])

        assert waiting.result(PATIENCE) is True


def test_who_waited_at_an_address_that_others_left_follows_them(
    pair: tuple[Server, Server], broker: RedisBroker
) -> None:
    first, second = pair
    broker.leader()
    assert broker.await_message(["celery"], 1) is False
    first.freeze()
    lose(broker)
    first.thaw()
    broker.send([outgoing(b"1")])

    assert lying_at(second) == [b"1"]
    assert broker.await_message(["celery"], LONG) is True


def test_what_is_said_is_heard_where_it_goes_on_whatever_its_database(
    pair: tuple[Server, Server],
) -> None:
    first, second = pair
    urls = [first.url(1), second.url(2)]
    broker = RedisBroker(urls, namespace="test", options=IMPATIENT)
    hearing = broker.listen(Queue("me", "news", "fanout", ""))
    news = Outgoing(Route("", "news", "", "fanout"), b"heard")
    assert hearing.wait(1) == []
    broker.send([news])
    heard = [hearing.wait(LONG)]
    first.freeze()
    lose(broker)
    broker.ping()
    assert hearing.wait(1) == []
    broker.send([news])
    heard.append(hearing.wait(LONG))

    assert heard == [[b"heard"], [b"heard"]]
    with second.client() as client:
        assert client.info("keyspace").keys() == {"db2"}
    first.thaw()
    hearing.close()
    broker.close()


def _subscribers(server: Server) -> Any:
    with server.client() as client:
        return client.info("clients")["pubsub_clients"]
