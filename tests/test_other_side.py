"""Schedulers and workers at different files of SQLite: each says that it is alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd.brokers.memory import MemoryBroker
from beatd.brokers.sqlite import SQLiteBroker
from beatd.errors import BrokerUnavailable
from beatd.instant import HOUR, SECOND
from beatd.service.other_side import (
    LOOK,
    PATIENCE,
    OtherSide,
    watch_for_scheduler,
    watch_for_workers,
)
from tests.brokers.making import outgoing
from tests.fakes import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def broker(path: Path) -> Iterator[SQLiteBroker]:
    broker = SQLiteBroker(path, namespace="test")
    yield broker
    broker.close()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["event"] for record in caplog.records]


def test_who_is_away_for_long_is_said_once_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, away = FakeClock(), [True]
    side = OtherSide(lambda: away[0], "nobody is here", "side.away", clock)

    def look_for(span: int) -> list[str]:
        caplog.clear()
        end = clock.time + span
        while clock.time < end:
            clock.go_to(clock.time + side.look())
        return events(caplog)

    assert look_for(PATIENCE) == []
    assert look_for(HOUR) == ["side.away"]
    [said] = caplog.records
    assert said.levelname == "WARNING"
    assert "nobody is here; one that was started in another directory" in said.message
    away[0] = False
    assert look_for(LOOK) == []
    away[0] = True
    assert look_for(PATIENCE) == []
    assert look_for(HOUR) == ["side.away"]


def test_a_broker_that_cannot_be_asked_is_not_said_to_be_without_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def ask() -> bool:
        raise BrokerUnavailable("locked")

    assert OtherSide(ask, "", "side.away", FakeClock()).look() == LOOK
    assert events(caplog) == []


def test_messages_that_wait_are_unattended_while_no_worker_has_a_lease(
    broker: SQLiteBroker, path: Path
) -> None:
    assert not broker.is_unattended()
    assert not path.exists(), "who only looks makes no file"

    broker.join("w", HOUR)
    broker.leave("w")
    assert not broker.is_unattended(), "nothing waits"
    broker.send([outgoing(b"1")])
    assert broker.is_unattended()
    broker.join("w", HOUR)
    assert not broker.is_unattended()
    broker.join("w", 0)
    assert broker.is_unattended(), "it was killed, and nobody has buried it"


def test_only_who_has_reason_to_wait_for_the_other_side_looks_for_it(
    broker: SQLiteBroker,
) -> None:
    assert watch_for_scheduler(broker, entries=3)
    assert watch_for_workers(broker, lambda: True)

    assert watch_for_scheduler(broker, entries=0) is None
    assert watch_for_scheduler(MemoryBroker(), entries=3) is None
    assert watch_for_workers(MemoryBroker(), lambda: True) is None
    assert PATIENCE >= 20 * SECOND, "others may just be started anew"
