"""With each heartbeat a worker says what it holds: nothing else stays in flight."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import Act, Answer, Effect, SetAside
from beatd.brokers.memory import MemoryBroker
from beatd.brokers.redis import RedisBroker
from beatd.errors import BrokerUnavailable
from beatd.pools.base import Started
from tests.servers import Server
from tests.worker.bench import Bench, with_held_pool

HEARTBEATS = 5


class SetBack(MemoryBroker):
    """A broker that can be set back to what it had in flight before, and the like."""

    loses_answers = refuses = False

    def snapshot(self) -> Callable[[], None]:
        """Return how to go back to what is in flight now."""
        kept = deepcopy(self._workers)
        return lambda: setattr(self, "_workers", kept)

    def take(self, *arguments: Any, **more: Any) -> Any:
        found = super().take(*arguments, **more)
        if self.loses_answers:
            raise BrokerUnavailable("the connection was cut")
        return found

    def _do(self, worker: str, act: Act) -> Answer:
        if self.refuses and isinstance(act, SetAside):
            return Answer(Effect.REFUSED, "of a wrong type")
        return super()._do(worker, act)


def bench_on(broker: Broker, **options: Any) -> Bench:
    bench = Bench(broker=broker)

    @bench.app.task(name="proj.nap", **options)
    def nap() -> None: ...

    return bench


def beat(bench: Bench) -> None:
    for _ in range(HEARTBEATS):
        bench.worker.intake.lease.turn()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    warnings = [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")]
    return [getattr(record, "event", "") for record in warnings]


def in_flight(broker: MemoryBroker) -> int:
    return len(broker._workers["here-1"].in_flight)


def test_what_a_broker_that_was_set_back_has_in_flight_runs_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = SetBack()
    bench = Bench(broker=broker)
    snapshots = []

    @bench.app.task(name="proj.nap")
    def nap() -> None:
        snapshots.append(broker.snapshot())

    nap.delay()
    bench.run()
    assert in_flight(broker) == 0
    restore, *_ = snapshots
    restore()
    assert in_flight(broker) == 1

    bench.run()

    assert len(snapshots) == 2
    assert in_flight(broker) == 0
    assert events(caplog) == ["delivery.unknown"]
    assert "gave back 1 delivery" in caplog.text


def test_what_a_redis_that_was_set_back_has_in_flight_runs_again(
    tmp_path: Path,
) -> None:
    with Server(save='""', dir=tmp_path) as server:
        broker = RedisBroker(server.url(), namespace="test")
        bench = Bench(broker=broker)
        runs = []

        @bench.app.task(name="proj.nap")
        def nap() -> None:
            runs.append("run")
            if len(runs) == 1:
                with server.client() as client:
                    client.save()

        nap.delay()
        bench.run()
        server.kill()
        server.start()

        bench.run()

        assert len(runs) == 2
        assert broker.reclaim("here-1", [], 99) == 0
        broker.close()


@pytest.mark.parametrize("early", [False, True])
def test_nothing_that_the_worker_holds_goes_back(early: bool) -> None:
    broker = SetBack()
    bench = bench_on(broker, acks_late=not early)
    pool = with_held_pool(bench, size=1)
    bench.app.tasks["proj.nap"].rate_limit = "2/h"
    for _ in range(3):  # one runs, one waits for it, one for the rate limit
        bench.app.send_task("proj.nap")
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()

    beat(bench)  # all of them are still in the inbox
    bench.run()
    bench.inbox.put(Started(pool.jobs[0].token, 1))
    bench.run()
    beat(bench)

    assert in_flight(broker) == 3 - early
    assert len(pool.jobs) == 1


def test_a_run_whose_result_cannot_be_stored_does_not_go_back() -> None:
    broker = SetBack()
    bench = bench_on(broker)
    bench.results.away = True
    bench.app.send_task("proj.nap")
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()

    beat(bench)

    assert in_flight(broker) == 1
    bench.results.away = False
    bench.run()
    assert in_flight(broker) == 0
    assert bench.results.states == ["SUCCESS"]


def test_what_a_request_took_whose_answer_was_lost_goes_back_when_none_follows() -> (
    None
):
    broker = SetBack()
    bench = bench_on(broker)
    bench.app.send_task("proj.nap")
    bench.worker.intake.lease.turn()
    broker.loses_answers = True
    with pytest.raises(BrokerUnavailable):
        bench.worker.intake.fetcher.turn()
    beat(bench)
    assert in_flight(broker) == 1

    bench.worker.intake.fetcher.stop()
    beat(bench)

    assert in_flight(broker) == 0


def test_what_the_broker_refuses_to_settle_is_not_delivered_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = SetBack()
    bench = Bench(broker=broker)
    broker.refuses = True
    bench.app.send_task("unknown to the worker")

    for _ in range(3):
        bench.run()
        beat(bench)

    assert in_flight(broker) == 1
    assert bench.worker.held == 0
    assert events(caplog).count("settle.refused") == 1
    assert "delivery.unknown" not in events(caplog)
