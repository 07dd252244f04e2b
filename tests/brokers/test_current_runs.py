"""The current run of an entry ends with whatever holds it: nothing else would tell."""

import json
from collections.abc import Callable

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    DONE,
    GONE,
    Acknowledge,
    Act,
    Begin,
    Delivery,
    GiveBack,
    Outcome,
    Outgoing,
    SetAside,
    Term,
)
from beatd.instant import MINUTE
from beatd.routing import Route
from tests.brokers.backends import Backend
from tests.brokers.making import (
    CELERY,
    NOON,
    emission,
    lead,
    lying_in,
    mark,
    settle,
)
from tests.servers import eventually


@pytest.fixture
def worker(broker: Broker) -> str:
    broker.join("w1", MINUTE)
    return "w1"


def message_of(entry: str, run: str) -> bytes:
    headers = {"id": run, "task": "t", "beatd_entry": entry}
    return json.dumps({"body": "W10=", "headers": headers, "properties": {}}).encode()


def emit(broker: Broker, *runs: tuple[str, str], route: Route = CELERY) -> Term:
    """Emit a slot of each entry, with this task id; return the term."""
    term = lead(broker)
    batch = [
        emission(name, run=run, route=route, message=message_of(name, run))
        for name, run in runs
    ]
    broker.emit(term, batch, MINUTE)
    return term


def take(broker: Broker, worker: str) -> list[Delivery]:
    return broker.take(worker, ["celery"], 9, 1)


def test_a_run_that_is_purged_has_ended(broker: Broker, other: Broker) -> None:
    low = Route("celery", routing_key="celery", priority=9)
    emit(broker, ("a", "id-1"), ("b", "id-2"))
    broker.send([Outgoing(low, b"no message of ours"), Outgoing(CELERY, b"{")])
    broker.send([Outgoing(CELERY, message_of("a", "id-0"))])

    assert other.purge(["celery"]) == 5

    assert broker.running(["a", "b"]) == {}


def test_a_purge_ends_no_run_whose_message_it_leaves(broker: Broker) -> None:
    emit(broker, ("a", "id-1"), route=Route("reports", routing_key="reports"))
    broker.send([Outgoing(CELERY, message_of("a", "id-0"))])

    broker.purge(["celery"])

    assert broker.running(["a"]) == {"a": "id-1"}


def test_more_messages_than_go_in_one_step_are_purged(broker: Broker) -> None:
    emit(broker, ("a", "id-1"))
    broker.send([Outgoing(CELERY, b"%d" % number) for number in range(2500)])

    assert broker.purge(["celery", "empty"]) == 2501

    assert broker.running(["a"]) == {}
    assert lying_in(broker) == []


def test_a_run_that_is_set_aside_has_ended(broker: Broker, worker: str) -> None:
    """Also when nobody could read its message."""
    emit(broker, ("a", "id-1"), ("b", "id-2"))
    broker.send([Outgoing(CELERY, b"{"), Outgoing(CELERY, message_of("b", "id-0"))])
    one, _, bad, old = take(broker, worker)

    settle(broker, worker, *(SetAside(each, "why") for each in (one, bad, old)))

    assert broker.running(["a", "b"]) == {"b": "id-2"}
    assert len(broker.dead_letters()) == 3


def test_removing_an_entry_removes_its_run(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", run="id-1"), emission("b", run="id-2")], MINUTE)

    broker.write_ledger(term, {}, ["a"], 0)

    assert broker.running(["a", "b"]) == {"b": "id-2"}


def test_a_row_that_is_removed_and_set_is_there_without_its_run(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", run="id-1"), emission("b", run="id-2")], MINUTE)

    broker.write_ledger(term, {"a": mark(NOON + MINUTE)}, ["a"], 0)

    assert broker.read_ledger().marks == {"a": mark(NOON + MINUTE), "b": mark(NOON)}
    assert broker.running(["a", "b"]) == {"b": "id-2"}


def test_what_reaches_no_queue_is_no_run(broker: Broker) -> None:
    nowhere = Route("", "media", "nowhere")

    outcomes = broker.emit(
        lead(broker), [emission("a", route=nowhere, run="id-1")], MINUTE
    )

    assert outcomes == [Outcome.DROPPED]
    assert broker.running(["a"]) == {}


# Acknowledged before they run


def test_a_run_acknowledged_early_goes_on_until_it_is_acknowledged_again(
    broker: Broker, worker: str
) -> None:
    emit(broker, ("a", "id-1"), ("b", "id-2"))
    one, two = take(broker, worker)

    begun = settle(broker, worker, Begin(one, "a", "id-1"), Begin(two, "b", "id-2"))

    assert begun == [DONE, DONE]
    assert broker.running(["a", "b"]) == {"a": "id-1", "b": "id-2"}
    assert broker.held_runs(["id-1", "id-2", "id-3"]) == {"id-1", "id-2"}
    assert settle(broker, worker, Acknowledge(one, "a", "id-1")) == [DONE]
    assert settle(broker, worker, Acknowledge(one, "a", "id-1")) == [GONE]
    assert broker.running(["a", "b"]) == {"b": "id-2"}
    broker.join("w2", MINUTE)
    assert take(broker, "w2") == []


@pytest.mark.parametrize("how", ["dies", "leaves"])
def test_a_run_acknowledged_early_ends_with_the_lease(
    broker: Broker, other: Broker, how: str
) -> None:
    broker.join("w1", 1 if how == "dies" else MINUTE)
    term = emit(broker, ("a", "id-1"), ("b", "id-2"))
    one, two = take(broker, "w1")
    settle(broker, "w1", Begin(one, "a", "id-1"), Begin(two, "b", "id-2"))
    broker.emit(term, [emission("b", NOON + 1, run="id-3")], MINUTE)

    if how == "leaves":
        broker.leave("w1")
    else:
        eventually(lambda: other.recover() == 0 and not broker.running(["a"]))

    assert broker.running(["a", "b"]) == {"b": "id-3"}
    assert lying_in(broker) == [b"b@1"]
    assert broker.held_runs(["id-1"]) == set()


def test_a_run_under_a_lease_that_ended_waits_in_its_queue_again(
    broker: Broker, other: Broker
) -> None:
    """One that is acknowledged late runs again: it has not ended."""
    broker.join("w1", 1)
    emit(broker, ("a", "id-1"))
    take(broker, "w1")

    eventually(other.recover)

    assert broker.running(["a"]) == {"a": "id-1"}
    assert broker.held_runs(["id-1"]) == set()


def test_a_run_that_is_tried_again_is_tied_to_no_lease(
    broker: Broker, worker: str
) -> None:
    emit(broker, ("a", "id-1"))
    [one] = take(broker, worker)
    settle(broker, worker, Begin(one, "a", "id-1"))
    again = Outgoing(CELERY, message_of("a", "id-1"))

    settle(broker, worker, Acknowledge(one, "a", "id-1", goes_on=True), sends=[again])
    broker.leave(worker)

    assert broker.running(["a"]) == {"a": "id-1"}
    assert len(lying_in(broker)) == 1


def test_what_is_begun_is_given_back_by_nobody(broker: Broker, worker: str) -> None:
    emit(broker, ("a", "id-1"))
    [one] = take(broker, worker)
    settle(broker, worker, Begin(one, "a", "id-1"))

    assert settle(broker, worker, GiveBack(one)) == [GONE]
    assert settle(broker, worker, SetAside(one, "why")) == [GONE]

    assert broker.running(["a"]) == {"a": "id-1"}
    assert broker.dead_letters() == []
    assert lying_in(broker) == []


def test_what_is_begun_is_set_aside_if_the_act_has_its_way_back(
    broker: Broker, worker: str
) -> None:
    emit(broker, ("a", "id-1"))
    [one] = take(broker, worker)
    settle(broker, worker, Begin(one, "a", "id-1"))

    act = SetAside(one, "why", "proj.a", "id-1", way_back=CELERY)
    assert settle(broker, worker, act) == [DONE]

    assert broker.running(["a"]) == {}
    assert broker.held_runs(["id-1"]) == set()
    [letter] = broker.dead_letters()
    assert (letter.reason, letter.task_id) == ("why", "id-1")
    assert broker.dead_message(letter.id) == one.message


def test_a_delivery_that_was_lost_does_not_begin(broker: Broker, other: Broker) -> None:
    broker.join("w1", 1)
    emit(broker, ("a", "id-1"))
    [lost] = take(broker, "w1")
    eventually(other.recover)

    assert settle(broker, "w1", Begin(lost, "a", "id-1")) == [GONE]

    assert broker.running(["a"]) == {"a": "id-1"}
    assert len(lying_in(broker)) == 1


def test_what_is_no_current_run_begins_too(broker: Broker, worker: str) -> None:
    emit(broker, ("a", ""), ("b", "id-2"))
    one, two = take(broker, worker)

    settle(broker, worker, Begin(one, "a", "id-1"), Begin(two))
    broker.leave(worker)

    assert broker.running(["a", "b"]) == {"b": "id-2"}
    assert lying_in(broker) == []


def test_a_run_in_flight_is_held_as_long_as_the_lease_lasts(
    broker: Broker, worker: str
) -> None:
    emit(broker, ("a", "id-1"), ("b", "id-2"))
    assert broker.held_runs(["id-1"]) == set()

    one, _ = take(broker, worker)

    assert broker.held_runs(["id-1", "id-2", "id"]) == {"id-1", "id-2"}
    settle(broker, worker, Acknowledge(one, "a", "id-1"))
    assert broker.held_runs(["id-1", "id-2"]) == {"id-2"}
    assert broker.held_runs([]) == set()


@pytest.mark.parametrize("end", [Acknowledge, lambda one, *run: SetAside(one, "bad")])
def test_what_was_taken_before_the_data_were_set_back_ends_no_run_begun_after_that(
    backend: Backend, broker: Broker, end: Callable[..., Act]
) -> None:
    broker.join("w", MINUTE)  # its row is older than what is undone
    with backend.set_back():
        emit(broker, ("a", "id-1"))
        [before] = broker.take("w", ["celery"], 9, 1)
    emit(broker, ("b", "id-2"))
    [after] = broker.take("w", ["celery"], 9, 2)
    settle(broker, "w", Begin(after, "b", "id-2"))

    assert settle(broker, "w", end(before, "a", "id-1")) == [GONE]

    assert broker.running(["a", "b"]) == {"b": "id-2"}
    assert settle(broker, "w", Acknowledge(after, "b", "id-2")) == [DONE]
    assert broker.running(["a", "b"]) == {}
