"""What no beatd wrote lies under its keys in Redis: that stops no worker."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from beatd.brokers.items import (
    Acknowledge,
    Act,
    Begin,
    Delay,
    Effect,
    GiveBack,
    SetAside,
    Suspects,
)
from beatd.brokers.redis import RedisBroker
from beatd.clock import SystemClock
from beatd.instant import HOUR, MINUTE
from tests.brokers.making import NOON, lying_in, messages, outgoing, settle
from tests.servers import Server, emptied, eventually

KEY = "{beatd:test}:"

PASSED_OVER = Suspects.PASSED_OVER

NO_HELD_MESSAGES = [
    b"",
    b"scribble",
    b"\xff\x00",
    b"1:2",
    b"x:1:am",
    b"1:99:celery",
    b"1::",
]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with emptied(server), server.client() as client:
        yield client


@pytest.fixture
def broker(server: Server, client: Any) -> Iterator[RedisBroker]:
    broker = RedisBroker(server.url(), namespace="test")
    yield broker
    broker.close()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.__dict__["event"]
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]


def works(broker: RedisBroker) -> None:
    """Have two workers take, settle, die and leave, whatever lies there."""
    broker.send([outgoing(b"%d" % number) for number in range(6)])
    broker.join("dies", 1)
    assert messages(broker.take("dies", ["celery"], 1, 1)) == [b"0"]
    broker.join("w", MINUTE)
    taken = broker.take("w", ["celery"], 9, 1, suspects=PASSED_OVER)
    assert messages(taken) == [b"1", b"2", b"3", b"4", b"5"]
    assert broker.take("w", ["celery"], 9, 1, suspects=PASSED_OVER) == taken
    one, two, three, four, five = taken
    acts: list[Act] = [
        Acknowledge(one),
        Begin(two, "e", "r"),
        GiveBack(three),
        SetAside(four, ""),
    ]
    acts.append(Delay(five, NOON))
    answers = settle(broker, "w", *acts, sends=[outgoing(b"next")])
    again = [
        act
        for act, answer in zip(acts, answers, strict=True)
        if answer.effect is Effect.REFUSED  # for a key that is set aside only now
    ]
    answers = settle(broker, "w", *again)
    assert all(answer.effect is not Effect.REFUSED for answer in answers)
    assert broker.held_runs(["r"]) == set()
    eventually(broker.recover)
    assert broker.stay("w", MINUTE)
    broker.reclaim("w", [], 99)
    broker.leave("w")
    assert set(lying_in(broker)) == {b"0", b"3", b"5", b"next"}


def test_workers_work(broker: RedisBroker) -> None:
    works(broker)


@pytest.mark.parametrize("held", NO_HELD_MESSAGES)
@pytest.mark.parametrize("token", [b"7:1", b"begun:7:2", b"\xff", b"odd"])
def test_what_is_held_and_no_message_is_kept_apart_and_all_else_comes_back(
    broker: RedisBroker,
    client: Any,
    token: bytes,
    held: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2")])
    broker.join("dead", 1)
    taken = broker.take("dead", ["celery"], 9, 1)
    client.hset(f"{KEY}inflight:dead", token, held)
    broker.held_runs(["r"])
    broker.reclaim("dead", [one.token for one in taken], 9)

    assert eventually(broker.recover) == 2
    assert broker.recover() == 0

    assert lying_in(broker) == [b"1", b"2"]
    field = f"{KEY}inflight:dead ".encode() + token
    assert client.hgetall(f"{KEY}unreadable:held") == {field: held}
    assert said(caplog) == ["held.unreadable"]


@pytest.mark.parametrize("held", NO_HELD_MESSAGES)
def test_what_is_delayed_and_no_message_holds_up_no_worker(
    broker: RedisBroker, client: Any, held: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client.zadd(f"{KEY}delayed", {"odd": 1})
    client.hset(f"{KEY}late", "odd", held)

    works(broker)

    assert client.hgetall(f"{KEY}unreadable:held") == {f"{KEY}late odd".encode(): held}
    assert said(caplog) == ["held.unreadable"]


@pytest.mark.parametrize("held", NO_HELD_MESSAGES)
def test_a_delivery_that_was_overwritten_is_refused_and_said(
    broker: RedisBroker, client: Any, held: bytes
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2"), outgoing(b"3"), outgoing(b"4")])
    broker.join("w", MINUTE)
    one, two, three, four = broker.take("w", ["celery"], 4, 1)
    for delivery in (one, two, three):
        client.hset(f"{KEY}inflight:w", delivery.token, held)

    assert messages(broker.take("w", ["celery"], 4, 1)) == [b"4"]
    acts: list[Act] = [
        GiveBack(one),
        SetAside(two, "why"),
        Delay(three, NOON),
        Acknowledge(four),
    ]
    answers = settle(broker, "w", *acts)

    assert [answer.effect.value for answer in answers] == [*["refused"] * 3, "done"]
    assert "is no message that beatd put there" in answers[0].reason
    broker.leave("w")
    assert client.hlen(f"{KEY}unreadable:held") == 3


WRONG = [
    ("workers", "text"),
    ("leases", "text"),
    ("inflight:w", "text"),
    ("inflight:dies", "text"),
    ("answered:w", "hash"),
    ("took:w", "hash"),
    ("serial", "hash"),
    ("serial", "text"),
    ("deliveries", "text"),
    ("delayed", "text"),
    ("late", "text"),
    ("runs", "text"),
]


@pytest.mark.parametrize(("name", "kind"), WRONG)
def test_a_key_of_another_type_is_kept_elsewhere_and_said(
    broker: RedisBroker,
    client: Any,
    name: str,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if kind == "text":
        client.set(KEY + name, "theirs")
    else:
        client.hset(KEY + name, "their", "own")
    kept = client.dump(KEY + name)

    works(broker)

    [key] = client.keys(f"{KEY}unreadable:*:{name}")
    assert client.dump(key) == kept
    assert said(caplog) == ["key.unreadable"]


def put_delayed(broker: RedisBroker, message: bytes) -> None:
    due = SystemClock().now() + HOUR
    broker.send([replace(outgoing(message), due=due)])


LOOKS: list[tuple[str, Callable[[RedisBroker], object]]] = [
    ("delayed", lambda broker: broker.delayed(["celery"], 9)),
    ("late", lambda broker: broker.delayed(["celery"], 9)),
    ("runs", lambda broker: broker.running(["entry"])),
    ("workers", lambda broker: broker.held_runs(["id-1"])),
]


@pytest.mark.parametrize(("name", "look"), LOOKS)
def test_who_only_looks_at_a_key_of_another_type_keeps_it_elsewhere_too(
    broker: RedisBroker,
    client: Any,
    name: str,
    look: Callable[[RedisBroker], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_delayed(broker, b"1")
    client.set(KEY + name, "theirs")

    assert not look(broker)

    [key] = client.keys(f"{KEY}unreadable:*:{name}")
    assert client.get(key) == b"theirs"
    assert said(caplog) == ["key.unreadable"]
    put_delayed(broker, b"2")
    assert b"2" in [one.message for one in broker.delayed(["celery"], 9)]


@pytest.mark.parametrize("score", ["-inf", "inf", "1e300"])
def test_what_is_delayed_until_no_date_holds_up_nobody_who_looks(
    broker: RedisBroker, client: Any, score: str
) -> None:
    put_delayed(broker, b"1")
    for name in client.zrange(f"{KEY}delayed", 0, -1):
        client.execute_command("ZADD", f"{KEY}delayed", score, name)
    put_delayed(broker, b"2")

    found = [one.message for one in broker.delayed(["celery"], 9)]

    assert sorted(found) == [b"1", b"2"]
    assert broker.await_message(["celery"], 1) is (score == "-inf")


@pytest.mark.parametrize(
    ("name", "text"),
    [("took:w", "scribble"), ("answered:w", "scribble"), ("answered:w", "")],
)
def test_a_number_of_a_request_that_is_none_is_none_yet(
    broker: RedisBroker, client: Any, name: str, text: str
) -> None:
    client.set(KEY + name, text)

    works(broker)


def test_a_count_of_deaths_that_is_none_begins_anew(
    broker: RedisBroker, client: Any
) -> None:
    broker.send([outgoing(b"1")])
    digest = "356a192b7913b04c54574d18c28d46e6395428ab"  # of b"1"
    client.hset(f"{KEY}deliveries", digest, "scribble")
    broker.join("dead", 1)
    [delivery] = broker.take("dead", ["celery"], 1, 1)
    assert delivery.deliveries == 1

    assert eventually(broker.recover) == 1

    broker.join("w", MINUTE)
    [delivery] = broker.take("w", ["celery"], 1, 1)
    assert delivery.deliveries == 2


@pytest.mark.parametrize(
    ("worker", "ends", "event"),
    [
        (b"\xff", "1", "worker.unreadable"),
        (b"odd", "inf", "lease.unreadable"),
        (b"odd", "-inf", "lease.unreadable"),
        (b"odd one\n:{}", "1", None),
        (b"", "1", None),
    ],
)
def test_an_odd_worker_keeps_no_other_from_being_recovered(
    broker: RedisBroker,
    client: Any,
    worker: bytes,
    ends: str,
    event: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.execute_command("ZADD", f"{KEY}workers", ends, worker)
    client.hset(f"{KEY}leases", worker, "long")

    works(broker)
    broker.recover()

    assert said(caplog) == ([event] if event else [])


@pytest.mark.parametrize("name", ["runs", "deliveries"])
@pytest.mark.parametrize("act", [Begin, Acknowledge])
def test_an_act_that_is_refused_for_a_key_of_a_wrong_type_is_done_by_the_next_try(
    broker: RedisBroker, client: Any, act: type[Begin | Acknowledge], name: str
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("dies", 1)
    broker.take("dies", ["celery"], 1, 1)
    eventually(broker.recover)  # the message counts one death
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 1)
    client.delete(f"{KEY}{name}")
    client.sadd(f"{KEY}{name}", "another program's")

    [refused] = settle(broker, "w", act(one, "e", "r"))
    held = client.hlen(f"{KEY}inflight:w")
    [done] = settle(broker, "w", act(one, "e", "r"))

    assert refused.effect is Effect.REFUSED
    assert held == 1, "nothing of it was done"
    assert done.effect is Effect.DONE


@pytest.mark.parametrize(
    "name", ["delayed", "late", "dead", "dead_messages", "dead_serial", "deliveries"]
)
def test_a_message_whose_move_is_refused_is_moved_once_when_it_can_be(
    broker: RedisBroker, client: Any, name: str
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2")])
    broker.join("w", MINUTE)
    one, two = broker.take("w", ["celery"], 2, 1)
    client.delete(f"{KEY}{name}")
    client.sadd(f"{KEY}{name}", "another program's")
    acts = Delay(one, NOON), SetAside(two, "why")

    answers = settle(broker, "w", *acts)
    settle(broker, "w", *acts)
    if client.type(f"{KEY}{name}") == b"set":  # else beatd has set it aside
        client.delete(f"{KEY}{name}")
    settle(broker, "w", *acts)

    assert Effect.REFUSED in [one.effect for one in answers]
    assert client.hlen(f"{KEY}late") == client.zcard(f"{KEY}delayed") == 1
    assert client.hlen(f"{KEY}dead_messages") == client.hlen(f"{KEY}dead") == 1
