"""Greenlets: the contract in a patched process, and the way to such a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from beatd import greenlets
from beatd.errors import ConfigError
from beatd.pools import create
from beatd.pools.options import PoolOptions
from tests.pools import desk

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", greenlets.NAMES)
def test_the_contract_of_pools_holds_in_a_patched_process(name: str) -> None:
    tests = [HERE / "test_contract.py", HERE / "patched_cases.py"]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.pools.patched", name, *map(str, tests)],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


@pytest.mark.parametrize(
    "line",
    [
        "worker -P gevent",
        "worker -Pgevent -c 100",
        "worker --pool gevent",
        "-A proj worker --pool=gevent",
        "worker -BP gevent",
        "worker -EPgevent",
    ],
)
def test_a_worker_that_is_asked_for_greenlets_patches_itself(line: str) -> None:
    script = (
        "import sys; from beatd import greenlets;"
        "greenlets.patch_for(sys.argv[1:]);"
        "from threading import Thread; import gevent.threading;"
        "kind = greenlets.patched(); print(kind.name if kind else None)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *line.split()],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout == "gevent\n"


@pytest.mark.parametrize(
    "line",
    ["list -P gevent", "worker -P threads", "worker -P", "worker", "", "worker -Q P"],
)
def test_nothing_is_patched_for_others(line: str) -> None:
    greenlets.patch_for(line.split())

    assert greenlets.patched() is None
    assert "gevent" not in sys.modules


@pytest.mark.parametrize("name", greenlets.NAMES)
def test_a_process_that_is_not_patched_is_told_how_to_be(name: str) -> None:
    with pytest.raises(ConfigError, match=f"start with `beatd worker -P {name}`"):
        create(name, desk.runner, print, options=PoolOptions(size=1))


@pytest.mark.parametrize("name", greenlets.NAMES)
def test_what_is_not_installed_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    greenlets.patch_for(["worker", "-P", name])

    with pytest.raises(ConfigError, match=rf"pip install beatd\[{name}\]"):
        create(name, desk.runner, print, options=PoolOptions(size=1))
