"""Rate limits: as text, and as turns."""

import pytest

from beatd.bounds import rate_of
from beatd.instant import MINUTE, SECOND
from beatd.worker.rate import Turns


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        (None, 0),
        ("", 0),
        (0, 0),
        ("0", 0),
        ("10", 10),
        (2.5, 2.5),
        ("10/s", 10),
        ("30/m", 0.5),
        (" 36/h ", 0.01),
        ("0.5/s", 0.5),
    ],
)
def test_limits_are_read_as_runs_a_second(
    limit: str | float | None, rate: float
) -> None:
    assert rate_of(limit) == pytest.approx(rate)


@pytest.mark.parametrize(
    "limit", ["ten", "10/d", "-1/s", -1, "nan", "inf/s", float("nan"), "1/s/m"]
)
def test_what_is_no_limit_is_refused(limit: str | float) -> None:
    with pytest.raises(ValueError, match=r".+"):
        rate_of(limit)


@pytest.fixture
def turns() -> Turns[str]:
    turns: Turns[str] = Turns()
    turns.limit("slow", 2)
    turns.limit("free", 0)
    return turns


def began(turns: Turns[str], now: int) -> str | None:
    """Let the next one begin whose turn it is."""
    item = turns.next(now)
    if item is not None:
        turns.begin("slow", now)
    return item


def test_the_first_need_not_wait_and_the_next_has_to(turns: Turns[str]) -> None:
    assert not turns.must_wait("slow", 0)
    turns.begin("slow", 0)

    assert turns.must_wait("slow", SECOND // 2 - 1)
    assert not turns.must_wait("slow", SECOND // 2)


def test_those_without_a_limit_never_wait(turns: Turns[str]) -> None:
    turns.begin("free", 0)

    assert not turns.must_wait("free", 0)


def test_turns_come_in_order_at_the_rate(turns: Turns[str]) -> None:
    turns.begin("slow", 0)
    for name in ("a", "b", "c"):
        turns.wait("slow", name)

    assert turns.due() == 500
    assert [began(turns, now) for now in (0, 499, 500, 501, 1000, 1500)] == [
        *(None, None, "a", None, "b", "c"),
    ]
    assert turns.due() is None


def test_nobody_overtakes_one_who_waits(turns: Turns[str]) -> None:
    turns.begin("slow", 0)
    turns.wait("slow", "first")

    assert turns.must_wait("slow", MINUTE)


def test_a_pause_saves_up_no_more_than_one_run(turns: Turns[str]) -> None:
    turns.begin("slow", MINUTE)

    assert turns.must_wait("slow", MINUTE)


def test_a_limit_that_is_taken_away_lets_all_go(turns: Turns[str]) -> None:
    turns.begin("slow", 0)
    turns.wait("slow", "a")
    turns.wait("slow", "b")
    turns.limit("slow", 0)

    assert [began(turns, 1), began(turns, 1)] == ["a", "b"]


def test_those_who_wait_can_be_counted_seen_and_sent_away(turns: Turns[str]) -> None:
    turns.begin("slow", 0)
    turns.wait("slow", "a")
    turns.wait("slow", "b")
    assert (len(turns), list(turns)) == (2, ["a", "b"])

    assert turns.take_out(lambda item: item == "a") == ["a"]
    assert (len(turns), list(turns)) == (1, ["b"])
    assert turns.take_out(lambda item: True) == ["b"]
    assert (len(turns), list(turns), turns.next(MINUTE)) == (0, [], None)
