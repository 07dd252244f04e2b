"""What settings and options make of a worker's queues."""

import logging
import socket
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from beatd import Beatd
from beatd.config.loading import Config, examine_source
from beatd.config.source import Source
from beatd.errors import ConfigError
from beatd.results import connect
from beatd.results.base import Meta, State
from beatd.routing import Queue
from beatd.scheduler.loop import Scheduler
from beatd.service.wiring.choice import WorkerChoice, queues_of, router_of
from beatd.service.wiring.looking import metas_of
from beatd.service.wiring.scheduler import scheduler_of, watch_calls
from tests.servers import Server

QUEUES = {"task_queues": {"fast": {}, "slow": {}}, "task_default_queue": "fast"}


def config(**written: Any) -> Config:
    found = examine_source(Source("conf", written)).config
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (WorkerChoice(), ["fast", "slow"]),
        (WorkerChoice(exclude=["fast"]), ["slow"]),
        (WorkerChoice(queues=["other", "slow"]), ["other", "slow"]),
    ],
)
def test_a_worker_takes_from_the_queues_it_is_told(
    choice: WorkerChoice, expected: list[str]
) -> None:
    assert queues_of(config(**QUEUES), choice) == expected


def test_no_queue_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no queue is left"):
        queues_of(config(), WorkerChoice(exclude=["celery"]))


def test_a_queue_that_is_unknown_and_must_not_be_made_up_is_an_error() -> None:
    strict = config(**QUEUES, task_create_missing_queues=False)

    with pytest.raises(ConfigError, match="no queue 'lsow' in task_queues"):
        queues_of(strict, WorkerChoice(queues=["lsow"]))


def test_a_worker_has_a_queue_of_its_own_whatever_it_is_told_to_leave_out() -> None:
    direct = config(**QUEUES, worker_direct=True)
    node = f"w1@{socket.gethostname()}"
    choice = WorkerChoice("w1@%h", exclude=["slow", f"{node}.dq2"])

    assert queues_of(direct, choice) == ["fast", f"{node}.dq2"]
    own = router_of(direct, choice).queues[f"{node}.dq2"]
    assert own == Queue(f"{node}.dq2", "C.dq2", "direct", node)
    assert f"{node}.dq2" not in direct.router.queues


def test_queues_that_are_made_up_have_exchanges_of_the_type_that_is_set() -> None:
    found = config(task_create_missing_queue_exchange_type="topic")

    assert found.router.queue("new").exchange_type == "topic"
    assert config().router.queue("new").exchange_type == "direct"


def scheduler_with_results(tmp_path: Path, url: str) -> Scheduler:
    written = config(
        result_backend=url,
        broker_url=f"sqlite:///{tmp_path / 'broker.db'}",
        beat_schedule_filename=str(tmp_path / "beat.db"),
    )
    return scheduler_of(written)


def let_go(scheduler: Scheduler) -> None:
    """Close what is left to the end of a scheduler's process."""
    broker: Any = scheduler.broker
    broker.close()
    ended: Any = scheduler.ended
    ended.__self__._backend.close()


def test_a_result_that_cannot_be_read_hides_no_other_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "results.db"
    written = config(result_backend=f"sqlite:///{file}")
    backend = connect(written.settings)
    backend.store([Meta("garbage", State.SUCCESS), Meta("over", State.SUCCESS)])
    with sqlite3.connect(file) as db:
        db.execute("UPDATE results SET data = x'80' WHERE task_id = 'garbage'")
    db.close()
    backend.close()
    scheduler = scheduler_with_results(tmp_path, f"sqlite:///{file}")

    ended = [list(scheduler.ended(["garbage", "over"])) for _ in range(2)]

    let_go(scheduler)
    assert ended == [["over"], ["over"]]
    assert events(caplog) == ["results.unreadable.lost"]
    assert "garbage" in caplog.text


def test_results_that_are_away_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = scheduler_with_results(tmp_path, "redis://127.0.0.1:1/0")

    ended: list[Collection[str]] = [scheduler.ended(["one"]) for _ in range(2)]

    let_go(scheduler)
    assert ended == [(), ()]
    assert events(caplog) == ["results.lost"]


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.__dict__["event"]
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize(("app", "expected"), [(None, False), (Beatd("shop"), True)])
def test_calls_are_watched_for_every_app_whose_code_may_be_called(
    tmp_path: Path, app: Beatd | None, expected: bool
) -> None:
    written = {
        "broker_url": f"sqlite:///{tmp_path / 'broker.db'}",
        "beat_schedule_filename": str(tmp_path / "beat.db"),
    }
    found = examine_source(Source("conf", written, app=app)).config
    assert found is not None

    watch = watch_calls(scheduler_of(found), found)

    assert (watch is not None) is expected


def test_states_of_many_runs_are_asked_for_in_parts(server: Server) -> None:
    found = config(result_backend=server.url())
    backend = connect(found.settings)
    backend.store([Meta("id-2499", State.SUCCESS)])
    backend.close()
    with server.client() as client:
        client.config_resetstat()

        metas, _ = metas_of(found.settings, [f"id-{number}" for number in range(2500)])

        assert [*metas] == ["id-2499"]
        assert client.info("commandstats")["cmdstat_mget"]["calls"] == 3
