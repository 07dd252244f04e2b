"""What the leader emits is there for others to compare, as long as it leads."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import Term
from beatd.errors import TermOver
from beatd.instant import MINUTE
from beatd.timetable.imprint import Imprint
from tests.brokers.making import lead

OURS = Imprint("d1", b"\x00\xff of entries")


def test_others_see_what_the_leader_has_announced(
    broker: Broker, other: Broker
) -> None:
    assert other.announced() is None
    term = lead(broker)
    assert other.announced() is None

    broker.announce(term, OURS)

    assert other.announced() == OURS
    assert other.announced(unless="d1") is None
    assert other.announced(unless="d2") == OURS


def test_an_announcement_takes_the_place_of_the_one_before(
    broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    broker.announce(term, OURS)

    broker.announce(term, Imprint("d2"))

    assert other.announced(unless="d1") == Imprint("d2")


def test_an_announcement_ends_with_its_term(broker: Broker, other: Broker) -> None:
    term = lead(broker)
    broker.announce(term, OURS)
    broker.resign(term)

    assert other.announced() is None
    assert isinstance(other.acquire("b", MINUTE, 0), Term)
    assert broker.announced() is None


def test_who_does_not_lead_announces_nothing(broker: Broker, other: Broker) -> None:
    old = lead(broker)
    broker.resign(old)
    term = lead(other)
    other.announce(term, OURS)

    with pytest.raises(TermOver):
        broker.announce(old, Imprint("d2"))

    assert broker.announced() == OURS
