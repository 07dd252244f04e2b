"""Which ledger it is, and how many writes it has seen: told by every broker."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import HeldLead, Outcome, Refused, Term
from beatd.brokers.redis import RedisBroker
from beatd.errors import LedgerMoved, TermOver
from beatd.instant import MINUTE
from beatd.routing import Route
from beatd.timetable.ledger import NO_EDITION, Edition
from tests.brokers.backends import Backend
from tests.brokers.making import NOON, emission, lead, lying_in, mark
from tests.servers import Server

QUEUED, KNOWN = Outcome.QUEUED, Outcome.KNOWN

FIRST = Edition("lineage", 1)


def founded(broker: Broker) -> Term:
    """Make the broker's ledger the first of its lineage; return the leader's term."""
    term = lead(broker)
    broker.write_ledger(term, {}, [], 0, FIRST)
    return term


def told(broker: Broker) -> Edition:
    """Return the edition of which a broker tells who is refused the lead."""
    answer = broker.acquire("b", MINUTE, 0)
    assert isinstance(answer, HeldLead)
    return answer.edition


def test_a_ledger_has_no_edition_until_one_is_written(broker: Broker) -> None:
    term = lead(broker)
    assert broker.read_ledger().edition == NO_EDITION

    broker.write_ledger(term, {"a": mark(NOON)}, [], 0)
    assert broker.read_ledger().edition == NO_EDITION

    broker.write_ledger(term, {}, [], 0, FIRST)
    assert broker.read_ledger().edition == FIRST
    assert broker.read_ledger().marks == {"a": mark(NOON)}


def test_an_emission_makes_the_following_edition(broker: Broker, other: Broker) -> None:
    term = founded(broker)
    broker.emit(term, [emission("a")], MINUTE, Edition("lineage", 2))
    broker.emit(term, [], MINUTE, Edition("lineage", 3))

    assert other.read_ledger().edition == Edition("lineage", 3)


def test_an_emission_may_be_made_again_after_a_lost_answer(broker: Broker) -> None:
    term, second = founded(broker), Edition("lineage", 2)

    assert broker.emit(term, [emission("a")], MINUTE, second) == [QUEUED]
    assert broker.emit(term, [emission("a")], MINUTE, second) == [KNOWN]

    assert broker.read_ledger().edition == second


@pytest.mark.parametrize(
    "edition",
    [
        Edition("lineage", 3),  # the broker was set back
        Edition("lineage", 0),  # an emission that arrives late
        Edition("another", 2),
        Edition("", 2),
    ],
)
def test_nothing_is_emitted_to_a_ledger_that_is_not_as_it_was_left(
    broker: Broker, edition: Edition
) -> None:
    term = founded(broker)
    before = broker.read_ledger()

    with pytest.raises(LedgerMoved, match="set back"):
        broker.emit(term, [emission("a"), emission("b", route=None)], MINUTE, edition)

    assert lying_in(broker) == []
    assert broker.read_ledger() == before
    assert broker.renew(term, MINUTE)


def test_a_ledger_that_lost_its_edition_is_not_as_it_was_left(broker: Broker) -> None:
    with pytest.raises(LedgerMoved):
        broker.emit(lead(broker), [emission("a")], MINUTE, Edition("lineage", 2))


def test_a_term_that_is_over_comes_before_the_edition(broker: Broker) -> None:
    term = founded(broker)
    broker.resign(term)

    with pytest.raises(TermOver):
        broker.emit(term, [emission("a")], MINUTE, Edition("another", 9))


def test_a_batch_with_a_refused_emission_makes_its_edition_too(
    backend: Backend, broker: Broker
) -> None:
    term, second = founded(broker), Edition("lineage", 2)
    backend.refuse("taken")
    taken = emission("b", route=Route("taken", routing_key="taken"))

    first, refused = broker.emit(term, [emission("a"), taken], MINUTE, second)

    assert first is QUEUED
    assert isinstance(refused, Refused)
    assert broker.read_ledger().edition == second


def test_who_is_refused_the_lead_is_told_the_edition(
    broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    assert told(other) == NO_EDITION

    broker.write_ledger(term, {}, [], 0, FIRST)
    broker.emit(term, [emission("a")], MINUTE, Edition("lineage", 2))

    assert told(other) == Edition("lineage", 2)


def test_an_edition_tells_of_the_terms_that_made_it(
    broker: Broker, other: Broker
) -> None:
    term, first = lead(broker), Edition("lineage", 9, "1:beef,9:c0ffee")
    broker.write_ledger(term, {}, [], 0, first)
    broker.emit(term, [emission("a")], MINUTE, first.following)

    assert other.read_ledger().edition == told(other) == first.following
    assert first.following.terms == first.terms


def test_a_version_of_another_term_is_not_the_one_that_was_left(
    broker: Broker,
) -> None:
    term = lead(broker)
    broker.write_ledger(term, {}, [], 0, Edition("lineage", 9, "1:beef,9:c0ffee"))

    with pytest.raises(LedgerMoved):
        broker.emit(
            term, [emission("a")], MINUTE, Edition("lineage", 10, "1:beef,8:f00d")
        )


def test_the_edition_outlives_all_rows_and_a_large_write(broker: Broker) -> None:
    term, second = founded(broker), Edition("lineage", 2)
    marks = {f"entry-{n}": mark(NOON) for n in range(2500)}

    broker.write_ledger(term, marks, [], 0, second)
    broker.write_ledger(term, {}, marks.keys(), 0)

    ledger = broker.read_ledger()
    assert ledger.edition == second
    assert ledger.marks == {}
    assert ledger.unreadable == ()


def test_a_server_that_is_set_back_to_its_snapshot_is_not_as_it_was_left() -> None:
    with Server(**{"enable-debug-command": "yes"}) as server, server.client() as client:
        broker = RedisBroker(server.url(), namespace="test")
        term = founded(broker)
        client.save()
        broker.emit(term, [emission("a")], MINUTE, Edition("lineage", 2))
        client.execute_command("DEBUG", "RELOAD", "NOSAVE")

        later = emission("a", NOON + MINUTE)
        with pytest.raises(LedgerMoved):
            broker.emit(term, [later], MINUTE, Edition("lineage", 3))
        assert broker.read_ledger().edition == FIRST
        broker.close()
