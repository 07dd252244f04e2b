"""Histories of crashes, pauses, lost answers and lost disks: each slot once."""

import pytest

from tests.simulation.__main__ import simulate

HOURS = 50


@pytest.mark.parametrize("seed", range(1, 7))
def test_each_slot_comes_once_whatever_the_seed_draws(seed: int) -> None:
    outcome = simulate(seed, HOURS)

    assert outcome.verdict.is_good, f"{outcome.verdict}\nagain: {outcome.command}"
    assert outcome.verdict.slots > 1000
    assert outcome.drawn.total() > 100


def test_a_seed_has_one_history() -> None:
    one, other = simulate(7, 5), simulate(7, 5)

    assert one == other
    assert one != simulate(8, 5)
