"""Groups of tests that one process of a parallel run has."""

from collections.abc import Iterable
from typing import Any

import pytest


def grouped(name: str, values: Iterable[Any]) -> list[Any]:
    """Return parameters of a fixture that is dear; the tests of each are a group.

    One process makes the fixture, once, and has all tests of that parameter.
    """
    return [
        pytest.param(value, marks=pytest.mark.xdist_group(f"{name} {value}"))
        for value in values
    ]
