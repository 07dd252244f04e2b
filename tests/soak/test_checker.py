"""The soak's checker sees what is wrong: each kind of it, by what tasks wrote."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.soak.checker import Account, Evidence, judge
from tests.soak.rows import SECOND, Line, Row, all_rows, config_text, grid
from tests.soak.stage import Deployed, Hurt

BEGIN = 1_800_000_000 * SECOND
TENS = Line("every(10)", grid(10 * SECOND))
SLOTS = [BEGIN + n * 10 * SECOND for n in range(4)]


def of(row: Row, accounts: Mapping[int, Account], runs: Iterable[Any]) -> Evidence:
    """Return the evidence of one row, of 39 s in which nothing was wrong."""
    return Evidence(
        [row], BEGIN, BEGIN + 39 * SECOND, [*runs], {row.name: accounts}, {}, {}, [], []
    )


def ran(slot: int, after: float = 0, lasts: float = 0.5, **more: Any) -> list[Any]:
    """Return the lines of a run that begins so many seconds after its slot."""
    text = datetime.fromtimestamp(slot / SECOND, UTC).isoformat()
    about = ["row", text, more.get("id", f"id-{slot}"), "w0"]
    begin, again = slot / SECOND + after, more.get("again", False)
    return [["begin", *about, begin, again], ["end", *about, begin + lasts, again]]


def sent(slot: int, after: float = 0) -> Account:
    return Account("sent", slot / SECOND + after, "")


def dropped(slot: int, why: str, after: float = 0) -> Account:
    return Account("dropped", slot / SECOND + after, why)


ROW = Row("row", TENS, TENS)
WHOLE = of(ROW, {at: sent(at) for at in SLOTS}, [x for at in SLOTS for x in ran(at)])
SKIP = replace(ROW, keys={"overlap": "skip"})


def with_second(account: Account | None, runs: Iterable[Any] = (), **keys: Any) -> Any:
    """Return evidence in which the second of the slots is another case."""
    accounts = {at: sent(at) for at in SLOTS}
    del accounts[SLOTS[1]]
    if account:
        accounts[SLOTS[1]] = account
    lines = [line for at in SLOTS if at != SLOTS[1] for line in ran(at)]
    return of(replace(ROW, keys=keys), accounts, [*lines, *runs])


def test_nothing_is_wrong_where_each_slot_was_sent_and_ran_once() -> None:
    verdict = judge(WHOLE)

    assert verdict.wrong == []
    assert (verdict.slots, verdict.runs, verdict.by_account["sent"]) == (4, 4, 4)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (with_second(None), "beatd audit does not know this slot"),
        (with_second(Account("missing", None, "")), "beatd audit says missing; 0 runs"),
        (with_second(sent(SLOTS[1])), "sent, and 0 runs of it have begun"),
        (with_second(sent(SLOTS[1]), ran(SLOTS[1])[:1]), "1 runs of it have begun"),
        (
            with_second(sent(SLOTS[1]), [*ran(SLOTS[1]), *ran(SLOTS[1], 1)]),
            "sent twice",
        ),
        (
            with_second(
                sent(SLOTS[1]), [*ran(SLOTS[1]), *ran(SLOTS[1], id="x", again=True)]
            ),
            "it has several ids",
        ),
        (
            with_second(
                sent(SLOTS[1]), [*ran(SLOTS[1]), *ran(SLOTS[1], 1, again=True)]
            ),
            "run again, and nothing was wrong",
        ),
        (
            with_second(dropped(SLOTS[1], "coalesced", 10), ran(SLOTS[1])),
            "it ran, and beatd audit says dropped: coalesced",
        ),
        (with_second(dropped(SLOTS[1], "coalesced", 9)), "do not allow"),
        (
            with_second(dropped(SLOTS[1], "coalesced", 10), coalesce=False),
            "do not allow",
        ),
        (with_second(dropped(SLOTS[1], "misfire", 9)), "do not allow"),
        (
            with_second(dropped(SLOTS[1], "misfire", 2), misfire_grace_time=2),
            "do not allow",
        ),
        (with_second(dropped(SLOTS[1], "paused")), "do not allow"),
        (with_second(dropped(SLOTS[1], "overlap"), overlap="skip"), "do not allow"),
        (with_second(dropped(SLOTS[1], "unroutable")), "do not allow"),
        (
            with_second(sent(SLOTS[1] + 1), ran(SLOTS[1] + 1)),
            "no slot by own reckoning, and it ran",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(evidence: Evidence, words: str) -> None:
    wrong = judge(evidence).wrong

    assert any(words in one for one in wrong), wrong


@pytest.mark.parametrize(
    "evidence",
    [
        with_second(dropped(SLOTS[1], "coalesced", 10)),
        with_second(dropped(SLOTS[1], "coalesced", 20), coalesce=False, max_catchup=2),
        with_second(dropped(SLOTS[1], "misfire", 2.1), misfire_grace_time=2),
    ],
)
def test_what_the_rules_allow_may_be_dropped(evidence: Evidence) -> None:
    assert judge(evidence).wrong == []


def long_first(second: Account, runs: Iterable[Any] = ()) -> Evidence:
    """Return evidence in which the first run lasts until after the second slot."""
    accounts = {at: sent(at) for at in SLOTS} | {SLOTS[1]: second}
    lines = [*ran(SLOTS[0], lasts=15), *ran(SLOTS[2]), *ran(SLOTS[3]), *runs]
    return of(SKIP, accounts, lines)


def test_a_slot_may_be_dropped_while_the_run_before_it_goes_on() -> None:
    assert judge(long_first(dropped(SLOTS[1], "overlap"))).wrong == []


def test_runs_together_are_wrong_but_where_the_worker_was_hurt() -> None:
    evidence = long_first(sent(SLOTS[1]), ran(SLOTS[1]))
    at = SLOTS[0] / SECOND
    excused = replace(evidence, hurts=[Hurt("w0", at + 1, at + 9)])

    (wrong,) = judge(evidence).wrong
    assert "runs while the run of" in wrong
    assert judge(excused).wrong == []


def test_a_paused_entry_that_runs_is_wrong() -> None:
    rests = replace(ROW, rests=True)
    at = BEGIN / SECOND
    changed = [Deployed(at - 90, at - 80, True)]
    paused = {at: dropped(at, "paused") for at in SLOTS}

    assert judge(replace(of(rests, paused, []), deployed=changed)).wrong == []
    wrong = judge(replace(WHOLE, rows=[rests], deployed=changed)).wrong
    assert len(wrong) == len(SLOTS)


@pytest.mark.parametrize("is_changed", [False, True])
def test_both_configs_are_python_and_have_their_entries(is_changed: bool) -> None:
    rows = all_rows(BEGIN, 60)
    names = {row.name for row in rows if (row.changed if is_changed else row.line)}
    found: dict[str, Any] = {}

    exec(config_text(rows, is_changed=is_changed), found)
    assert len(rows) == 200
    assert found["beat_schedule"].keys() == names
