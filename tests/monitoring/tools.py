"""Prometheus and promtool as Debian has them: on the path, or fetched without root."""

import fcntl
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.processes import ROOT

FOLDER = ROOT / "build" / "prometheus"
PATIENCE = 120
"""Seconds for a package of 20 MB."""


@cache
def tool(name: str) -> str:
    """Return the path of `promtool` or `prometheus`; skip the test without it."""
    found = shutil.which(name)
    if found:
        return found
    try:
        return str(_fetched(name))
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", "") or error
        pytest.skip(f"no {name}: neither on the path nor to be had from apt: {why}")


def _fetched(name: str) -> Path:
    """Return a program of Debian's package, unpacked in the folder of what is built."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "usr" / "bin" / name
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run tests
        if not path.exists():
            try:
                _run("apt-get", "download", "prometheus")
            except subprocess.CalledProcessError:
                _download_by_own_lists()
            [package] = FOLDER.glob("prometheus_*.deb")
            _run("dpkg", "-x", package.name, ".")
            package.unlink()
    return path


def _download_by_own_lists() -> None:
    """Download the package where nobody has read the lists of packages yet."""
    for name in ("lists/partial", "cache/archives/partial"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    places = {"Dir::State::Lists": FOLDER / "lists", "Dir::Cache": FOLDER / "cache"}
    options = [f"-o{name}={place}" for name, place in places.items()]
    for words in (("update",), ("download", "prometheus")):
        _run("apt-get", *options, *words)


def _run(*words: str) -> None:
    run(words, cwd=FOLDER, timeout=PATIENCE)


def run(
    words: Sequence[str], cwd: Path, timeout: float = 30
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end. Raises CalledProcessError."""
    return subprocess.run(
        words, cwd=cwd, check=True, capture_output=True, text=True, timeout=timeout
    )
