"""Where messages land: queues, priorities, exchanges."""

import logging

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import GiveBack, Outcome, Outgoing
from beatd.instant import MINUTE
from beatd.routing import Queue, Route
from tests.brokers.making import CELERY, emission, lead, lying_in, outgoing, settle


def test_messages_lie_in_the_order_in_which_they_were_sent(
    broker: Broker, other: Broker
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2")])
    other.send([outgoing(b"3")])
    broker.send([])

    assert lying_in(other) == [b"1", b"2", b"3"]


def test_the_bytes_of_a_message_are_not_touched(broker: Broker) -> None:
    nasty = [bytes(range(256)), b"", b"\r\n$-1\r\n", b"{}" * 100_000, b"12:celery"]

    broker.send([outgoing(message) for message in nasty])
    broker.emit(lead(broker), [emission("a", message=b"\x00\xff[]1e999")], MINUTE)

    assert lying_in(broker) == [*nasty, b"\x00\xff[]1e999"]


def test_a_lower_priority_number_is_taken_first(broker: Broker) -> None:
    order = [9, 0, 5, 3, 12, -3, 6, 1]

    broker.send([outgoing(str(n).encode(), priority=n) for n in order])

    assert lying_in(broker) == [b"0", b"-3", b"1", b"5", b"3", b"6", b"9", b"12"]


def test_an_emission_has_its_routes_priority(broker: Broker) -> None:
    term = lead(broker)
    late = emission("late", route=Route("celery", priority=7))

    broker.emit(term, [late, emission("soon")], MINUTE)

    assert lying_in(broker) == [b"soon@0", b"late@0"]


def test_each_message_goes_to_its_own_queue(broker: Broker) -> None:
    broker.send([outgoing(b"1", "a"), outgoing(b"2", "b"), outgoing(b"3", "a")])

    assert lying_in(broker, "a") == [b"1", b"3"]
    assert lying_in(broker, "b") == [b"2"]
    assert lying_in(broker, "c") == []


def test_without_a_queue_the_exact_key_of_a_direct_exchange_decides(
    broker: Broker, other: Broker
) -> None:
    other.declare(
        [
            Queue("first", "media", routing_key="video"),
            Queue("second", "media", routing_key="video"),
            Queue("third", "media", routing_key="video.mp4"),
            Queue("elsewhere", "news", routing_key="video"),
        ]
    )

    broker.send([Outgoing(Route("", "media", "video"), b"m")])

    assert [lying_in(broker, q) for q in ("first", "second")] == [[b"m"], [b"m"]]
    assert lying_in(broker, "third", "elsewhere") == []


@pytest.mark.parametrize(
    ("pattern", "key", "reaches"),
    [
        ("media.*", "media.video", True),
        ("media.*", "media.video.mp4", False),
        ("media.*", "media.", False),
        ("media.#", "media.video.mp4", True),
        ("#", "anything.at.all", True),
        ("*.video", "media.video", True),
        ("media.video", "mediaxvideo", False),
        ("media+", "mediaa", False),
    ],
)
def test_a_topic_exchange_matches_words(
    broker: Broker, pattern: str, key: str, reaches: bool
) -> None:
    broker.declare([Queue("q", "media", "topic", pattern)])

    broker.send([Outgoing(Route("", "media", key, "topic"), b"m")])

    assert lying_in(broker, "q") == ([b"m"] if reaches else [])


def test_a_queue_is_reached_by_each_of_its_bindings(broker: Broker) -> None:
    further = Queue("q", "news", "topic", "sports.*")
    broker.declare([Queue("q", "media", routing_key="video", more=(further,))])

    broker.send([Outgoing(Route("", "media", "video"), b"direct")])
    broker.send([Outgoing(Route("", "news", "sports.ball", "topic"), b"topic")])

    assert lying_in(broker, "q") == [b"direct", b"topic"]


def test_an_emission_reaches_every_bound_queue_once(broker: Broker) -> None:
    term = lead(broker)
    broker.declare([Queue("a", "x", routing_key="k"), Queue("b", "x", routing_key="k")])
    batch = [emission("e", route=Route("", "x", "k"))]

    assert broker.emit(term, batch, MINUTE) == [Outcome.QUEUED]
    assert broker.emit(term, batch, MINUTE) == [Outcome.KNOWN]

    assert lying_in(broker, "a") == [b"e@0"]
    assert lying_in(broker, "b") == [b"e@0"]


def test_what_no_queue_is_bound_for_is_dropped_and_said(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    term = lead(broker)
    nowhere = Route("", "media", "no.such.key")

    with caplog.at_level(logging.WARNING):
        broker.send([Outgoing(nowhere, b"m")])
        outcomes = broker.emit(term, [emission("e", route=nowhere)], MINUTE)

    assert outcomes == [Outcome.DROPPED]
    events = [record.__dict__["event"] for record in caplog.records]
    assert events == ["route.unbound", "route.unbound"]
    assert "no.such.key" in caplog.text


def test_declaring_a_queue_twice_binds_it_once(broker: Broker, other: Broker) -> None:
    queue = Queue("q", "media", routing_key="k")
    broker.declare([queue])
    other.declare([queue])

    broker.send([Outgoing(Route("", "media", "k"), b"m")])

    assert lying_in(broker, "q") == [b"m"]


def test_a_purge_removes_what_lies_in_the_queues_whatever_its_priority(
    broker: Broker, other: Broker
) -> None:
    broker.join("w1", MINUTE)
    broker.send([outgoing(b"taken"), outgoing(b"1"), outgoing(b"2", priority=9)])
    broker.send([outgoing(b"kept", "other"), outgoing(b"3", "third", 3)])
    broker.send([Outgoing(CELERY, b"waits", due=2**45)])
    [taken] = broker.take("w1", ["celery"], 1, 1)

    assert other.purge(["celery", "third", "empty"]) == 3

    assert other.purge(["celery", "third"]) == 0
    settle(broker, "w1", GiveBack(taken))
    assert lying_in(broker, "celery", "third", "other") == [b"taken", b"kept"]
    assert [one.message for one in broker.delayed(["celery"], 9)] == [b"waits"]
