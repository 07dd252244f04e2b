"""Messages and the ledger in one step, under a term."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import Acknowledge, Emission, Outcome, Refused, Term
from beatd.errors import TermOver
from beatd.instant import MINUTE
from beatd.routing import Queue, Route
from beatd.timetable.ledger import Mark
from tests.brokers.backends import LEASED, Backend
from tests.brokers.making import (
    CELERY,
    NOON,
    emission,
    lead,
    lying_in,
    mark,
    settle,
    taken,
)
from tests.servers import eventually

QUEUED, DROPPED, KNOWN = Outcome.QUEUED, Outcome.DROPPED, Outcome.KNOWN

TAKEN = Route("taken", routing_key="taken")
"""To the queue that some cases have the broker refuse."""

NOWHERE = Route("", "media", "nowhere")
"""To an exchange to which no queue is bound."""


def test_an_emission_is_queued_and_in_the_ledger(broker: Broker, other: Broker) -> None:
    term = lead(broker)

    assert broker.emit(term, [emission("report")], MINUTE) == [QUEUED]

    assert lying_in(other) == [b"report@0"]
    assert other.read_ledger().marks == {"report": mark(NOON)}


def test_a_batch_that_is_sent_again_queues_nothing_twice(broker: Broker) -> None:
    term = lead(broker)
    batch = [emission(f"entry-{i}") for i in range(50)]

    assert broker.emit(term, batch, MINUTE) == [QUEUED] * 50
    assert broker.emit(term, batch, MINUTE) == [KNOWN] * 50

    assert lying_in(broker) == [f"entry-{i}@0".encode() for i in range(50)]


def test_a_slot_whose_message_was_run_and_is_gone_is_known(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("report")], MINUTE)
    broker.join("w1", MINUTE)
    [taken] = broker.take("w1", [CELERY.queue], 10, 1)
    settle(broker, "w1", Acknowledge(taken))

    assert broker.emit(term, [emission("report")], MINUTE) == [KNOWN]

    assert lying_in(broker) == []


def test_a_slot_before_the_ledgers_is_known(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("report", NOON + MINUTE)], MINUTE)

    assert broker.emit(term, [emission("report", NOON)], MINUTE) == [KNOWN]

    assert broker.read_ledger().marks == {"report": mark(NOON + MINUTE)}


def test_a_batch_may_hold_several_slots_of_one_entry(broker: Broker) -> None:
    term = lead(broker)
    batch = [emission("a", NOON + slot) for slot in (1, 2, 2, 1, 3)]

    outcomes = broker.emit(term, batch, MINUTE)

    assert outcomes == [QUEUED, QUEUED, KNOWN, KNOWN, QUEUED]
    assert lying_in(broker) == [b"a@1", b"a@2", b"a@3"]


def test_known_and_new_emissions_mix_in_one_batch(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("b")], MINUTE)

    batch = [emission("a"), emission("b"), emission("c")]

    assert broker.emit(term, batch, MINUTE) == [QUEUED, KNOWN, QUEUED]
    assert lying_in(broker) == [b"b@0", b"a@0", b"c@0"]


def test_a_dropped_slot_moves_only_the_ledger(broker: Broker) -> None:
    term = lead(broker)
    drop = emission("report", route=None)

    assert broker.emit(term, [drop], MINUTE) == [DROPPED]
    assert broker.emit(term, [drop], MINUTE) == [KNOWN]

    assert lying_in(broker) == []
    assert broker.read_ledger().marks == {"report": mark(NOON)}


def test_an_empty_batch_is_no_error(broker: Broker) -> None:
    assert broker.emit(lead(broker), [], MINUTE) == []


def test_a_batch_of_thousands_is_one_step(broker: Broker) -> None:
    term = lead(broker)
    batch = [emission(f"entry-{i}") for i in range(3000)]

    assert broker.emit(term, batch, MINUTE) == [QUEUED] * 3000

    assert len(broker.read_ledger().marks) == 3000


def test_a_former_leader_emits_nothing(broker: Broker, other: Broker) -> None:
    old = lead(broker)
    broker.resign(old)
    lead(other)

    with pytest.raises(TermOver):
        broker.emit(old, [emission("a"), emission("b", route=None)], MINUTE)

    assert lying_in(other) == []
    assert other.read_ledger().marks == {}


def test_nobody_emits_while_nobody_leads(broker: Broker) -> None:
    term = lead(broker)
    broker.resign(term)

    with pytest.raises(TermOver):
        broker.emit(term, [emission("a")], MINUTE)


def test_a_term_that_only_looks_like_the_leaders_is_refused(broker: Broker) -> None:
    term = lead(broker)

    for forged in (Term(term.number, ""), Term(term.number, term.nonce[:-1])):
        with pytest.raises(TermOver):
            broker.emit(forged, [emission("a")], MINUTE)


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_emitting_renews_the_lead(broker: Broker, other: Broker) -> None:
    term = broker.acquire("a", 2000, 0)
    assert isinstance(term, Term)

    broker.emit(term, [], 40)

    assert eventually(lambda: taken(other, "b")).number > term.number


def test_a_mark_comes_back_as_it_was_written(broker: Broker) -> None:
    term = lead(broker)
    marks = {
        "": Mark(0, ""),
        "täglich um zwölf\n": Mark(NOON, "0 12 * * *; Europe/Berlin; größer", 7, 3),
        "before the epoch": Mark(-62_135_596_800_000, "a b  c ", 0, -1),
        "a\x00b": Mark(NOON, "-", 2**40, None),
        "set back": Mark(NOON, "f ^9 -", 1, NOON - 1, NOON + MINUTE),
        "set back, new": Mark(NOON, "f", 0, None, -5),
    }

    broker.write_ledger(term, marks, [], 3)

    assert broker.read_ledger().marks == marks
    assert broker.read_ledger().era == 3


def test_the_era_is_0_at_first(broker: Broker) -> None:
    assert broker.read_ledger().era == 0


def test_the_ledger_can_be_rewound_under_the_term(
    broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", NOON + MINUTE), emission("b")], MINUTE)

    broker.write_ledger(term, {"a": mark(NOON)}, ["b", "never there"], 1)

    assert other.read_ledger().marks == {"a": mark(NOON)}
    assert other.read_ledger().era == 1
    assert broker.emit(term, [emission("a", NOON + MINUTE)], MINUTE) == [QUEUED]


def test_a_former_leader_does_not_write_the_ledger(broker: Broker) -> None:
    old = lead(broker)
    broker.resign(old)
    broker.emit(lead(broker), [emission("a")], MINUTE)

    with pytest.raises(TermOver):
        broker.write_ledger(old, {"a": mark(NOON - 1), "b": mark(1)}, ["a"], 9)

    assert broker.read_ledger().marks == {"a": mark(NOON)}
    assert broker.read_ledger().era == 0


def test_a_large_ledger_is_read_whole(broker: Broker) -> None:
    term = lead(broker)
    marks = {f"entry-{i}": mark(NOON + i) for i in range(5000)}

    broker.write_ledger(term, marks, [], 0)

    assert broker.read_ledger().marks == marks


def test_a_run_is_remembered_when_it_is_asked_for(
    broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    batch = [emission("a", run="id-1"), emission("b"), emission("c", run="id-2")]

    broker.emit(term, batch, MINUTE)

    assert other.running(["a", "b"]) == {"a": "id-1"}
    assert other.running([]) == {}


def test_a_known_emission_does_not_become_the_current_run(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", run="id-1")], MINUTE)
    broker.end_runs({"a": "id-1"})

    broker.emit(term, [emission("a", run="id-1")], MINUTE)

    assert broker.running(["a"]) == {}


def test_only_the_current_run_can_be_ended(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", NOON, run="id-1")], MINUTE)
    broker.emit(term, [emission("a", NOON + 1, run="id-2")], MINUTE)

    broker.end_runs({"a": "id-1", "never ran": "id-9"})
    assert broker.running(["a"]) == {"a": "id-2"}

    broker.end_runs({"a": "id-2"})
    assert broker.running(["a"]) == {}


def test_what_reaches_no_queue_moves_only_the_slot_on(broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", NOON)], MINUTE)
    later = [
        Emission("a", mark(NOON + 1, runs=2), NOWHERE, b"1"),
        Emission("a", mark(NOON + 2, runs=3), NOWHERE, b"2"),
        Emission("new", mark(NOON + 1), NOWHERE, b"3"),
    ]

    assert broker.emit(term, later, MINUTE) == [DROPPED] * 3
    assert broker.emit(term, later, MINUTE) == [KNOWN] * 3

    assert broker.read_ledger().marks == {
        "a": mark(NOON)._replace(slot=NOON + 2),
        "new": mark(NOON + 1)._replace(runs=0, last=None),
    }


def test_an_emission_that_is_refused_holds_up_no_other(
    backend: Backend, broker: Broker
) -> None:
    term = lead(broker)
    broker.emit(term, [emission("b", NOON - 1, route=None)], MINUTE)
    backend.refuse("taken")
    batch = [emission("a"), emission("b", route=TAKEN, run="id"), emission("c")]

    first, refused, last = broker.emit(term, batch, MINUTE)

    assert (first, last) == (QUEUED, QUEUED)
    assert isinstance(refused, Refused)
    assert "taken" in refused.reason
    assert lying_in(broker) == [b"a@0", b"c@0"]
    assert broker.read_ledger().marks == {
        "a": mark(NOON),
        "b": mark(NOON - 1),
        "c": mark(NOON),
    }
    assert broker.running(["b"]) == {}


def test_what_was_refused_is_queued_once_when_it_is_accepted(
    backend: Backend, broker: Broker
) -> None:
    term = lead(broker)
    backend.refuse("taken")
    batch = [emission("a"), emission("b", route=TAKEN)]
    for _ in range(3):
        broker.emit(term, batch, MINUTE)
    assert broker.read_ledger().marks == {"a": mark(NOON)}

    backend.admit("taken")

    assert broker.emit(term, batch, MINUTE) == [KNOWN, QUEUED]
    assert broker.emit(term, batch, MINUTE) == [KNOWN, KNOWN]
    assert lying_in(broker, "celery", "taken") == [b"a@0", b"b@0"]


def test_a_message_to_several_queues_lies_in_all_of_them_or_in_none(
    backend: Backend, broker: Broker
) -> None:
    term = lead(broker)
    for name in ("first", "taken", "third"):
        broker.declare([Queue(name, "news", "topic", "sports")])
    backend.refuse("taken")
    to_all = emission("b", route=Route("", "news", "sports", "topic"))

    outcomes = broker.emit(term, [emission("a"), to_all, emission("c")], MINUTE)

    assert [isinstance(one, Refused) for one in outcomes] == [False, True, False]
    assert lying_in(broker, "celery", "first", "third") == [b"a@0", b"c@0"]
    assert broker.read_ledger().marks == {"a": mark(NOON), "c": mark(NOON)}
    backend.admit("taken")
    assert broker.emit(term, [to_all], MINUTE) == [QUEUED]
    assert lying_in(broker, "first", "taken", "third") == [b"b@0"] * 3


def test_no_later_slot_of_an_entry_passes_one_that_is_refused(
    backend: Backend, broker: Broker
) -> None:
    term = lead(broker)
    backend.refuse("taken")
    batch = [
        emission("a", NOON + 1),
        emission("a", NOON + 2, route=TAKEN),
        emission("a", NOON + 3),
        emission("a", NOON + 4, route=None),
        emission("a", NOON + 1),
        emission("b"),
    ]

    outcomes = broker.emit(term, batch, MINUTE)

    assert [one for one in outcomes if not isinstance(one, Refused)] == [
        QUEUED,
        KNOWN,
        QUEUED,
    ]
    assert broker.read_ledger().marks == {"a": mark(NOON + 1), "b": mark(NOON)}
    assert lying_in(broker) == [b"a@1", b"b@0"]


def test_a_slot_that_is_known_is_not_refused(backend: Backend, broker: Broker) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a")], MINUTE)
    backend.refuse("taken")

    assert broker.emit(term, [emission("a", route=TAKEN)], MINUTE) == [KNOWN]


def test_a_batch_that_is_refused_whole_renews_the_lead(
    backend: Backend, broker: Broker
) -> None:
    term = lead(broker)
    backend.refuse("taken")

    [refused] = broker.emit(term, [emission("a", route=TAKEN)], MINUTE)

    assert isinstance(refused, Refused)
    assert broker.renew(term, MINUTE)
