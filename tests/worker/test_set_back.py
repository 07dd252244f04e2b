"""At most once, although the broker was set back: who is told GONE begins no run."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.items import Effect
from beatd.brokers.redis import RedisBroker
from beatd.errors import BrokerUnavailable
from beatd.worker.begun import BegunMessages
from tests.servers import Server
from tests.worker.bench import Bench, with_held_pool


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(save='""', dir=tmp_path) as server:
        yield server


def save(server: Server) -> None:
    with server.client() as client:
        client.save()


def set_back(server: Server) -> None:
    server.kill()
    server.start()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        getattr(record, "event", "")
        for record in caplog.records
        if record.levelname in ("WARNING", "ERROR")
    ]


@pytest.mark.parametrize("together", [False, True])
def test_what_lies_in_its_queue_again_before_it_began_runs_once(
    server: Server, caplog: pytest.LogCaptureFixture, together: bool
) -> None:
    """Both deliveries are acknowledged in one request, or the first one before."""
    with closing(RedisBroker(server.url(), namespace="test")) as broker:
        bench = Bench(broker=broker)
        pool = with_held_pool(bench, size=2)

        @bench.app.task(name="proj.once", acks_late=False)
        def once() -> None: ...

        full = bench.worker.window.free()
        bench.worker.intake.lease.turn()
        sent = once.delay()
        save(server)
        bench.worker.intake.fetcher.turn()
        bench.handle()  # it is to be acknowledged now
        set_back(server)
        bench.worker.intake.lease.turn()
        bench.worker.intake.fetcher.turn()
        if together:
            bench.handle()
        bench.settle()
        bench.run()

        assert len(pool.jobs) == 1
        assert bench.worker.held == 1
        assert bench.worker.window.free() == full - 1
        assert events(caplog) == ["task.gone"]
        assert sent.id in caplog.text
        assert bench.left() == 0


def test_what_was_acknowledged_and_the_answer_lost_with_the_data_runs_once(
    server: Server,
) -> None:
    with closing(RedisBroker(server.url(), namespace="test")) as broker:
        bench = Bench(broker=broker)
        pool = with_held_pool(bench, size=1)

        @bench.app.task(name="proj.once", acks_late=False)
        def once() -> None: ...

        bench.worker.intake.lease.turn()
        once.delay()
        bench.worker.intake.fetcher.turn()
        bench.handle()
        save(server)
        settle, answers = broker.settle, []

        def cut(*request: object) -> None:
            answers.append(settle(*request))  # type: ignore[arg-type]
            set_back(server)
            raise BrokerUnavailable("the connection was cut")

        broker.settle = cut  # type: ignore[method-assign, assignment]
        with pytest.raises(BrokerUnavailable):
            bench.worker.settler.settling.turn()
        broker.settle = settle  # type: ignore[method-assign]
        bench.run()

        assert [answer.effect for [answer] in answers] == [Effect.DONE]
        assert len(pool.jobs) == 1
        assert bench.left() == 0


@pytest.mark.parametrize("entry", ["", "each"])
def test_what_has_begun_does_not_begin_again_when_it_lies_in_its_queue_again(
    server: Server, caplog: pytest.LogCaptureFixture, entry: str
) -> None:
    with closing(RedisBroker(server.url(), namespace="test")) as broker:
        bench = Bench(broker=broker)
        ran = []

        @bench.app.task(name="proj.once", acks_late=False)
        def once() -> None:
            ran.append("run")

        full = bench.worker.window.free()
        bench.worker.intake.lease.turn()
        headers = {"beatd_entry": entry} if entry else {}
        sent = bench.app.send_task("proj.once", headers=headers)
        if entry:
            bench.remember_run(entry, sent.id)
        save(server)
        bench.run()
        assert ran == ["run"]
        set_back(server)
        bench.run()

        assert ran == ["run"]
        assert bench.worker.held == 0
        assert bench.worker.window.free() == full
        assert events(caplog) == ["task.repeated"]
        assert sent.id in caplog.text
        assert sent.state == "SUCCESS"
        assert broker.running(["each"]) == {}
        assert bench.left() == 0


def test_what_had_begun_when_the_broker_was_set_back_to_that_does_not_begin_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes back from under the worker, that does not know of it any more."""
    with closing(RedisBroker(server.url(), namespace="test")) as broker:
        bench = Bench(broker=broker)
        ran = []

        @bench.app.task(name="proj.once", acks_late=False)
        def once() -> None:
            ran.append("run")

        once.delay()
        bench.worker.intake.lease.turn()
        bench.worker.intake.fetcher.turn()
        save(server)
        bench.run()
        set_back(server)
        bench.run()
        bench.run()

        assert ran == ["run"]
        assert events(caplog) == ["delivery.unknown", "task.repeated"]


def test_each_of_two_calls_begins_whatever_they_have_in_common() -> None:
    bench = Bench()
    ran = []

    @bench.app.task(name="proj.once", acks_late=False, bind=True, max_retries=2)
    def once(self: Any, number: int) -> None:
        ran.append((self.request.retries, number))
        if number == 2:
            self.retry(countdown=0)

    for number in (1, 1, 2):
        once.apply_async((number,), task_id="the-same")
    bench.run()

    assert sorted(ran) == [(0, 1), (0, 1), (0, 2), (1, 2), (2, 2)]


def test_only_the_last_messages_are_remembered() -> None:
    begun = BegunMessages(most=2)

    assert [begun.add(message) for message in (b"1", b"1", b"2", b"2")] == [
        *(True, False),
        *(True, False),
    ]
    assert begun.add(b"3")
    assert [begun.add(message) for message in (b"3", b"2", b"1")] == [
        *(False, False),
        True,
    ]
