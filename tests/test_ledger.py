"""The ledger: which of several copies is right."""

from functools import reduce

import pytest

from beatd.instant import HOUR
from beatd.timetable.ledger import (
    MOST_TERMS,
    NO_EDITION,
    REMOVED,
    Edition,
    Finding,
    LedgerCopy,
    Mark,
    edition_of,
    finding,
    newest,
    remembered,
    settled,
)
from tests.fakes import NOON

ROWS = {"a": Mark(NOON, "f")}
OURS = Edition("ours", 7)


@pytest.mark.parametrize(
    ("found", "ours", "told", "expected"),
    [
        (OURS, OURS, NO_EDITION, Finding.RIGHT),
        (Edition("ours", 8), OURS, Edition("ours", 6), Finding.RIGHT),
        (Edition("ours", 6), OURS, NO_EDITION, Finding.SET_BACK),
        (OURS, OURS, Edition("ours", 8), Finding.SET_BACK),
        (OURS, NO_EDITION, Edition("ours", 8), Finding.SET_BACK),
        (Edition("theirs", 9), OURS, NO_EDITION, Finding.OTHER),
        (Edition("theirs", 9), NO_EDITION, NO_EDITION, Finding.RIGHT),
        # Made by an earlier build: version 0 of whatever is there.
        (NO_EDITION, OURS, NO_EDITION, Finding.SET_BACK),
        (NO_EDITION, NO_EDITION, NO_EDITION, Finding.RIGHT),
    ],
)
def test_the_edition_says_whether_the_brokers_ledger_is_right(
    found: Edition, ours: Edition, told: Edition, expected: Finding
) -> None:
    there, copy = LedgerCopy(ROWS, 0, found), LedgerCopy(ROWS, 9, ours)

    assert finding(there, copy, told) is expected


def test_a_ledger_without_lineage_and_rows_is_missing() -> None:
    empty = LedgerCopy({}, 0)

    assert finding(empty, LedgerCopy(ROWS, 0, OURS), OURS) is Finding.MISSING
    assert finding(empty, empty, NO_EDITION) is Finding.MISSING
    kept = LedgerCopy({}, 0, OURS)
    assert finding(kept, LedgerCopy(ROWS, 0, OURS), OURS) is Finding.RIGHT


def test_copies_are_compared_by_version_and_never_by_era() -> None:
    memory, file = LedgerCopy(ROWS, 1, OURS), LedgerCopy({}, 9, Edition("ours", 6))

    assert newest(memory, file) is memory
    assert newest(file, memory) is memory
    other = LedgerCopy({}, 9, Edition("theirs", 99))
    assert newest(memory, other) is memory
    assert newest(LedgerCopy({}, 0), file) is file


def test_the_broker_alone_is_right_but_for_rows_that_it_cannot_read() -> None:
    found = LedgerCopy(ROWS, 0, OURS, ("b", "c"))
    file = {name: Mark(NOON + HOUR, "f") for name in "abd"}

    right = settled(found, LedgerCopy(file, 5, OURS), Finding.RIGHT)

    assert right.marks == {"a": ROWS["a"], "b": Mark(NOON + HOUR, "f")}
    assert right.era == 0


def test_what_was_set_back_is_only_written_forward() -> None:
    found = LedgerCopy({"a": Mark(NOON + HOUR, "f"), "b": Mark(NOON, "f")}, 0)
    ours = LedgerCopy({"a": Mark(NOON, "f"), "c": Mark(NOON, "f")}, 0, OURS)

    right = settled(found, ours, Finding.SET_BACK)

    assert right.marks == {
        "a": Mark(NOON + HOUR, "f"),
        "b": Mark(NOON, "f"),
        "c": Mark(NOON, "f"),
    }
    # Marks of an earlier clock era lie in a future that is no more.
    rewound = LedgerCopy({"a": Mark(NOON, "f")}, 1, OURS)
    assert settled(found, rewound, Finding.SET_BACK) == rewound


@pytest.mark.parametrize(
    ("lineage", "version"), [("../x", 1), ("a b", 1), ("a", -1), (b"a", 1), ("a", "1")]
)
def test_what_is_no_edition_is_refused(lineage: object, version: object) -> None:
    with pytest.raises(ValueError, match="no edition"):
        edition_of(lineage, version)


TRUNK = "1:aa,4:bb"


@pytest.mark.parametrize(
    ("one", "other", "shared", "parts"),
    [
        (Edition("x", 9, TRUNK), Edition("x", 9, TRUNK), 9, False),
        (Edition("x", 7, TRUNK), Edition("x", 9, TRUNK), 7, False),
        (Edition("x", 7, TRUNK), Edition("x", 9, f"{TRUNK},8:cc"), 7, False),
        # Set back to version 6 or 3, and written again by another term.
        (Edition("x", 7, TRUNK), Edition("x", 9, f"{TRUNK},7:cc"), 6, True),
        (Edition("x", 9, TRUNK), Edition("x", 7, f"{TRUNK},7:cc"), 6, True),
        (Edition("x", 9, TRUNK), Edition("x", 9, "1:aa,4:cc"), 3, True),
        # A term whose copy lacked the last writes goes on above all versions.
        (Edition("x", 9, TRUNK), Edition("x", 20, f"{TRUNK},7:cc"), 6, True),
        # Nobody knows who wrote them.
        (Edition("x", 7), Edition("x", 9, TRUNK), 7, False),
        # So many terms ago that the other one has forgotten it.
        (Edition("x", 7, TRUNK), Edition("x", 99, "80:dd,90:ee"), 7, False),
        (Edition("x", 9, TRUNK), Edition("y", 9, "1:dd"), 0, False),
    ],
)
def test_terms_tell_how_far_two_ledgers_have_the_same_writes(
    one: Edition, other: Edition, shared: int, parts: bool
) -> None:
    assert one.shared(other) == other.shared(one) == shared
    assert one.parts_from(other) is other.parts_from(one) is parts


def test_a_term_goes_on_from_the_edition_that_it_begins_with() -> None:
    first = Edition("x", 3, "1:aa").begun("bb", 9)
    again = first.following.begun("bb", 11)
    many = reduce(
        lambda edition, n: edition.begun(f"{n:x}", edition.version + 1),
        range(99),
        again,
    )

    assert first == Edition("x", 9, "1:aa,4:bb")
    assert again == Edition("x", 11, "1:aa,4:bb")
    assert len(many.terms.split(",")) == MOST_TERMS
    assert edition_of(*many) == many


def test_of_removed_entries_those_are_remembered_that_ran_last() -> None:
    marks = {
        name: Mark(NOON + n, "f", n + 1, NOON + n, NOON + HOUR)
        for n, name in enumerate("abc")
    }

    kept = remembered({**marks, "never ran": Mark(NOON + HOUR, "f")}, most=2)

    assert kept == {
        "b": Mark(NOON + 1, f"f{REMOVED}", 0, NOON + 1, NOON + HOUR),
        "c": Mark(NOON + 2, f"f{REMOVED}", 0, NOON + 2, NOON + HOUR),
    }
    assert remembered(kept) == kept
