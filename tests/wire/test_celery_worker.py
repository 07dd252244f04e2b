"""What beatd emits, run by a real `celery worker`: the scheduler before Celery's fleet.

The tasks leave what they saw in Redis, pickled, so that types can be compared too.
"""

import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from beatd import Beatd
from beatd.brokers.items import Term
from beatd.brokers.redis import RedisBroker
from beatd.clock import SystemClock
from beatd.instant import MINUTE
from beatd.schedules import crontab
from beatd.timetable.ledger import Mark
from tests.groups import grouped
from tests.processes import Running, beatd, module
from tests.servers import PATIENCE, Server, emptied, eventually
from tests.wire.clients import celery_client

PROJECT = """
import pickle
import time

import redis
from celery import Celery
from celery.schedules import crontab, schedule

app = Celery("celeryproj", broker={broker!r}, backend={backend!r})
seen = redis.Redis.from_url({backend!r})


@app.task(bind=True)
def note(self, *args, **kwargs):
    request = self.request
    saw = {{
        "args": args,
        "kwargs": kwargs,
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "eta": request.eta,
        "expires": request.expires,
        "timelimit": request.timelimit,
        "shadow": request.shadow,
        "ignore_result": request.ignore_result,
        "slot": request.get("beatd_slot"),
        "colour": request.get("colour"),
        "began": time.time(),
    }}
    entry = request.get("beatd_entry") or "linked"
    seen.rpush("seen " + entry, pickle.dumps(saw))
    return "done"


@app.task
def sleep(seconds):
    time.sleep(seconds)


@app.on_after_configure.connect
def add_entries(sender, **_):
    sender.add_periodic_task(0.5, note.s("added"), name="added-by-code")


app.conf.update(
    accept_content=["json", "yaml"],
    worker_redirect_stdouts=False,
    beat_schedule={{
        "seconds": {{"task": "celeryproj.note", "schedule": 0.5}},
        "schedule": {{
            "task": "celeryproj.note",
            "schedule": schedule(0.5),
            "args": (2, 3),
            "options": {{"queue": "reports"}},
        }},
        "crontab": {{"task": "celeryproj.note", "schedule": crontab()}},
    }},
    beat_coalesce=False,
)
"""

CONFIG = """
from datetime import UTC, datetime, timedelta
from decimal import Decimal

beat_namespace = "shop"
broker_url = {broker!r}
timezone = "Asia/Kathmandu"


def entry(*args, task="celeryproj.note", **options):
    return {{
        "task": task,
        "schedule": 0.5,
        "args": args,
        "options": options,
        # Not without end: a busy machine would never come to the last ones.
        "max_runs": 4,
        "coalesce": False,
    }}


beat_schedule = {{
    "arguments": {{
        **entry(1, "zwei", None, [2.5, {{"drei": True}}], b"\\xff"),
        "kwargs": {{
            "moment": datetime(2027, 1, 2, tzinfo=UTC),
            "cost": Decimal("1.20"),
        }},
    }},
    "queue": entry(queue="reports", priority=6),
    "expires": entry(expires=3600),
    # So seldom that some run is begun before the next one is due, and without end.
    "expires-next": {{
        "task": "celeryproj.note", "schedule": 5, "options": {{"expires": "next"}}
    }},
    "headers": entry(headers={{"colour": "red"}}),
    "limits": entry(time_limit=60, soft_time_limit=50),
    "countdown": entry(countdown=0.4),
    "eta": entry(eta=datetime.now(UTC) + timedelta(seconds=2)),
    "slot": {{**entry(), "slot_argument": "day"}},
    "yaml": entry({{1: "one"}}, serializer="yaml"),
    "compressed": entry("x" * 10_000, compression="bzip2"),
    "shadow": entry(shadow="report of today"),
    "ignored": entry(ignore_result=True),
    "link": entry(link={{"task": "celeryproj.note", "args": ["after"]}}),
    "stale": {{**entry(task_id="stale", countdown=0.4, expires=0.1), "max_runs": 1}},
    "slow": {{
        **entry(
            9,
            task="celeryproj.sleep",
            task_id="slow",
            queue="slow",
            soft_time_limit=0.3,
        ),
        "max_runs": 1,
    }},
}}
"""


@dataclass
class Fleet:
    """A `celery worker`, and what its tasks saw of beatd's emissions."""

    worker: Running
    client: Celery
    server: Server
    urls: tuple[str, str]

    def runs(self, entry: str, at_least: int = 1) -> list[dict[str, Any]]:
        """Wait for so many runs of the entry, and give what they saw."""

        def look() -> list[bytes] | None:
            left: list[bytes] = raw.lrange(f"seen {entry}", 0, -1)
            return left if len(left) >= at_least else None

        with self.server.client() as raw:
            raw.select(1)
            left = eventually(look, f"{at_least} runs of {entry!r}")
        return [pickle.loads(one) for one in left]

    def saw(self, entry: str) -> dict[str, Any]:
        return self.runs(entry)[0]

    def result(self, task_id: str) -> AsyncResult:
        return AsyncResult(task_id, app=self.client)


PREFORK, SOLO = grouped("celery worker", ["prefork", "solo"])


@pytest.fixture(scope="module", params=[PREFORK, SOLO])
def fleet(
    request: pytest.FixtureRequest,
    _server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """Yield a worker of this pool, with two schedulers before it."""
    here = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        server = stack.enter_context(emptied(_server))
        urls = server.url(0), server.url(1)
        (here / "celeryproj.py").write_text(
            PROJECT.format(broker=urls[0], backend=urls[1])
        )
        (here / "shop.py").write_text(CONFIG.format(broker=urls[0]))
        # Celery's solo pool would not end what is slow.
        queues = "celery,reports" + (",slow" if request.param == "prefork" else "")
        worker = stack.enter_context(
            module(
                *("celery", "-A", "celeryproj", "worker", "-l", "info"),
                *("-P", request.param, "-c", "2", "-Q", queues, "--without-gossip"),
                *("--without-mingle", "--without-heartbeat"),
                cwd=here,
            )
        )
        worker.until(" ready.")
        was_down_for_two_minutes(server)
        for options in (
            ("--config", "shop", "-s", "of-config.db"),
            ("-A", "celeryproj", "-s", "of-app.db"),
        ):
            stack.enter_context(beatd(*options, "-l", "INFO", cwd=here))
        client = stack.enter_context(celery_client(*urls))
        yield Fleet(worker, client, server, urls)


def was_down_for_two_minutes(server: Server) -> None:
    """Leave a ledger in the broker that makes the entry "crontab" due at once."""
    broker = RedisBroker(server.url(), namespace="default")
    term = broker.acquire("earlier", MINUTE, 0)
    assert isinstance(term, Term)
    schedule = crontab().in_zone(ZoneInfo("UTC"))
    mark = Mark(SystemClock().now() - 2 * MINUTE, schedule.fingerprint)
    broker.write_ledger(term, {"crontab": mark}, (), 0)
    broker.resign(term)
    broker.close()


# What a config of ours says


def test_arguments_arrive_with_their_types(fleet: Fleet) -> None:
    saw = fleet.saw("arguments")

    assert saw["args"] == (1, "zwei", None, [2.5, {"drei": True}], b"\xff")
    assert saw["kwargs"]["moment"] == datetime(2027, 1, 2, tzinfo=UTC)
    assert repr(saw["kwargs"]["cost"]) == "Decimal('1.20')"


def test_each_run_is_of_a_slot_and_has_its_own_id(fleet: Fleet) -> None:
    runs = fleet.runs("arguments", at_least=4)

    slots = [datetime.fromisoformat(saw["slot"]) for saw in runs]
    steps = [later - slot for slot, later in pairwise(sorted(slots))]
    assert steps == [timedelta(seconds=0.5)] * 3
    assert len({saw["id"] for saw in runs}) == 4
    assert all(saw["root_id"] == saw["id"] for saw in runs)
    assert {saw["parent_id"] for saw in runs} == {None}


def test_queue_and_priority_arrive(fleet: Fleet) -> None:
    saw = fleet.saw("queue")

    assert (saw["queue"], saw["priority"]) == ("reports", 6)
    assert fleet.saw("arguments")["queue"] == "celery"


def test_a_number_of_seconds_to_expire_counts_from_the_emission(fleet: Fleet) -> None:
    saw = fleet.saw("expires")

    emitted = datetime.fromisoformat(saw["expires"]).timestamp() - 3600
    slot = datetime.fromisoformat(saw["slot"]).timestamp()
    assert slot <= emitted <= saw["began"]


def test_a_message_expires_at_the_next_slot(fleet: Fleet) -> None:
    saw = fleet.saw("expires-next")

    expires, slot = map(datetime.fromisoformat, (saw["expires"], saw["slot"]))
    assert expires - slot == timedelta(seconds=5)


def test_what_expired_before_it_was_due_is_revoked(fleet: Fleet) -> None:
    result = fleet.result("stale")

    eventually(result.ready)
    assert result.state == "REVOKED"
    assert result.result.args == ("expired",)


def test_headers_arrive(fleet: Fleet) -> None:
    assert fleet.saw("headers")["colour"] == "red"
    assert fleet.saw("arguments")["colour"] is None


def test_time_limits_arrive(fleet: Fleet) -> None:
    assert fleet.saw("limits")["timelimit"] == [60, 50]


@pytest.mark.parametrize("fleet", [PREFORK], indirect=True)
def test_a_soft_time_limit_ends_the_run(fleet: Fleet) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        fleet.result("slow").get(timeout=PATIENCE)


def test_a_countdown_is_waited_for(fleet: Fleet) -> None:
    saw = fleet.saw("countdown")

    eta = datetime.fromisoformat(saw["eta"])
    slot = datetime.fromisoformat(saw["slot"])
    assert eta - slot >= timedelta(seconds=0.4)
    assert saw["began"] >= eta.timestamp()


def test_an_eta_is_waited_for(fleet: Fleet) -> None:
    runs = fleet.runs("eta", at_least=2)

    assert len({saw["eta"] for saw in runs}) == 1
    eta = datetime.fromisoformat(runs[0]["eta"]).timestamp()
    assert min(saw["began"] for saw in runs) >= eta


def test_the_slot_is_an_argument_in_the_zone_of_the_entry(fleet: Fleet) -> None:
    saw = fleet.saw("slot")

    assert saw["kwargs"] == {"day": saw["slot"]}
    assert saw["slot"].endswith("+05:45")


def test_other_serializers_and_compressed_bodies_are_read(fleet: Fleet) -> None:
    # JSON would have made the key a text.
    assert fleet.saw("yaml")["args"] == ({1: "one"},)
    assert fleet.saw("compressed")["args"] == ("x" * 10_000,)


def test_the_shadow_is_the_name_in_the_workers_log(fleet: Fleet) -> None:
    saw = fleet.saw("shadow")

    assert saw["shadow"] == "report of today"
    fleet.worker.until(f"Task report of today[{saw['id']}] succeeded")


def test_a_link_runs_after_its_task_with_its_result(fleet: Fleet) -> None:
    linked = fleet.saw("linked")

    parents = {saw["id"] for saw in fleet.runs("link")}
    assert linked["args"] == ("done", "after")
    assert linked["parent_id"] in parents


def test_both_clients_read_the_result_by_its_id(fleet: Fleet) -> None:
    task_id = fleet.saw("arguments")["id"]
    ours = Beatd("ours", broker=fleet.urls[0], backend=fleet.urls[1])

    assert fleet.result(task_id).get(timeout=PATIENCE) == "done"
    assert ours.AsyncResult(task_id).get(timeout=PATIENCE) == "done"
    ours.close()


def test_no_result_is_kept_of_what_is_to_ignore(fleet: Fleet) -> None:
    saw = fleet.saw("ignored")
    fleet.worker.until(f"Task celeryproj.note[{saw['id']}] succeeded")

    assert saw["ignore_result"] is True
    assert fleet.result(saw["id"]).state == "PENDING"


# What a Celery app says: `beatd -A proj` in the place of `celery -A proj beat`


def test_a_number_and_a_schedule_of_an_app_are_intervals(fleet: Fleet) -> None:
    for entry in ("seconds", "schedule"):
        runs = fleet.runs(entry, at_least=6)
        slots = sorted(datetime.fromisoformat(saw["slot"]) for saw in runs)
        steps = [later - slot for slot, later in pairwise(slots)]
        assert min(steps) == timedelta(seconds=0.5)

    assert fleet.saw("schedule")["args"] == (2, 3)
    assert fleet.saw("schedule")["queue"] == "reports"


def test_a_crontab_of_an_app_is_due_at_full_minutes(fleet: Fleet) -> None:
    slot = datetime.fromisoformat(fleet.saw("crontab")["slot"])

    assert (slot.second, slot.microsecond) == (0, 0)


def test_a_periodic_task_that_code_adds_to_an_app_runs(fleet: Fleet) -> None:
    assert fleet.saw("added-by-code")["args"] == ("added",)
