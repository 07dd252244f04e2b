"""In which way a worker stops when it is asked to, once or more often."""

import pytest

from beatd.instant import SECOND
from beatd.worker.inbox import Stop
from beatd.worker.stopping import Stopping

WARM, SOFT, COLD = Stop.WARM, Stop.SOFT, Stop.COLD
NOW = 100 * SECOND


@pytest.mark.parametrize(
    ("how", "asked", "expected"),
    [
        (None, WARM, WARM),
        (None, COLD, SOFT),
        (WARM, WARM, None),
        (WARM, COLD, SOFT),
        (SOFT, WARM, None),
        (SOFT, COLD, COLD),
        (COLD, WARM, None),
        (COLD, COLD, None),
    ],
)
def test_a_busy_worker_is_given_its_grace_time_once(
    how: Stop | None, asked: Stop, expected: Stop | None
) -> None:
    stopping = Stopping(grace=10 * SECOND)
    stopping.how = how

    assert stopping.told(asked, NOW, is_busy=True) is expected


@pytest.mark.parametrize(("grace", "is_busy"), [(0, True), (0, False), (10, False)])
def test_a_cold_stop_is_cold_at_once_where_there_is_nothing_to_wait_for(
    grace: int, is_busy: bool
) -> None:
    stopping = Stopping(grace=grace * SECOND)

    assert stopping.told(COLD, NOW, is_busy=is_busy) is COLD


def test_a_soft_stop_lasts_as_long_as_its_grace_time() -> None:
    stopping = Stopping(grace=10 * SECOND)
    stopping.how = stopping.told(COLD, NOW, is_busy=True)

    last = NOW + 10 * SECOND - 1
    assert not stopping.has_run_out(last)
    assert stopping.left(last, longest=SECOND) == 1
    assert stopping.left(NOW, longest=SECOND) == SECOND
    assert stopping.has_run_out(last + 1)
    assert stopping.left(last + 1, longest=SECOND) == 0


def test_a_warm_stop_never_runs_out() -> None:
    stopping = Stopping(grace=10 * SECOND)
    stopping.how = stopping.told(WARM, NOW, is_busy=True)

    assert not stopping.has_run_out(NOW + 1_000 * SECOND)
