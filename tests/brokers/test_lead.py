"""Who may emit: one leader at a time, terms that only grow, a lead that runs out."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import HeldLead, Term
from beatd.clock import SystemClock
from beatd.errors import TermOver
from beatd.instant import MINUTE, SECOND
from tests.brokers.backends import LEASED
from tests.brokers.making import emission, taken
from tests.servers import PATIENCE, eventually


def test_one_leads_and_says_who_it_is(broker: Broker, other: Broker) -> None:
    assert broker.leader() is None

    term = broker.acquire("host-a, pid 17", MINUTE, 0)

    assert isinstance(term, Term)
    assert not isinstance(other.acquire("host-b, pid 4", MINUTE, 0), Term)
    assert other.leader() == "host-a, pid 17"


def test_terms_are_never_equal_and_their_numbers_grow(broker: Broker) -> None:
    terms = []
    for _ in range(3):
        term = broker.acquire("a", MINUTE, 0)
        assert isinstance(term, Term)
        terms.append(term)
        broker.resign(term)

    assert [term.number for term in terms] == [1, 2, 3]
    assert len({term.nonce for term in terms}) == 3


def test_a_number_is_above_the_floor(broker: Broker, other: Broker) -> None:
    first = broker.acquire("a", MINUTE, 41)
    assert isinstance(first, Term)
    broker.resign(first)

    second = other.acquire("b", MINUTE, 7)

    assert first.number == 42
    assert isinstance(second, Term)
    assert second.number == 43


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_a_lead_that_is_not_renewed_runs_out(broker: Broker, other: Broker) -> None:
    first = broker.acquire("a", 50, 0)
    assert isinstance(first, Term)

    second = eventually(lambda: taken(other, "b"))

    assert second.number > first.number
    assert not broker.renew(first, MINUTE)
    assert other.leader() == "b"


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_who_is_refused_is_told_how_long_the_lead_lives(
    broker: Broker, other: Broker
) -> None:
    term = broker.acquire("a", MINUTE, 0)

    answer = other.acquire("b", MINUTE, 0)

    assert isinstance(answer, HeldLead)
    assert answer.term == term
    assert 0 < answer.left <= MINUTE


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_a_lead_that_ran_out_was_not_given_back(broker: Broker, other: Broker) -> None:
    assert broker.last_resigned() is None
    first = broker.acquire("a", MINUTE, 0)
    assert isinstance(first, Term)
    broker.resign(first)
    assert other.last_resigned() == first

    second = broker.acquire("a", 50, 0)
    assert isinstance(second, Term)
    eventually(lambda: taken(other, "b"))

    assert other.last_resigned() == first


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_renewing_holds_the_lead_for_longer(broker: Broker, other: Broker) -> None:
    term = broker.acquire("a", 50, 0)
    assert isinstance(term, Term)
    if not broker.renew(term, MINUTE):  # this machine was away for 50 ms
        broker.acquire("a", MINUTE, 0)

    threading.Event().wait(0.1)

    assert not isinstance(other.acquire("b", MINUTE, 0), Term)


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_an_emission_holds_the_lead_for_longer(broker: Broker, other: Broker) -> None:
    def emits() -> bool:
        term = broker.acquire("a", 100, 0)
        with suppress(TermOver):  # this machine was away for 100 ms
            if isinstance(term, Term):
                return bool(broker.emit(term, [emission("entry")], MINUTE))
        return False

    eventually(emits)
    threading.Event().wait(0.2)

    assert not isinstance(other.acquire("b", MINUTE, 0), Term)


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_a_lead_that_runs_out_wakes_who_waits_for_it(
    broker: Broker, other: Broker
) -> None:
    assert isinstance(broker.acquire("a", 100, 0), Term)
    begin = time.monotonic()

    assert other.await_release(int(PATIENCE) * SECOND) is True

    assert time.monotonic() - begin < PATIENCE / 2


def test_a_term_of_the_same_number_is_not_the_leaders(broker: Broker) -> None:
    term = broker.acquire("a", MINUTE, 0)
    assert isinstance(term, Term)
    forged = Term(term.number, "another nonce")

    assert not broker.renew(forged, MINUTE)
    broker.resign(forged)

    assert broker.renew(term, MINUTE)


def test_who_resigns_makes_room_at_once(broker: Broker, other: Broker) -> None:
    term = broker.acquire("a", MINUTE, 0)
    assert isinstance(term, Term)

    broker.resign(term)

    assert broker.leader() is None
    assert isinstance(other.acquire("b", MINUTE, 0), Term)
    broker.resign(term)
    assert other.leader() == "b"


def test_a_resignation_wakes_who_waits_for_it(broker: Broker, other: Broker) -> None:
    term = broker.acquire("a", MINUTE, 0)
    assert isinstance(term, Term)
    with ThreadPoolExecutor() as threads:
        woken = threads.submit(other.await_release, int(PATIENCE) * SECOND)
        # However late the waiting begins: it must not outlast a resignation by much.
        while not woken.done():
            broker.resign(term)
            threading.Event().wait(0.01)
            term = taken(broker, "a") or term

    assert woken.result() is True


def test_waiting_for_a_release_that_does_not_come_ends(
    broker: Broker, other: Broker
) -> None:
    assert isinstance(broker.acquire("a", MINUTE, 0), Term)

    assert other.await_release(20) is False


def test_a_lead_that_stays_free_wakes_nobody(broker: Broker) -> None:
    # Where it cannot be taken (a full disk), they would ask again without a pause.
    assert broker.await_release(20) is False


def test_a_broker_tells_what_its_clock_shows(broker: Broker) -> None:
    before = SystemClock().now()

    told = broker.time()

    # It is this machine's clock; a server counts in steps of its own.
    assert before - SECOND <= told <= SystemClock().now() + SECOND
