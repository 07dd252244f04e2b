"""A short soak; `make soak` is the long one."""

from pathlib import Path

import pytest

from tests.soak.__main__ import soak


@pytest.mark.promise
def test_a_minute_of_faults_leaves_every_slot_accounted_for(tmp_path: Path) -> None:
    assert soak(minutes=1, seed=20_261_130, folder=tmp_path) == []
