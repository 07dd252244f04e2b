"""What the tests of histories share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _worlds_that_are_over_are_freed() -> Iterator[None]:
    """Leave what the tests before have made out of the collector's sight.

    A world is one large circle. Where much else is in memory the collector looks for
    such circles late, and worlds that are over would lie in memory by the hundred.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
