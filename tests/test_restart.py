"""What a scheduler takes from the settings once, and names when a reload changes it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from beatd import every
from beatd.clock import Wake
from beatd.config.loading import Config, examine_source
from beatd.config.options import Options
from beatd.config.settings import Settings, table
from beatd.config.source import Source
from beatd.service.process import Process
from beatd.service.rereading import TAKEN_ONCE, Taken, needs_restart, taken_once
from beatd.service.wiring.alerting import desk_of
from beatd.service.wiring.answering import answering_of
from beatd.service.wiring.scheduler import scheduler_of
from tests.servers import Server
from tests.test_wiring import let_go

BROKER_ADDRESS = {
    *("broker_url", "broker_write_url", "broker_transport", "broker_host"),
    *("broker_port", "broker_user", "broker_password", "broker_vhost"),
}
RESULT_ADDRESS = {
    *("result_backend", "redis_host", "redis_port", "redis_username"),
    *("redis_password", "redis_db"),
}
ADDRESSES = BROKER_ADDRESS | RESULT_ADDRESS
"""What the two addresses are made from, which are compared as wholes."""

OF_STORING = "it is for those who store results, and a scheduler only reads them"
OF_TASKS = "it is about lines of tasks, and none runs in a scheduler's process"

NO_NEED: Mapping[str, str] = {
    "timezone": "a reload reads the schedules in it; the file has it as a note",
    "enable_utc": "it decides which zone that is where none is named",
    "broker_failover_strategy": "a scheduler stays with one address",
    "result_compression": OF_STORING,
    "result_expires": OF_STORING,
    "result_failure_expires": OF_STORING,
    "result_chord_expires": OF_STORING,
    "result_chord_join_timeout": OF_STORING,
    "worker_task_log_format": OF_TASKS,
    "worker_task_log_datefmt": OF_TASKS,
}
"""What is read at the start as well, and why a change of it needs no restart."""

BEFORE = {"beat_executable"}
"""What is read only by a process that starts itself anew in the background."""


def config(**written: Any) -> Config:
    found = examine_source(Source("conf", written)).config
    assert found is not None
    return found


def recording(settings: Settings) -> tuple[Settings, set[str]]:
    """Return the same settings, and the names of those that were read of them so far.

    What is made from several settings, as an address is, counts as all of these.
    """
    names: set[str] = set()

    class Recording(Settings):
        def __getattribute__(self, name: str) -> Any:
            if name in table():
                names.add(name)
            return super().__getattribute__(name)

    values = {name: getattr(settings, name) for name in table()}
    return Recording(**values), names


def read_by_a_start(config: Config) -> set[str]:
    """Return what a scheduler's process reads until its first slot is queued."""
    settings, names = recording(config.settings)
    config = replace(config, settings=settings)
    process = Process(Options(loglevel="INFO"), "beat", config)
    process.become()
    with process.in_service("beat@here"):
        emit_once(config)
    return names


def emit_once(config: Config) -> None:
    """Run a scheduler until a slot is queued, and ask it which runs have ended."""
    scheduler = scheduler_of(config)
    taken = Taken([], [], [], [], [], "UTC", {})
    answering = answering_of(config, taken, scheduler, [], None)
    answering.stop()
    desk_of(config.settings, taken, scheduler, answering.published).leave()
    inbox: SimpleQueue[Wake] = SimpleQueue()

    def stop_when_queued(_: object) -> None:
        tick = scheduler.file.read().marks.get("tick")
        if tick and tick.runs:
            inbox.put(Wake.STOP)

    scheduler.on_tick = stop_when_queued
    scheduler.run(inbox, lambda: None)
    scheduler.ended(["some-run"])
    let_go(scheduler)


SHOP: Mapping[str, Any] = {
    "beat_schedule": {"tick": {"task": "shop.tick", "schedule": every(0.1)}},
    "task_send_sent_event": True,  # which Redis carries, and a file does not
    "worker_hijack_root_logger": False,  # the handlers of the test stay
}


@pytest.fixture
def starts(tmp_path: Path, server: Server) -> list[Config]:
    """Configs that have a scheduler read, between them, all that it ever reads."""
    in_files = {"beat_schedule_filename": str(tmp_path / "in-files")}
    in_redis = {
        "beat_schedule_filename": str(tmp_path / "in-redis"),
        "broker_url": server.url(),
        "result_backend": server.url(1),
    }
    in_parts = {
        "beat_schedule_filename": str(tmp_path / "in-parts"),
        "broker_transport": "redis",
        "broker_port": server.port,
        "result_backend": "redis",
        "redis_port": server.port,
    }
    return [config(**SHOP, **written) for written in (in_files, in_redis, in_parts)]


def test_all_that_a_start_reads_is_taken_once_or_needs_no_restart(
    starts: list[Config],
) -> None:
    read = set[str]().union(*map(read_by_a_start, starts))

    assert read == (ADDRESSES | NO_NEED.keys() | {*TAKEN_ONCE}) - BEFORE


def test_addresses_are_made_from_these_settings(starts: list[Config]) -> None:
    brokers, results = set[str](), set[str]()
    for one in starts:
        settings, names = recording(one.settings)
        assert settings.write_urls
        brokers |= names
        names.clear()
        assert settings.result_url
        results |= names

    # Where nothing is named, files lie beside the schedule file.
    assert brokers == BROKER_ADDRESS | {"beat_schedule_filename"}
    assert results - brokers == RESULT_ADDRESS


def changed(name: str) -> Settings:
    another: dict[str, Any] = {name: "another"}
    return Settings(**another)


@pytest.mark.parametrize("name", TAKEN_ONCE)
def test_a_change_of_what_is_taken_once_is_named(name: str) -> None:
    assert name in needs_restart(taken_once(Settings()), taken_once(changed(name)))


@pytest.mark.parametrize("name", NO_NEED)
def test_a_change_that_needs_no_restart_is_not_named(name: str) -> None:
    assert needs_restart(taken_once(Settings()), taken_once(changed(name))) == []


def test_a_change_of_an_address_is_named_whatever_part_it_is_of() -> None:
    before = Settings(broker_transport="redis", result_backend="redis")
    after = replace(before, broker_host="elsewhere", redis_db=1)

    assert needs_restart(taken_once(before), taken_once(after)) == [
        "broker_url",
        "result_backend",
    ]
