"""The units: systemd finds nothing to complain about, and a tight sandbox."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parent.parent / "systemd").glob("*.service"))

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ,
    reason="systemd-analyze is not installed",
)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units with a program that exists: verify looks for it."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/beatd/bin/beatd", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    return [str(tmp_path / unit.name) for unit in UNITS]


def test_the_units_verify_in_silence(units: list[str]) -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", *units],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("unit", "most"), [("beatd.service", 1.2), ("beatd-worker@.service", 1.3)]
)
def test_the_units_expose_little(units: list[str], unit: str, most: float) -> None:
    path = next(path for path in units if path.endswith(unit))

    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", path],
        capture_output=True,
        text=True,
        check=True,
    )

    level = re.search(r"exposure level.*: ([\d.]+)", result.stdout)
    assert level is not None
    assert float(level[1]) <= most
