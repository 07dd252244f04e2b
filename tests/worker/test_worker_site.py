"""What a worker answers over HTTP: whether it lives, and what became of tasks."""

import json
import sys
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from beatd.errors import BrokerUnavailable, Ignore, Reject, Retry
from beatd.instant import HOUR, SECOND
from beatd.pools.base import Lost, Started, TimedOut
from beatd.service.site import PATIENCE, Site
from beatd.service.worker_site import WorkerSite
from beatd.worker.inbox import Stop
from tests.fakes import FlakyBroker
from tests.test_status import Bench as SchedulerBench
from tests.worker.bench import Bench, with_held_pool
from tests.worker.test_cut_off import cut_off


def samples_of(bench: Bench) -> dict[tuple[str, ...], float]:
    """Return the metrics by name and values of labels, as Prometheus reads them."""
    found = WorkerSite(bench.worker).respond("/metrics", 0)
    assert found.status == "200 OK"
    text = found.body.decode()
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # theirs
        for one in family.samples
    }


def ends_of(bench: Bench) -> dict[str, float]:
    """Return by state the tasks that ended in it, without those of none."""
    return {
        labels[0]: value
        for (name, *labels), value in samples_of(bench).items()
        if name == "beatd_worker_tasks_total" and value
    }


def test_tasks_are_counted_by_what_they_ended_in() -> None:
    bench = Bench()

    @bench.app.task(name="proj.end")
    def end(how: str) -> None:
        errors: dict[str, Exception] = {
            "fails": ValueError(),
            "is ignored": Ignore(),
            "is requeued": Reject(requeue=True),
            "is rejected": Reject("no"),
            "asks for more": Retry(when=60),
        }
        raise errors[how]

    @bench.app.task(name="proj.fine")
    def fine() -> None:
        pass

    ends = ["fails", "is ignored", "is requeued", "is rejected", "asks for more"]
    for how in ends:
        end.delay(how)
    fine.apply_async(expires=1)
    bench.app.send_task("proj.unknown")
    bench.clock.go_to(bench.clock.now() + 2 * SECOND)
    fine.delay()
    bench.run()

    assert ends_of(bench) == {
        "SUCCESS": 1,
        "FAILURE": 4,  # one is unknown, and one is requeued to its last delivery
        "IGNORED": 1,
        "RETRY": 1,
        "REQUEUED": 2,
        "EXPIRED": 1,
    }
    found = samples_of(bench)
    assert found["beatd_worker_begun_total",] == 8
    assert found["beatd_worker_running",] == found["beatd_worker_held",] == 0


def test_run_times_are_counted_also_of_runs_that_were_ended_by_force() -> None:
    bench = Bench()

    @bench.app.task(name="proj.nap")
    def nap(span: int) -> None:
        bench.clock.go_to(bench.clock.now() + span)

    for span in (0, 40, 3000):
        nap.delay(span)
    bench.run()
    pool = with_held_pool(bench)
    nap.delay(0)
    nap.delay(0)
    bench.run()
    slow, lost = (job.token for job in pool.jobs)
    for event in (Started(slow, 1), Started(lost, 2)):
        bench.inbox.put(event)
    bench.handle()
    assert samples_of(bench)["beatd_worker_running",] == 2
    for end in (TimedOut(slow, 60), Lost(lost, "killed")):
        bench.inbox.put(end)
    bench.handle()

    found = samples_of(bench)
    name = "beatd_worker_run_seconds"
    assert found[f"{name}_count",] == found[f"{name}_bucket", "+Inf"] == 4
    assert found[f"{name}_sum",] == pytest.approx(63.04)
    bounds = {"0.001": 1, "0.032": 1, "0.064": 2, "2.048": 2, "4.096": 3, "65.536": 4}
    assert {at: found[f"{name}_bucket", at] for at in bounds} == bounds
    assert ends_of(bench) == {"SUCCESS": 3, "FAILURE": 1, "LOST": 1}


def test_a_lost_lease_and_what_dead_workers_had_are_counted() -> None:
    bench = Bench()

    @bench.app.task
    def nap() -> None:
        pass

    with_held_pool(bench)
    nap.delay()
    bench.run()
    assert samples_of(bench)["beatd_worker_leases_lost_total",] == 0
    cut_off(bench)
    bench.clock.go_to(bench.clock.now() + HOUR)  # the other one dies with the message

    bench.run()
    bench.clock.go_to(bench.clock.now() + HOUR)
    bench.run()

    found = samples_of(bench)
    assert found["beatd_worker_leases_lost_total",] >= 1
    assert found["beatd_worker_recovered_total",] == 1


def answer(site: WorkerSite, path: str) -> tuple[str, dict[str, Any]]:
    found = site.respond(path, 0)
    return found.status.partition(" ")[0], json.loads(found.body)


def test_a_worker_is_ready_while_it_has_a_lease_and_was_not_told_to_stop() -> None:
    bench = Bench()
    site = WorkerSite(bench.worker)
    assert answer(site, "/readyz")[0] == "503"

    bench.run()
    words, about = answer(site, "/readyz")
    assert (words, about["queues"], about["worker"]) == (
        *("200", ["celery"]),
        "celery@here",
    )

    bench.clock.go_to(bench.clock.now() + HOUR)
    assert answer(site, "/readyz")[0] == "503"  # its broker is away, say
    bench.run()
    assert answer(site, "/readyz")[0] == "200"

    bench.inbox.put(Stop.WARM)
    bench.handle()
    words, about = answer(site, "/readyz")
    assert (words, about["stopping"]) == ("503", True)


def problems_of(site: WorkerSite) -> tuple[str, list[str]]:
    """Return whether it is ready, and what it says is wrong."""
    words, about = answer(site, "/readyz")
    return words, [one["text"] for one in about["problems"]]


def test_a_worker_that_is_not_ready_says_why() -> None:
    bench = Bench()
    site = WorkerSite(bench.worker)
    words = "it has no lease yet, and takes no tasks: it has just begun"
    assert problems_of(site) == ("503", [words])

    bench.away.meet(BrokerUnavailable("redis://here: Connection refused."))
    away = "the broker does not answer: redis://here: Connection refused."
    assert problems_of(site) == ("503", [away])

    bench.away.end()
    bench.run()
    assert problems_of(site) == ("200", [])

    bench.away.meet(BrokerUnavailable("redis://here: Connection refused."))
    assert problems_of(site) == ("200", [away])  # its lease lasts still

    bench.clock.go_to(bench.clock.now() + 6 * SECOND)
    assert problems_of(site) == ("503", [away])

    bench.away.end()
    words = "its lease was not renewed in time, and it takes no tasks"
    assert problems_of(site) == ("503", [words])

    bench.run()
    bench.inbox.put(Stop.WARM)
    bench.handle()
    words = "it was told to stop, and has 0 tasks in hand"
    assert problems_of(site) == ("503", [words])


def test_a_worker_is_alive_while_its_loop_turns() -> None:
    bench = Bench()
    site = WorkerSite(bench.worker)
    bench.clock.go_to(bench.clock.now() + 15 * SECOND)
    assert answer(site, "/livez")[0] == "200"

    bench.clock.go_to(bench.clock.now() + SECOND)
    words, about = answer(site, "/livez")
    assert (words, about["loop_age"]) == ("503", 16)

    site.turned()
    assert answer(site, "/livez")[0] == "200"


def test_a_scheduler_beside_it_tells_its_metrics_with_its_own() -> None:
    worker = Bench()
    scheduler = SchedulerBench(worker.clock, FlakyBroker(worker.clock))
    scheduler.turn()
    site = Site(scheduler.reporter)
    site.worker_metrics = WorkerSite(worker.worker).metrics

    found = site.respond("/metrics", PATIENCE)

    assert found is not None
    for line in ('beatd_role{role="leader"} 1.0', "beatd_worker_pool_size 1.0"):
        assert f"\n{line}\n" in found.body.decode()


def test_other_paths_and_a_missing_package_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = WorkerSite(Bench().worker)
    assert b"/livez, /readyz, /metrics" in site.respond("/status", 0).body

    monkeypatch.setitem(sys.modules, "beatd.service.openmetrics", None)

    found = site.respond("/metrics", 0)
    assert found.status == "501 Not Implemented"
    assert b"pip install 'beatd[metrics]'" in found.body
