"""The ledger: how copies of it become one."""

from beatd.instant import HOUR
from beatd.timetable.ledger import LedgerCopy, Mark, merge
from tests.fakes import NOON


def test_of_two_ledgers_the_larger_slot_wins_entry_by_entry() -> None:
    one = {"a": Mark(NOON, "f"), "b": Mark(NOON + 1, "f")}
    other = {"a": Mark(NOON + 1, "f"), "b": Mark(NOON, "f"), "c": Mark(NOON, "f")}

    assert merge(LedgerCopy(one, 2), LedgerCopy(other, 2)) == LedgerCopy(
        {"a": Mark(NOON + 1, "f"), "b": Mark(NOON + 1, "f"), "c": Mark(NOON, "f")}, 2
    )
    # What was written before the clock was set back lies in a future that is no more.
    assert merge(LedgerCopy(one, 2), LedgerCopy(other, 1)) == LedgerCopy(one, 2)


def test_of_ledgers_the_larger_slot_wins_and_of_clock_eras_the_later_one() -> None:
    first, ahead = Mark(NOON, "f"), Mark(NOON + HOUR, "f")
    before = LedgerCopy({"a": ahead, "b": first}, era=0)
    rewound = LedgerCopy({"a": first}, era=1)
    also_rewound = LedgerCopy({"a": ahead, "c": first}, era=1)

    assert merge(before, rewound) == merge(rewound, before) == rewound
    assert merge(rewound, also_rewound, before) == also_rewound
