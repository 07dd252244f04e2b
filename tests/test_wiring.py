"""What settings and options make of a worker's queues."""

import socket
from typing import Any

import pytest

from beatd.config import Config, examine_source
from beatd.errors import ConfigError
from beatd.routing import Queue
from beatd.source import Source
from beatd.wiring import WorkerChoice, queues_of, router_of

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
