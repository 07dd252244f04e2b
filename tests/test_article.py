"""The project of the articles: scheduler, worker and main program, each a process."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from beatd.app import Beatd
from beatd.config import places
from beatd.config.settings import spellings
from tests.processes import environment, started
from tests.servers import PATIENCE, Server, eventually

EXAMPLE = Path(__file__).parent.parent / "examples" / "schedules" / "article"

SEVENTEEN = """
    CELERY_ACCEPT_CONTENT CELERY_TIMEZONE CELERY_INCLUDE CELERYBEAT_SCHEDULER
    CELERYBEAT_SCHEDULE_FILENAME BROKER_URL BROKER_TRANSPORT_OPTIONS
    CELERY_RESULT_BACKEND CELERY_RESULT_SERIALIZER CELERY_RESULT_PERSISTENT
    CELERY_TASK_RESULT_EXPIRES CELERY_TASK_SERIALIZER CELERY_TASK_TIME_LIMIT
    CELERY_TASK_IGNORE_RESULT CELERYD_CONCURRENCY CELERYD_MAX_TASKS_PER_CHILD
    CELERY_REDIS_MAX_CONNECTIONS
"""


class Article:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        shutil.copytree(EXAMPLE, folder / "article")
        (folder / "log").mkdir()
        self._environ = {"ARTICLE_REDIS": url}

    def client(self, *arguments: str) -> str:
        """Run the main program and give what it prints."""
        return subprocess.run(
            [sys.executable, "-m", "article.client", *arguments],
            cwd=self.folder,
            env=environment(**self._environ),
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout.strip()

    @contextmanager
    def beatd(self, *arguments: str) -> Iterator[Path]:
        """Run a command for the block's time; give its log."""
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as output:
            process = started(
                "beatd", *arguments, cwd=self.folder, output=output, env=self._environ
            )
        try:
            yield log
            process.terminate()
            status = process.wait(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
        assert status == 0, log.read_text()


def succeeded(log: Path, task_id: str) -> bool:
    """Return whether a run with an id like this ended well."""
    words = rf"article\.tasks\.add\[{task_id}\] succeeded"
    return re.search(words, log.read_text()) is not None


@pytest.fixture
def article(server: Server, tmp_path: Path) -> Article:
    return Article(tmp_path, server.url())


def test_the_config_has_the_seventeen_settings_in_these_spellings() -> None:
    written = places.of_config(
        str(EXAMPLE / "config.py"), environ={}, folder=Path.cwd()
    ).written
    names = [name for name in written if name in spellings()]

    assert sorted(names) == sorted([*SEVENTEEN.split(), "CELERYBEAT_SCHEDULE"])


def test_all_seventeen_settings_have_their_meaning() -> None:
    app = Beatd(set_as_current=False)
    app.config_from_object(
        dict(places.of_config(str(EXAMPLE / "config.py"), {}, Path.cwd()).written)
    )
    conf = app.conf

    assert conf.accept_content == ("json",)
    assert conf.timezone == "Europe/Berlin"
    assert conf.include == ("article.tasks",)
    assert conf.beat_schedule_filename == "log/celery.db"
    assert conf.broker_transport_options == {"fanout_prefix": True}
    assert (conf.task_serializer, conf.result_serializer) == ("json", "json")
    assert (conf.result_expires, conf.result_persistent) == (3600, True)
    assert (conf.task_time_limit, conf.task_ignore_result) == (60, False)
    assert (conf.worker_concurrency, conf.worker_max_tasks_per_child) == (2, 100)
    assert conf.redis_max_connections == 20


def test_the_whole_project_runs(article: Article, server: Server) -> None:
    with ExitStack() as stack:
        worker = stack.enter_context(
            article.beatd("worker", "-A", "article", "-l", "info")
        )
        stack.enter_context(
            article.beatd("-A", "article", "--schedule-filename", "log/celery.db")
        )
        task_id = article.client()

        eventually(lambda: succeeded(worker, task_id), "the client's run")
        assert article.client(task_id) == "5 SUCCESS"
        eventually(
            lambda: succeeded(worker, r"(?!" + task_id + r")\S+"),
            "a run by the schedule beside the client's",
        )
    with server.client() as raw:
        kept = json.loads(raw.get(f"celery-task-meta-{task_id}") or b"null")
        assert 0 < raw.ttl(f"celery-task-meta-{task_id}") <= 3600
    assert kept["result"] == 5
    assert (article.folder / "log" / "celery.db").exists()
