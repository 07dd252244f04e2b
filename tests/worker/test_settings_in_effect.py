"""The seventeen settings in Celery's old spelling, in one worker that runs by them."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from beatd import AsyncResult, Beatd, TimeLimitExceeded
from beatd.errors import BeatdError
from tests.processes import Running, beatd
from tests.servers import PATIENCE, Server, emptied, eventually

# They share one worker.
pytestmark = pytest.mark.xdist_group("settings in effect")

KEY = "celery-task-meta-"

CONFIG = """
CELERY_ACCEPT_CONTENT = ["yaml"]
CELERY_TIMEZONE = "Asia/Kathmandu"
CELERY_INCLUDE = ["chores"]
CELERYBEAT_SCHEDULER = "celery.beat:PersistentScheduler"
CELERYBEAT_SCHEDULE_FILENAME = "log/celery.db"
BROKER_URL = {broker!r}
BROKER_TRANSPORT_OPTIONS = {{"fanout_prefix": "shop."}}
CELERY_RESULT_BACKEND = {backend!r}
CELERY_RESULT_SERIALIZER = "yaml"
CELERY_RESULT_PERSISTENT = True
CELERY_TASK_RESULT_EXPIRES = 1000
CELERY_TASK_SERIALIZER = "yaml"
CELERY_TASK_TIME_LIMIT = 5
CELERY_TASK_IGNORE_RESULT = True
CELERYD_CONCURRENCY = 3
CELERYD_MAX_TASKS_PER_CHILD = 4
CELERY_REDIS_MAX_CONNECTIONS = 2

CELERYBEAT_SCHEDULE = {{
    "where": {{"task": "chores.where", "schedule": 0.5}},
    "news": {{
        "task": "chores.where",
        "schedule": 0.5,
        "options": {{"exchange": "news", "exchange_type": "fanout"}},
    }},
}}
"""

CHORES = '''
import contextlib
import os
import threading
import time
from pathlib import Path

from beatd import AsyncResult, shared_task

HERE = Path("meeting")


@shared_task
def quiet():
    """Keep no result, as the settings have it."""


@shared_task(ignore_result=False)
def where():
    return {"pid": os.getpid(), "offset": time.strftime("%z")}


@shared_task(ignore_result=False)
def meet(name, number):
    """Be there, and wait until so many have been."""
    began = time.monotonic()
    (HERE / name).touch()
    while len(list(HERE.iterdir())) < number:
        time.sleep(0.01)
    return [began, time.monotonic()]


@shared_task(ignore_result=False)
def sleep(seconds):
    time.sleep(seconds)


@shared_task(ignore_result=False)
def crowd(number):
    """Ask for results from so many threads at once; return answers, new sockets."""
    before = sockets()
    answers = []
    gate = threading.Barrier(number)

    def ask():
        gate.wait()
        for _ in range(10):
            answers.append(AsyncResult("nobody").state)

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers, len(sockets() - before)]


def sockets():
    """Return the sockets of this process: other files may be opened meanwhile."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}
'''


@dataclass
class Shop:
    """A worker in a folder, a client, and a look at what both leave in Redis."""

    worker: Running
    folder: Path
    app: Beatd
    """A client with the same settings."""
    raw: Any
    """The server, at the database of the broker."""
    kept: Any
    """The server, at the database of the results."""

    def send(self, task: str, *args: object, **options: Any) -> AsyncResult[Any]:
        return self.app.send_task(f"chores.{task}", args, **options)


@pytest.fixture(scope="module")
def shop(_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Yield a worker with a scheduler in it, and a client of theirs."""
    folder = tmp_path_factory.mktemp("shop")
    with ExitStack() as stack:
        server = stack.enter_context(emptied(_server))
        config = CONFIG.format(broker=server.url(0), backend=server.url(1))
        (folder / "celeryconfig.py").write_text(config)
        (folder / "chores.py").write_text(CHORES)
        (folder / "log").mkdir()
        (folder / "meeting").mkdir()
        worker = stack.enter_context(beatd("worker", "-B", "-l", "info", cwd=folder))
        written: dict[str, Any] = {}
        exec(config, written)
        app = Beatd("client", config_source=written, set_as_current=False)
        stack.callback(app.close)
        raw = stack.enter_context(server.client())
        kept = stack.enter_context(redis.Redis.from_url(server.url(1)))
        worker.until("is ready")
        yield Shop(worker, folder, app, raw, kept)
        assert worker.stop() == 0


def test_entries_run_by_our_scheduler_and_its_file_is_where_it_should_be(
    shop: Shop,
) -> None:
    shop.worker.until("chores.where[")
    shop.worker.until("succeeded")

    assert (shop.folder / "log" / "celery.db").exists()


def test_three_run_at_a_time(shop: Shop) -> None:
    met = [shop.send("meet", f"{number}", 3) for number in range(6)]

    spans = sorted(tuple(one.get(timeout=PATIENCE)) for one in met)
    at_once = [sum(a <= began < b for a, b in spans) for began, _ in spans]
    assert max(at_once) == 3


def test_a_child_is_replaced_after_four_tasks(shop: Shop) -> None:
    runs = [shop.send("where") for _ in range(16)]

    pids = Counter(one.get(timeout=PATIENCE)["pid"] for one in runs)
    assert max(pids.values()) <= 4
    assert shop.worker.process.pid not in pids


def test_a_task_is_ended_at_the_time_limit(shop: Shop) -> None:
    with pytest.raises(TimeLimitExceeded):
        shop.send("sleep", 600).get(timeout=PATIENCE)


def test_results_are_ignored_unless_the_task_says_otherwise(shop: Shop) -> None:
    quiet = shop.send("quiet")
    shop.worker.until(f"chores.quiet[{quiet.id}] succeeded")

    assert shop.kept.get(KEY + quiet.id) is None


def test_results_are_kept_so_long_and_in_this_form(shop: Shop) -> None:
    run = shop.send("where")
    value = run.get(timeout=PATIENCE)

    text = shop.kept.get(KEY + run.id)
    assert yaml.safe_load(text)["result"] == value
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert 900 < shop.kept.ttl(KEY + run.id) <= 1000


def test_messages_are_in_this_form_and_no_other_is_accepted(shop: Shop) -> None:
    refused = shop.send("where", serializer="json")
    shop.worker.until(f"chores.where[{refused.id}] set aside: json is refused")

    with pytest.raises(BeatdError, match="json is refused"):
        refused.get(timeout=PATIENCE)


def test_tasks_see_the_zone_as_local_time(shop: Shop) -> None:
    assert shop.send("where").get(timeout=PATIENCE)["offset"] == "+0545"


def test_fan_out_exchanges_have_this_prefix(shop: Shop) -> None:
    with shop.raw.pubsub() as news:
        news.psubscribe("*news*")
        published = eventually(lambda: heard(news), "a message for all")

    assert published["channel"].startswith(b"shop.news")
    assert json.loads(published["data"])["content-type"] == "application/x-yaml"


def heard(news: Any) -> dict[str, Any] | None:
    message = news.get_message(timeout=0.1)
    return message if message and message["type"] == "pmessage" else None


def test_a_process_opens_no_more_connections_for_results(shop: Shop) -> None:
    answers, opened = shop.send("crowd", 20).get(timeout=PATIENCE)

    assert answers == ["PENDING"] * 200
    assert 0 < opened <= 2
