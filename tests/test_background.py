"""Batches that are worked off until they succeed, and what is logged of outages."""

import logging
import threading
from collections.abc import Sequence

import pytest

from beatd.background import (
    BATCH,
    Backoff,
    BatchWorker,
    Halves,
    Outage,
    Service,
    retried,
)
from beatd.errors import BrokerRefused, BrokerUnavailable, ItemRefused
from beatd.instant import HOUR, SECOND, Span
from tests.fakes import FakeClock
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


def worker_of(work: Work, linger: Span = 0) -> BatchWorker[int]:
    away = Outage("the broker is away", "broker")
    return BatchWorker(work, BrokerUnavailable, away, linger=linger)


def crashed(error: BaseException) -> None:
    raise AssertionError from error


def test_what_is_put_in_is_done_in_order_and_in_batches() -> None:
    work = Work()
    worker = worker_of(work)
    for number in range(BATCH + 5):
        worker.put(number)

    while worker.turn():
        pass

    assert work.done == list(range(BATCH + 5))
    assert [len(batch) for batch in work.tried] == [BATCH, 5]


def test_what_was_gathered_is_done_in_order_and_in_batches() -> None:
    tried: list[list[int]] = []
    gathered: list[int] = []

    def work(batch: Sequence[int]) -> None:
        tried.append(list(batch))
        if len(tried) == 1:
            for number in range(1, BATCH + 5):
                worker.put(number)
            gathered.extend(worker.gather())
            raise BrokerUnavailable("nobody answers")

    away = Outage("the broker is away", "broker")
    worker = BatchWorker(work, BrokerUnavailable, away)
    worker.put(0)
    with pytest.raises(BrokerUnavailable):
        worker.turn()

    while worker.turn():
        pass

    everything = list(range(BATCH + 5))
    assert gathered == everything
    assert tried == [[0], everything[:BATCH], everything[BATCH:]]


def test_a_batch_that_failed_is_done_again_as_it_was() -> None:
    work = Work(failures=2)
    worker = worker_of(work)
    worker.put(1)
    worker.start("test", crashed)
    eventually(lambda: work.tried)
    worker.put(2)

    assert worker.stop(10 * SECOND) is True
    assert work.tried == [[1], [1], [1], [2]]


def test_a_stop_does_what_was_put_in_before() -> None:
    work = Work()
    work.gate.clear()
    worker = worker_of(work)
    worker.start("test", crashed)
    for number in range(100):
        worker.put(number)
    threading.Timer(0.05, work.gate.set).start()

    assert worker.stop(10 * SECOND) is True
    assert work.done == list(range(100))


def test_a_stop_gives_up_after_its_patience() -> None:
    work = Work(failures=1_000_000)
    worker = worker_of(work)
    worker.put(1)
    worker.start("test", crashed)

    assert worker.stop(SECOND // 20) is False
    assert work.done == []


def test_a_stop_waits_no_longer_for_work_that_does_not_come_back() -> None:
    work = Work()
    work.gate.clear()
    worker = worker_of(work)
    for number in range(BATCH + 1):
        worker.put(number)
    worker.start("test", crashed)
    eventually(lambda: worker.waiting == 1)

    assert worker.stop(SECOND // 20) is False
    assert work.tried == [], "it is at work still"

    work.gate.set()
    assert worker.stop(10 * SECOND) is True
    assert len(work.tried) == 1, "it begins nothing more"


def test_the_first_item_waits_for_others_until_a_stop() -> None:
    work = Work()
    worker = worker_of(work, linger=HOUR)
    worker.start("test", crashed)
    for number in range(3):
        worker.put(number)

    assert worker.stop(10 * SECOND) is True
    assert work.tried == [[0, 1, 2]]


def test_a_batch_that_is_full_waits_for_nothing() -> None:
    work = Work()
    worker = worker_of(work, linger=HOUR)
    for number in range(BATCH + 5):
        worker.put(number)
    worker.start("test", crashed)
    eventually(lambda: len(work.done) == BATCH)

    assert worker.stop(10 * SECOND) is True
    assert work.done == list(range(BATCH + 5))


def test_an_error_nobody_foresaw_is_told() -> None:
    told: list[BaseException] = []

    def breaks(batch: Sequence[int]) -> None:
        raise ZeroDivisionError

    worker = BatchWorker(breaks, BrokerUnavailable, Outage("away", "broker"))
    worker.put(1)
    worker.start("test", told.append)

    eventually(lambda: told)
    assert isinstance(told[0], ZeroDivisionError)
    worker.stop(SECOND)


def test_a_service_rests_as_long_as_its_steps_say_until_one_was_the_last() -> None:
    rests = [0, 1, None]
    crashes: list[BaseException] = []
    service = Service(lambda: rests.pop(0))
    service.start("test", crashes.append)

    assert service.join(10 * SECOND) is True
    assert (rests, crashes) == ([], [])


def test_a_stop_ends_rests_and_waits_inside_of_steps() -> None:
    for rest in (0, HOUR):
        interrupted = threading.Event()

        def step(rest: Span = rest, ended: threading.Event = interrupted) -> Span:
            if not rest:
                ended.wait(PATIENCE)
            return rest

        service = Service(step, interrupted.set)
        service.start("test", crashed)
        service.stop()

        assert service.join(0) is True


def test_what_failed_is_tried_again_until_it_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Span | None] = [None, None, 7]
    clock = FakeClock()

    def step() -> Span | None:
        if (rest := answers.pop(0)) is None:
            raise BrokerUnavailable("nobody answers")
        return rest

    outage = Outage("the broker is away", "broker", clock)
    one_try = retried(step, BrokerUnavailable, outage, Backoff(10, 35))

    assert [one_try(), one_try()] == [10, 20]
    clock.go_to(clock.now() + 90 * SECOND)
    assert one_try() == 7
    assert caplog.messages == [
        "the broker is away: nobody answers",
        "over after 90.0 s and 2 tries: the broker is away",
    ]


def test_what_had_nothing_to_do_ends_no_outage() -> None:
    outage = Outage("the broker is away", "broker")
    outage.meet(BrokerUnavailable("nobody answers"))

    assert retried(lambda: None, BrokerUnavailable, outage)() is None
    assert outage.tries == 1


def test_an_outage_knows_what_failed_last() -> None:
    outage = Outage("the broker is away", "broker")
    assert outage.reason == ""

    for reason in ("nobody answers", "it is loading"):
        outage.meet(BrokerUnavailable(reason))
    assert outage.reason == "it is loading"

    outage.end()
    assert outage.reason == ""


def test_an_outage_is_said_once_and_its_end_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage("the broker is away", "broker")
    outage.end()
    for _ in range(5):
        outage.meet(BrokerUnavailable("nobody answers"))
    outage.end()
    outage.end()

    assert [getattr(record, "event", "") for record in caplog.records] == [
        "broker.lost",
        "broker.back",
    ]
    assert "nobody answers" in caplog.messages[0]
    assert "5 tries" in caplog.messages[1]


def test_rests_grow_from_the_first_to_the_last_and_begin_anew() -> None:
    backoff = Backoff(10, 35)
    assert [backoff.lengthen() / SECOND for _ in range(4)] == [0.01, 0.02, 0.035, 0.035]

    backoff.reset()

    assert backoff.lengthen() / SECOND == 0.01


def test_there_is_some_rest_whatever_the_settings_say() -> None:
    rests = [Backoff(0, 0).lengthen(), Backoff(500, 20).lengthen()]

    assert [rest / SECOND for rest in rests] == [0.001, 0.02]


def test_after_a_fault_amid_its_halves_a_batch_goes_on_where_it_was() -> None:
    done: list[int] = []
    refused: list[int] = []
    faults = [BrokerUnavailable("nobody answers")]

    def work(part: Sequence[int]) -> None:
        if 3 in part:
            raise ItemRefused("no")
        if 4 in part and faults:
            raise faults.pop()
        done.extend(part)

    def made() -> list[int]:
        batches.append([1, 2, 3, 4])
        return batches[-1]

    batches: list[list[int]] = []
    halves = Halves(work, lambda item, _: refused.append(item))
    with pytest.raises(BrokerUnavailable):
        halves.do(made)
    halves.do(made)
    halves.do(lambda: [])

    assert (done, refused, len(batches)) == ([1, 2, 4], [3], 1)


def test_a_part_of_a_server_says_nothing_while_the_whole_of_it_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    server = Outage("the server is away", "server", clock)
    part = Outage("a part is cut off", "part", clock, part_of=server)

    def pass_seconds(number: int, *failing: Outage) -> list[str]:
        caplog.clear()
        for _ in range(number):
            clock.go_to(clock.time + SECOND)
            for one in (part, server):  # the part hears of it first
                if one in failing:
                    one.meet(BrokerUnavailable("no answer"))
                else:
                    one.end()
        return [vars(one)["event"] for one in caplog.records]

    assert pass_seconds(60, part, server) == ["server.lost"]
    assert pass_seconds(1) == ["server.back"]
    assert pass_seconds(3, part) == [], "the server may be about to be away, too"
    assert pass_seconds(60, part) == ["part.lost"]
    assert pass_seconds(1) == ["part.back"]
    part.meet(BrokerRefused("not permitted"))
    assert "a part is cut off: not permitted" in caplog.text
