"""Notes beside the ledger: what has to outlive the process that leads."""

import pytest

from beatd.brokers.base import Broker
from beatd.errors import TermOver
from tests.brokers.making import lead


def test_notes_are_read_by_others(broker: Broker, other: Broker) -> None:
    assert broker.read_notes("alerts") == {}

    broker.write_notes("alerts", {"": b"head", "é": b"\x00\xff", "b": b"b"})
    broker.write_notes("alerts", {"b": b"new"}, ["é", "nobody"])

    assert other.read_notes("alerts") == {"": b"head", "b": b"new"}


def test_each_book_has_notes_of_its_own(broker: Broker) -> None:
    broker.write_notes("alerts", {"a": b"1"})
    broker.write_notes("paused", {"a": b"2"})
    broker.write_notes("alerts", {}, ["a"])

    assert broker.read_notes("alerts") == {}
    assert broker.read_notes("paused") == {"a": b"2"}


def test_a_note_that_is_set_and_removed_is_there(broker: Broker) -> None:
    broker.write_notes("alerts", {"a": b"1"}, ["a"])

    assert broker.read_notes("alerts") == {"a": b"1"}


def test_many_notes_are_written_and_removed_at_once(broker: Broker) -> None:
    notes = {f"entry-{at}": b"note" for at in range(2500)}
    broker.write_notes("alerts", notes)
    assert broker.read_notes("alerts") == notes

    broker.write_notes("alerts", {"b": b"note"}, [*notes])
    assert broker.read_notes("alerts") == {"b": b"note"}


def test_nobody_writes_notes_under_a_term_that_is_over(
    broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    broker.write_notes("alerts", {"a": b"1"}, term=term)
    broker.resign(term)
    new = lead(other)

    with pytest.raises(TermOver):
        broker.write_notes("alerts", {"a": b"2"}, ["b"], term=term)

    assert other.read_notes("alerts") == {"a": b"1"}
    other.write_notes("alerts", {}, ["a"], term=new)
    assert broker.read_notes("alerts") == {}
