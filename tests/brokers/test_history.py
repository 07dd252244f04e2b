"""The history beside the ledger: pages with the emissions, rows by entry."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import MOST_PAGES, Outcome, Term
from beatd.errors import LedgerMoved, TermOver
from beatd.instant import MINUTE
from beatd.routing import Route
from beatd.timetable.ledger import Edition
from beatd.timetable.pages import Page
from tests.brokers.backends import Backend
from tests.brokers.making import NOON, emission, lead

FIRST = Edition("lineage", 1)


def stored(broker: Broker) -> list[tuple[int, bytes]]:
    """Return the pages that are not folded yet."""
    return [(page.number, page.stored) for page in broker.read_pages(MOST_PAGES)]


def with_pages(broker: Broker, number: int) -> Term:
    """Have so many pages written; return the term."""
    term = lead(broker)
    for at in range(number):
        broker.emit(term, [emission("a", NOON + at)], MINUTE, page=b"%d" % (at + 1))
    return term


def test_a_page_says_what_became_of_each_emission(
    backend: Backend, broker: Broker, other: Broker
) -> None:
    term = lead(broker)
    backend.refuse("closed")
    broker.emit(term, [emission("known")], MINUTE)
    batch = [
        emission("queued"),
        emission("dropped", route=None),
        emission("known"),
        emission("refused", route=Route("closed")),
        emission("queued", NOON + 1),
    ]
    broker.emit(term, batch, MINUTE, page=b"\x00\xff page")

    assert stored(other) == [(1, b"qdkrq \x00\xff page")]


def test_a_batch_that_is_sent_again_adds_no_page(broker: Broker) -> None:
    term = lead(broker)
    for _ in range(2):
        broker.emit(term, [emission("a")], MINUTE, page=b"page")
    broker.emit(term, [emission("a"), emission("b")], MINUTE, page=b"next")

    assert stored(broker) == [(1, b"q page"), (2, b"kq next")]


def test_a_batch_without_a_page_adds_none(broker: Broker) -> None:
    broker.emit(lead(broker), [emission("a")], MINUTE)

    assert stored(broker) == []


def test_the_ledgers_rows_are_written_with_a_page(broker: Broker) -> None:
    term = lead(broker)
    broker.write_ledger(term, {}, [], 0)
    broker.write_ledger(term, {}, [], 0, FIRST, b"begun")

    assert stored(broker) == [(1, b" begun")]


def test_what_is_refused_as_a_whole_adds_no_page(broker: Broker, other: Broker) -> None:
    term = lead(broker)
    broker.write_ledger(term, {}, [], 0, FIRST)
    broker.resign(term)
    new = lead(other)

    with pytest.raises(TermOver):
        broker.emit(term, [emission("a")], MINUTE, page=b"page")
    with pytest.raises(TermOver):
        broker.write_ledger(term, {}, [], 0, page=b"page")
    with pytest.raises(LedgerMoved):
        other.emit(new, [emission("a")], MINUTE, Edition("another", 9), b"page")

    assert stored(other) == []


def test_pages_are_folded_into_rows(broker: Broker, other: Broker) -> None:
    term = with_pages(broker, 3)
    assert broker.read_pages(2) == [Page(1, b"q 1"), Page(2, b"q 2")]

    broker.fold_pages(term, 2, {"": b"head", "é": b"\x00\xff", "b": b"b"}, ["c"])
    broker.emit(term, [emission("a", NOON + 9)], MINUTE, page=b"4")

    rows, pages = other.read_history()
    assert rows == {"": b"head", "é": b"\x00\xff", "b": b"b"}
    assert pages == [Page(3, b"q 3"), Page(4, b"q 4")]

    broker.fold_pages(term, 4, {"b": b"new"}, ["é", "nobody"])

    assert other.read_history() == ({"": b"head", "b": b"new"}, [])


def test_many_rows_are_written_and_removed_at_once(broker: Broker) -> None:
    term, rows = with_pages(broker, 2), {f"entry-{at}": b"row" for at in range(2500)}

    broker.fold_pages(term, 1, rows, [])
    assert broker.read_history()[0] == rows

    broker.fold_pages(term, 2, {"b": b"row"}, [*rows])
    assert broker.read_history()[0] == {"b": b"row"}


def test_a_request_to_fold_that_arrives_late_changes_nothing(broker: Broker) -> None:
    term = with_pages(broker, 2)
    broker.fold_pages(term, 1, {"a": b"old"}, [])
    broker.fold_pages(term, 2, {"a": b"new"}, [])
    broker.emit(term, [emission("b")], MINUTE, page=b"3")

    broker.fold_pages(term, 1, {"a": b"old"}, [])

    assert broker.read_history() == ({"a": b"new"}, [Page(3, b"q 3")])


def test_nobody_folds_under_a_term_that_is_over(broker: Broker, other: Broker) -> None:
    term = with_pages(broker, 1)
    broker.resign(term)
    lead(other)

    with pytest.raises(TermOver):
        broker.fold_pages(term, 1, {"a": b"row"}, [])

    assert other.read_history() == ({}, [Page(1, b"q 1")])


def test_pages_that_nobody_folds_are_bounded_and_missed_by_their_numbers(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("memory.lead", "sqlite.history", "redis.lead"):
        monkeypatch.setattr(f"beatd.brokers.{kind}.MOST_PAGES", 3)
    with_pages(broker, 5)

    pages = [Page(3, b"q 3"), Page(4, b"q 4"), Page(5, b"q 5")]
    assert broker.read_history() == ({}, pages)


def test_the_history_is_set_back_with_the_ledger(
    backend: Backend, broker: Broker
) -> None:
    term = with_pages(broker, 2)
    broker.fold_pages(term, 1, {"a": b"row"}, [])
    with backend.set_back():
        broker.emit(term, [emission("b")], MINUTE, page=b"3")
        broker.fold_pages(term, 3, {"a": b"lost"}, [])

    assert broker.read_history() == ({"a": b"row"}, [Page(2, b"q 2")])
    broker.emit(term, [emission("c")], MINUTE, page=b"again")
    assert broker.read_pages(9) == [Page(2, b"q 2"), Page(3, b"q again")]
    assert broker.emit(term, [emission("a", NOON)], MINUTE) == [Outcome.KNOWN]
