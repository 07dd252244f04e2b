"""One request settles many deliveries, with an answer for each."""

from collections.abc import Sequence

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    DONE,
    GONE,
    Acknowledge,
    Act,
    Begin,
    Delay,
    Delivery,
    Effect,
    GiveBack,
    SetAside,
)
from beatd.clock import SystemClock
from beatd.errors import ItemRefused
from beatd.instant import HOUR, MINUTE
from tests.brokers.backends import Backend, Redis, SQLite
from tests.brokers.making import lying_in, messages, outgoing, take_all
from tests.servers import eventually


@pytest.fixture
def taken(broker: Broker) -> Sequence[Delivery]:
    broker.send([outgoing(b"%d" % number) for number in range(1, 7)])
    broker.join("w", MINUTE)
    return broker.take("w", ["celery"], 5, 1)


def later(delivery: Delivery) -> Act:
    return Delay(delivery, SystemClock().now() + HOUR)


def test_each_act_is_done_and_answered(
    broker: Broker, taken: Sequence[Delivery]
) -> None:
    one, two, three, four, five = taken
    acts: list[Act] = [
        GiveBack(one),
        SetAside(two, "bad"),
        later(three),
        GiveBack(four),
    ]

    answers = broker.settle("w", [*acts, Acknowledge(five)], [outgoing(b"next")], 1)

    assert answers == [DONE] * 5
    assert lying_in(broker) == [b"1", b"4", b"6", b"next"]
    assert [letter.reason for letter in broker.dead_letters()] == ["bad"]
    assert [one.message for one in broker.delayed(["celery"], 9)] == [b"3"]
    broker.leave("w")
    assert len(lying_in(broker)) == 4


def test_what_is_not_in_flight_is_said_to_be_gone(
    broker: Broker, taken: Sequence[Delivery]
) -> None:
    one, two, three, four, five = taken
    broker.settle("w", [Acknowledge(one), later(two), SetAside(three, "bad")], [], 1)

    acts: list[Act] = [
        GiveBack(one),
        Acknowledge(two),
        later(three),
        SetAside(one, "bad"),
    ]
    answers = broker.settle("w", [*acts, GiveBack(four), Acknowledge(five)], [], 2)

    assert answers == [GONE] * 4 + [DONE] * 2
    assert lying_in(broker) == [b"4", b"6"]
    assert len(broker.dead_letters()) == len(broker.delayed(["celery"], 9)) == 1


def test_a_delivery_with_two_acts_is_given_back_only_where_nothing_else_is_done(
    broker: Broker, taken: Sequence[Delivery]
) -> None:
    one, two, *_ = taken

    acts: list[Act] = [
        GiveBack(one),
        Acknowledge(one),
        Acknowledge(two),
        Acknowledge(two),
    ]
    answers = broker.settle("w", acts, [], 1)

    assert answers == [GONE, DONE, DONE, GONE]
    assert lying_in(broker) == [b"6"]


def test_a_request_made_again_does_nothing_more_and_has_the_same_answers(
    broker: Broker, taken: Sequence[Delivery]
) -> None:
    one, two, three, *_ = taken
    broker.settle("w", [Acknowledge(one)], [outgoing(b"a")], 1)
    acts: list[Act] = [Acknowledge(one), GiveBack(two), SetAside(three, "bad")]

    first = broker.settle("w", acts, [outgoing(b"b")], 2)
    [again] = broker.take("w", ["celery"], 1, 2)
    second = broker.settle("w", acts, [outgoing(b"b")], 2)

    assert first == second == [GONE, DONE, DONE]
    assert again.message == b"2"
    assert lying_in(broker) == [b"6", b"a", b"b"]
    assert len(broker.dead_letters()) == 1


RUNS = [("", ""), ("entry", "id-1")]
"""A message of a user's, and one of an entry whose current run may be asked for."""


@pytest.mark.parametrize(("entry", "run"), RUNS)
@pytest.mark.parametrize("how", ["living", "left", "lost"])
def test_runs_that_were_begun_are_so_when_the_request_is_made_again(
    broker: Broker, other: Broker, entry: str, run: str, how: str
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2"), outgoing(b"3")])
    broker.join("w", 1 if how == "lost" else MINUTE)
    one, two, three = broker.take("w", ["celery"], 3, 1)
    broker.settle("w", [Acknowledge(two)], [], 1)
    acts: list[Act] = [Begin(one, entry, run), Begin(two), Acknowledge(three)]

    first = broker.settle("w", acts, [], 2)
    if how == "left":
        broker.leave("w")
    elif how == "lost":
        eventually(lambda: not (other.recover() or broker.stay("w", 1)))
    second = broker.settle("w", acts, [], 2)

    assert first == second == [DONE, GONE, DONE]


@pytest.mark.parametrize(("entry", "run"), RUNS)
def test_a_late_copy_of_a_request_begins_no_run(
    broker: Broker, taken: Sequence[Delivery], entry: str, run: str
) -> None:
    one, two, *_ = taken
    assert broker.settle("w", [Begin(one, entry, run)], [], 5) == [DONE]

    assert broker.settle("w", [Begin(two, entry, run)], [], 4) == [GONE]

    assert broker.settle("w", [Begin(two, entry, run)], [], 6) == [DONE]


def test_what_was_taken_before_the_data_were_set_back_begins_no_run(
    backend: Backend, broker: Broker, taken: Sequence[Delivery]
) -> None:
    with backend.set_back():
        before = broker.take("w", ["celery"], 9, 2)
    after = broker.take("w", ["celery"], 9, 3)
    assert messages(before) == messages(after) == [b"6"]

    acts: list[Act] = [Begin(one) for one in [*before, *after, taken[0]]]
    answers = [broker.settle("w", acts, [], 1) for _ in range(2)]

    assert answers == [[GONE, DONE, DONE]] * 2


def test_what_a_copy_takes_after_the_data_were_set_back_is_not_settled_in_its_place(
    backend: Backend, broker: Broker
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    with backend.set_back():
        broker.purge(["celery"])
        broker.send([outgoing(b"2")])
        [two] = broker.take("w", ["celery"], 9, 1)
    broker.take("w", ["celery"], 9, 1)

    assert broker.settle("w", [Acknowledge(two)], [], 1) == [GONE]

    assert broker.reclaim("w", [two.token], 2) == 1
    assert lying_in(broker) == [b"1"]


def test_what_only_sends_is_done_once_as_well(broker: Broker) -> None:
    broker.join("w", MINUTE)

    for _ in range(2):
        assert broker.settle("w", [], [outgoing(b"only")], 7) == []

    assert lying_in(broker) == [b"only"]


def test_what_a_worker_asks_whose_lease_is_lost_with_the_data_is_done_once(
    backend: Backend, broker: Broker
) -> None:
    broker.ping()
    with backend.set_back():
        broker.join("w", MINUTE)
        broker.settle("w", [], [outgoing(b"before")], 7)

    for _ in range(2):
        broker.settle("w", [], [outgoing(b"8")], 8)
    broker.settle("w", [], [outgoing(b"7, late")], 7)
    broker.join("w", MINUTE)
    broker.settle("w", [], [outgoing(b"8")], 8)

    assert lying_in(broker) == [b"8"]


def test_a_request_that_comes_too_late_does_nothing(
    broker: Broker, taken: Sequence[Delivery]
) -> None:
    one, two, *_ = taken
    broker.settle("w", [Acknowledge(one)], [outgoing(b"a")], 9)

    late = broker.settle(
        "w", [GiveBack(two), Acknowledge(two)], [outgoing(b"b")], 10**9
    )
    answers = broker.settle("w", [Acknowledge(two)], [outgoing(b"c")], 100)

    assert late == [GONE, DONE]
    assert answers == [GONE]
    assert lying_in(broker) == [b"6", b"a", b"b"]


@pytest.mark.parametrize("how", ["leaves", "loses its lease"])
def test_a_copy_that_comes_after_the_lease_has_ended_sends_nothing(
    broker: Broker, other: Broker, how: str
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2")])
    broker.join("w", MINUTE if how == "leaves" else 1)
    one, two = broker.take("w", ["celery"], 2, 1)
    broker.settle("w", [Acknowledge(one)], [outgoing(b"a")], 1)
    done = broker.settle("w", [Acknowledge(two)], [outgoing(b"b")], 2)

    # Both were made again meanwhile, and copies of them are still under way.
    if how == "leaves":
        broker.leave("w")
    else:
        eventually(lambda: not (other.recover() or broker.stay("w", 1)))
    answers = [
        broker.settle("w", [Acknowledge(one)], [outgoing(b"a")], 1),
        broker.settle("w", [Acknowledge(two)], [outgoing(b"b")], 2),
    ]

    assert answers == [[GONE], done]
    assert lying_in(broker) == [b"a", b"b"]


def test_a_worker_that_begins_another_lease_goes_on_counting(
    broker: Broker, other: Broker
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("w", 1)
    [one] = broker.take("w", ["celery"], 1, 5)
    broker.settle("w", [Acknowledge(one)], [outgoing(b"a")], 5)
    eventually(lambda: not (other.recover() or broker.stay("w", 1)))
    broker.join("w", MINUTE)

    taken = broker.take("w", ["celery"], 9, 4)
    answers = broker.settle("w", [Acknowledge(one)], [outgoing(b"b")], 4)

    assert taken == []
    assert answers == [GONE]
    assert lying_in(broker) == [b"a"]


def test_each_worker_counts_its_own_requests(
    broker: Broker, other: Broker, taken: Sequence[Delivery]
) -> None:
    other.join("v", MINUTE)
    [theirs] = other.take("v", ["celery"], 1, 1)

    assert broker.settle("w", [Acknowledge(taken[0])], [outgoing(b"a")], 5) == [DONE]
    assert other.settle("v", [Acknowledge(theirs)], [outgoing(b"b")], 5) == [DONE]

    assert lying_in(broker) == [b"a", b"b"]


def test_what_others_hold_by_now_is_gone_and_what_follows_is_sent(
    broker: Broker, other: Broker
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("w", 1)
    [lost] = broker.take("w", ["celery"], 1, 1)
    eventually(other.recover)

    assert broker.settle("w", [Acknowledge(lost)], [outgoing(b"next")], 1) == [GONE]

    other.join("v", MINUTE)
    assert messages(take_all(other, "v", ["celery"])) == [b"1", b"next"]


def test_nothing_is_done_with_a_message_that_is_refused(
    backend: Backend, broker: Broker, taken: Sequence[Delivery]
) -> None:
    backend.refuse("taken")
    one, *_ = taken
    refused = outgoing(b"no", "taken")

    with pytest.raises(ItemRefused):
        broker.settle("w", [Acknowledge(one)], [outgoing(b"a"), refused], 1)
    with pytest.raises(ItemRefused):
        broker.send([outgoing(b"b"), refused])

    assert broker.settle("w", [Acknowledge(one)], [outgoing(b"c")], 2) == [DONE]
    assert lying_in(broker) == [b"6", b"c"]


def test_an_act_that_is_refused_holds_up_no_other(
    backend: Backend, broker: Broker, taken: Sequence[Delivery]
) -> None:
    if not isinstance(backend, SQLite | Redis):
        pytest.skip("memory refuses no act")
    backend.refuse_dead_letters()
    one, two, three, *_ = taken
    acts: list[Act] = [Acknowledge(one), SetAside(two, "bad"), GiveBack(three)]

    answers = [broker.settle("w", acts, [outgoing(b"a")], 1) for _ in range(2)]

    for done, refused, given in answers:
        assert done == given == DONE
        assert refused.effect is Effect.REFUSED
        assert refused.reason
    assert lying_in(broker) == [b"3", b"6", b"a"]
    broker.leave("w")
    assert b"2" in lying_in(broker), "it stayed in flight"
