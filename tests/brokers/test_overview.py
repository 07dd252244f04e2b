"""What people are shown of a broker: what lies there, and who takes it."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import STANDBY_LASTS, SetAside, Suspects
from beatd.instant import HOUR, MINUTE
from beatd.timetable.imprint import Imprint
from tests.brokers.backends import Backend
from tests.brokers.making import lead, outgoing, settle


def test_it_has_lengths_of_queues_and_the_message_that_is_taken_next(
    broker: Broker, other: Broker
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2", priority=9), outgoing(b"3", "mail")])

    seen = other.overview(["celery", "mail", "empty"])

    assert [(one.name, one.length) for one in seen.queues] == [
        ("celery", 2),
        ("mail", 1),
        ("empty", 0),
    ]
    # Redis takes 0 first, as kombu has it; so does every other broker of ours.
    broker.join("w", MINUTE)
    for state in seen.queues[:2]:
        [taken] = broker.take("w", [state.name], 1, ord(state.name[0]) + 1)
        assert state.first == taken.message
        broker.leave("w")
        broker.join("w", MINUTE)
    assert seen.queues[2].first == b""
    assert (seen.workers, seen.dead, seen.standbys) == ([], 0, [])


def test_it_has_who_takes_from_which_queue_and_what_they_hold(
    broker: Broker, other: Broker
) -> None:
    broker.join("w1", MINUTE, ["celery", "mail"])
    broker.join("w2", HOUR, ["celery"])
    broker.send([outgoing(b"1"), outgoing(b"2"), outgoing(b"3")])
    broker.take("w1", ["celery"], 2, 1, suspects=Suspects.IN_COMPANY)

    first, second = other.overview(["celery"]).workers

    assert (first.name, [*first.queues], first.held) == ("w1", ["celery", "mail"], 2)
    assert (second.name, [*second.queues], second.held) == ("w2", ["celery"], 0)
    assert MINUTE - 5000 <= first.left <= MINUTE < second.left


def test_a_worker_tells_other_queues_and_renewing_leaves_them(broker: Broker) -> None:
    broker.join("w", MINUTE, ["celery"])

    broker.join("w", MINUTE, ["mail"])
    broker.stay("w", MINUTE)

    [worker] = broker.overview([]).workers
    assert [*worker.queues] == ["mail"]


def test_a_worker_that_left_or_died_is_not_there(broker: Broker) -> None:
    broker.join("w1", MINUTE, ["celery"])
    broker.leave("w1")

    assert broker.overview(["celery"]).workers == []


def test_what_is_in_flight_or_set_aside_is_not_in_the_queue(broker: Broker) -> None:
    broker.join("w", MINUTE, ["celery"])
    broker.send([outgoing(b"1")])
    [delivery] = broker.take("w", ["celery"], 1, 1)
    settle(broker, "w", SetAside(delivery, "bad"))

    seen = broker.overview(["celery"])

    assert (seen.queues[0].length, seen.dead, seen.workers[0].held) == (0, 1, 0)


def test_who_stands_by_is_there_until_it_is_silent_for_too_long(
    backend: Backend, broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    broker.announce(term, Imprint("d1", b"entries"))
    assert broker.overview([]).standbys == []

    assert other.stand_by("host-b pid 4", "d2") == Imprint("d1", b"entries")
    assert other.stand_by("host-b pid 4", "d2", unless="d1") is None
    assert other.stand_by("host-c pid 7", "") == Imprint("d1", b"entries")

    first, second = broker.overview([]).standbys
    assert (first.name, first.digest) == ("host-b pid 4", "d2")
    assert (second.name, second.digest) == ("host-c pid 7", "")
    assert 0 <= second.heard <= first.heard <= STANDBY_LASTS


def test_a_standby_tells_its_present_entries(broker: Broker, other: Broker) -> None:
    lead(broker)
    other.stand_by("b", "d1")

    assert other.stand_by("b", "d2") is None

    assert [one.digest for one in broker.overview([]).standbys] == ["d2"]


def test_looking_leaves_no_mark(broker: Broker, other: Broker) -> None:
    term = lead(broker)
    broker.announce(term, Imprint("d1"))

    assert other.announced() == Imprint("d1")

    assert broker.overview([]).standbys == []


def test_a_queue_that_is_refused_holds_up_no_other(
    backend: Backend, broker: Broker
) -> None:
    broker.send([outgoing(b"1")])
    backend.refuse("odd")

    odd, fine = broker.overview(["odd", "celery"]).queues

    assert fine.length == 1
    assert not odd.length  # SQLite refuses rows, and knows that there are none


@pytest.mark.parametrize("queues", [[], ["celery"]])
def test_an_empty_broker_has_nothing(broker: Broker, queues: list[str]) -> None:
    seen = broker.overview(queues)

    assert [one.length for one in seen.queues] == [0] * len(queues)
    assert (seen.workers, seen.dead, seen.standbys) == ([], 0, [])


def test_the_messages_of_a_queue_lie_there_in_the_order_in_which_they_are_taken(
    broker: Broker, other: Broker
) -> None:
    assert broker.waiting("celery", 9) == []
    sends = [outgoing(b"1"), outgoing(b"2", priority=9), outgoing(b"3"), outgoing(b"4")]
    broker.send([*sends, outgoing(b"5", "mail")])
    first, second, *_ = waiting = other.waiting("celery", 9)

    broker.join("w", MINUTE)
    taken = broker.take("w", ["celery"], 2, 1)

    assert len(waiting) == 4
    assert [one.message for one in taken] == [first, second]
    assert other.waiting("celery", 9) == waiting[2:]
    assert other.waiting("celery", 1) == waiting[2:3]
