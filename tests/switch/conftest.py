"""What tests of projects share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Import a test's own modules from its own folder, and forget them afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] != "beatd":  # else there would be two of its modules
            del sys.modules[name]
