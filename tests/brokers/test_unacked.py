"""What Celery's workers left in kombu's `unacked` is put back, as kombu does it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from beatd.brokers.redis import RedisBroker
from beatd.clock import SystemClock
from beatd.errors import BrokerRefused, ConfigError
from beatd.instant import HOUR, SECOND
from beatd.routing import Queue
from tests.brokers.making import lying_in, outgoing
from tests.fakes import FakeClock
from tests.servers import Server, emptied

KEYS = ("unacked", "unacked_index", "unacked_mutex")


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with emptied(server), server.client() as client:
        yield client


@pytest.fixture
def broker(server: Server, client: Any) -> Iterator[RedisBroker]:
    broker = RedisBroker(server.url(), namespace="test")
    yield broker
    broker.close()


def message(name: str, priority: object = 0) -> dict[str, Any]:
    """Return a message as kombu reads it from a list."""
    return {
        "body": name,
        "headers": {"id": name},
        "properties": {"priority": priority, "delivery_info": {"exchange": ""}},
    }


def hold(
    client: Any,
    row: object,
    tag: str = "t",
    age: float = 3601,
    names: tuple[str, ...] = KEYS,
) -> None:
    """Leave a row as a worker of Celery's does that took it so many seconds ago."""
    taken = SystemClock().now() / SECOND - age
    held = row if isinstance(row, bytes) else json.dumps(row)
    client.hset(names[0], tag, held)
    client.zadd(names[1], {tag: taken})


def test_what_was_held_for_longer_than_the_time_out_is_put_back_in_front(
    broker: RedisBroker, client: Any
) -> None:
    hold(client, [message("old"), "", "celery"])
    broker.send([outgoing(b"waits")])

    assert broker.restore_unacked() == 1

    old, waits = lying_in(broker)
    assert waits == b"waits"
    read = json.loads(old)
    assert read["headers"] == {"id": "old", "redelivered": True}
    assert read["properties"]["delivery_info"]["redelivered"] is True
    assert not client.exists(*KEYS)
    assert broker.restore_unacked() == 0


def test_what_is_younger_is_left_to_the_worker_that_holds_it(
    broker: RedisBroker, client: Any
) -> None:
    hold(client, [message("young"), "", "celery"], age=3590)

    assert broker.restore_unacked() == 0

    assert client.hkeys("unacked") == [b"t"]
    assert lying_in(broker) == []


def test_a_clock_that_is_ahead_takes_nothing_from_a_worker_that_lives(
    server: Server, client: Any
) -> None:
    hold(client, [message("young"), "", "celery"], age=10)
    ahead = FakeClock(SystemClock().now() + 2 * HOUR)
    broker = RedisBroker(server.url(), namespace="test", clock=ahead)

    assert broker.restore_unacked() == 0
    broker.close()


def test_two_restorers_restore_once(
    server: Server, broker: RedisBroker, client: Any
) -> None:
    for number in range(50):
        hold(client, [message(f"m{number}"), "", "celery"], f"t{number}")
    other = RedisBroker(server.url(), namespace="test")

    with ThreadPoolExecutor() as threads:
        both = threads.map(RedisBroker.restore_unacked, [broker, other] * 4)
    other.close()

    assert sum(both) == 50
    assert client.llen("celery") == 50


def test_nothing_is_restored_while_another_holds_the_mutex(
    broker: RedisBroker, client: Any
) -> None:
    hold(client, [message("old"), "", "celery"])
    client.set("unacked_mutex", "somebody's")

    assert broker.restore_unacked() == 0

    assert client.get("unacked_mutex") == b"somebody's"
    client.delete("unacked_mutex")
    assert broker.restore_unacked() == 1


def test_a_message_goes_where_it_came_from(broker: RedisBroker, client: Any) -> None:
    broker.declare(
        [
            Queue("one", "media", "topic", "video.#"),
            Queue("two", "plain", "direct", "two"),
        ]
    )
    hold(client, [message("topic"), "media", "video.mp4"], "1")
    hold(client, [message("direct"), "plain", "two"], "2")
    hold(client, [message("late", 9), None, "celery"], "3")

    assert broker.restore_unacked() == 3

    assert [client.llen(key) for key in ("one", "two", "celery\x06\x169")] == [1, 1, 1]


def test_keys_and_times_are_those_of_the_options(server: Server, client: Any) -> None:
    names = ("pre:held", "pre:held_index", "pre:held_mutex")
    hold(client, [message("old"), "", "celery"], age=8, names=names)
    options = {
        "global_keyprefix": "pre:",
        "visibility_timeout": 7,
        "unacked_key": "held",
        "unacked_index_key": "held_index",
        "unacked_mutex_key": "held_mutex",
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 3,
    }
    broker = RedisBroker(server.url(), namespace="test", options=options)

    assert broker.restore_unacked() == 1
    assert client.llen("pre:celery") == 1
    assert broker.restore_interval == 6 * SECOND
    broker.close()


@pytest.mark.parametrize("name", ["visibility_timeout", "unacked_restore_interval"])
def test_a_time_that_is_none_is_a_bad_setting(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected a number of seconds"):
        RedisBroker("redis://nowhere", namespace="test", options={name: "soon"})


GARBAGE = {
    "bytes": b"\xff\x00",
    "no list": {"body": ""},
    "a number": 7,
    "too short": [message("m"), ""],
    "no message": ["text", "", "celery"],
    "a key that is no text": [message("m"), "", 7],
    "nowhere to go": [message("m"), "", ""],
    "no such exchange": [message("m"), "gone", "gone"],
    "nested too deeply": b"[" * 100_000,
    "its list is another program's": [message("m"), "", "taken"],
}


@pytest.mark.parametrize("row", GARBAGE.values(), ids=GARBAGE)
def test_a_row_of_garbage_stops_nothing_and_is_left_and_said_once(
    broker: RedisBroker, client: Any, row: object, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("taken", "not a list")
    hold(client, row, "bad", age=3700)
    for number in range(3):
        hold(client, [message(f"m{number}"), "", "celery"], f"t{number}", 3650 + number)
    hold(client, [message("after"), "", "celery"], "after", 3900)
    kept = client.hget("unacked", "bad")

    assert broker.restore_unacked() == 4
    assert broker.restore_unacked() == 0

    assert client.hgetall("unacked") == {b"bad": kept}
    [said] = [one for one in caplog.records if one.event == "unacked.left"]  # type: ignore[attr-defined]  # data of the event
    assert "tag b'bad' in unacked cannot be put back" in said.getMessage()
    assert client.get("taken") == b"not a list"


def test_more_garbage_than_one_request_looks_up_hides_nothing(
    broker: RedisBroker, client: Any
) -> None:
    for number in range(250):
        hold(client, b"garbage", f"bad{number}", 3700 + number)
    hold(client, [message("m"), "", "celery"], "t", 9000)

    assert broker.restore_unacked() == 1


def test_a_tag_without_a_message_is_forgotten(broker: RedisBroker, client: Any) -> None:
    client.zadd("unacked_index", {"t": 0})

    assert broker.restore_unacked() == 0
    assert not client.exists("unacked_index")


def test_tags_without_a_message_hide_none_of_the_others(
    broker: RedisBroker, client: Any
) -> None:
    for number in range(250):
        client.zadd("unacked_index", {f"none{number}": 1000 - number})
    for number in range(50):
        hold(client, [message("m"), "", "celery"], f"t{number}")
        client.zadd("unacked_index", {f"t{number}": 870 + number / 100})

    assert broker.restore_unacked() == 50
    assert not client.exists("unacked_index")


def test_keys_of_another_type_are_refused(broker: RedisBroker, client: Any) -> None:
    client.set("unacked_index", "text")

    with pytest.raises(BrokerRefused):
        broker.restore_unacked()

    assert not client.exists("unacked_mutex")
