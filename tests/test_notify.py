"""Telling systemd: what becomes of it when systemd does not listen."""

import socket
import threading
from pathlib import Path

import pytest

from beatd.instant import SECOND
from beatd.service.notify import Notify
from tests.servers import PATIENCE


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


def test_a_manager_that_is_not_there_stops_nobody(address: str) -> None:
    Notify(address).ready("up")
    Notify("").ready("up")


def test_a_manager_that_reads_nothing_stops_nobody(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beatd.service.notify.PATIENCE", SECOND // 100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notify = Notify(address)

        def say_too_much() -> None:
            # The kernel keeps so many datagrams, and has the next one wait.
            most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
            for number in range(most + 3):
                notify.ready(f"{number}")

        saying = threading.Thread(target=say_too_much, daemon=True)
        saying.start()
        saying.join(PATIENCE)

        assert not saying.is_alive()
        assert manager.recv(4096) == b"READY=1\nSTATUS=0"


def test_the_watchdog_is_pinged_in_time_and_a_status_told_when_it_changed(
    address: str,
) -> None:
    now = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notify = Notify(address, watchdog=100, elapsed=lambda: now)

        for now, status in (  # noqa: B007 - the clock reads it
            *((0, "standby"), (99, "standby"), (100, "standby")),
            *((150, "leader"), (1050, "leader"), (1060, "leader")),
        ):
            notify.alive(status)
        notify.stopping()

        datagrams: list[str] = []
        while not datagrams or not datagrams[-1].startswith("STOPPING"):
            datagrams.append(manager.recv(4096).decode())
    assert datagrams == [
        *("WATCHDOG=1", "STATUS=standby", "WATCHDOG=1"),
        *("WATCHDOG=1", "STATUS=leader"),
        "STOPPING=1\nSTATUS=stopping",
    ]
