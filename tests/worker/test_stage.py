"""Batches that are done until they succeed, and what is said of troubles."""

import logging
import threading
from collections.abc import Sequence

import pytest

from beatd.errors import BrokerUnavailable
from beatd.instant import SECOND
from beatd.worker.stage import BATCH, Backoff, BatchWorker, Outage
from tests.servers import PATIENCE, eventually


class Work:
    """Notes its batches; the first few may fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.tried: list[list[int]] = []
        self.done: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: Sequence[int]) -> None:
        self.gate.wait(PATIENCE)
        self.tried.append(list(batch))
        if len(self.tried) <= self.failures:
            raise BrokerUnavailable("nobody answers")
        self.done += batch


def stage_of(work: Work) -> BatchWorker[int]:
    return BatchWorker(work, BrokerUnavailable, Outage("the broker is away", "broker"))


def crashed(error: BaseException) -> None:
    raise AssertionError from error


def test_what_is_put_in_is_done_in_order_and_in_batches() -> None:
    work = Work()
    stage = stage_of(work)
    for number in range(BATCH + 5):
        stage.put(number)

    while stage.turn():
        pass

    assert work.done == list(range(BATCH + 5))
    assert [len(batch) for batch in work.tried] == [BATCH, 5]


def test_a_batch_that_failed_is_done_again_as_it_was() -> None:
    work = Work(failures=2)
    stage = stage_of(work)
    stage.put(1)
    stage.start("test", crashed)
    eventually(lambda: work.tried)
    stage.put(2)

    assert stage.stop(10 * SECOND) is True
    assert work.tried == [[1], [1], [1], [2]]


def test_a_stop_does_what_was_put_in_before() -> None:
    work = Work()
    work.gate.clear()
    stage = stage_of(work)
    stage.start("test", crashed)
    for number in range(100):
        stage.put(number)
    threading.Timer(0.05, work.gate.set).start()

    assert stage.stop(10 * SECOND) is True
    assert work.done == list(range(100))


def test_a_stop_gives_up_after_its_patience() -> None:
    work = Work(failures=1_000_000)
    stage = stage_of(work)
    stage.put(1)
    stage.start("test", crashed)

    assert stage.stop(SECOND // 20) is False
    assert work.done == []


def test_an_error_nobody_foresaw_is_told() -> None:
    told: list[BaseException] = []

    def breaks(batch: Sequence[int]) -> None:
        raise ZeroDivisionError

    stage = BatchWorker(breaks, BrokerUnavailable, Outage("away", "broker"))
    stage.put(1)
    stage.start("test", told.append)

    eventually(lambda: told)
    assert isinstance(told[0], ZeroDivisionError)
    stage.stop(SECOND)


def test_a_trouble_is_said_once_and_its_end_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    trouble = Outage("the broker is away", "broker")
    trouble.end()
    for _ in range(5):
        trouble.meet(BrokerUnavailable("nobody answers"))
    trouble.end()
    trouble.end()

    assert [getattr(record, "event", "") for record in caplog.records] == [
        "broker.lost",
        "broker.back",
    ]
    assert "nobody answers" in caplog.messages[0]
    assert "5 tries" in caplog.messages[1]


def test_pauses_grow_from_the_first_to_the_last_and_begin_anew() -> None:
    pause = Backoff(10, 35)
    assert [pause.lengthen() for _ in range(4)] == [0.01, 0.02, 0.035, 0.035]

    pause.reset()

    assert pause.lengthen() == 0.01


def test_there_is_some_pause_whatever_the_settings_say() -> None:
    assert [Backoff(0, 0).lengthen(), Backoff(500, 20).lengthen()] == [0.001, 0.02]
