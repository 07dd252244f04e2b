"""At most once, although the broker was set back: who is told GONE begins no run."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beatd.brokers.items import Effect
from beatd.brokers.redis import RedisBroker
from beatd.errors import BrokerUnavailable
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
