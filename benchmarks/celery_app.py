"""How long the entries of a Celery app take to be read, and to be made anew.

    python benchmarks/celery_app.py [--entries 10000] [--runs 5]

- seconds of processor time to read the app's entries, against the same entries without
  Celery (made by beatd alone), each the median of the runs: of one task, and of as many
  tasks as entries
- messages a second of processor time where each is made by a call, since a receiver of
  `before_task_publish` listens

In this process, without a server; `at_once.py` emits such messages.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.schedules import crontab

from beatd.config.loading import Config, examine_source
from beatd.config.source import Source

NOW = 1_800_000_000_000


def run(*_: object, **__: object) -> None: ...


def app_of(entries: int, tasks: int) -> Any:
    app = Celery("bench", broker="redis://127.0.0.1:1/0", set_as_current=False)
    for number in range(tasks):
        app.task(run, name=f"run-{number}", shared=False)
    app.conf.beat_schedule = {
        f"entry-{number}": {
            "task": f"run-{number % tasks}",
            "schedule": crontab(minute=str(number % 60)),
            "args": (number,),
            "kwargs": {"name": f"number {number}"},
        }
        for number in range(entries)
    }
    app.finalize()
    return app


def read(app: Any, *, by_celery: bool) -> Config:
    written = {"beat_schedule": app.conf.beat_schedule}
    report = examine_source(Source("bench", written, app=app if by_celery else None))
    assert report.config
    assert not report.config.bad
    return report.config


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def reading(entries: int, tasks: int, runs: int) -> tuple[float, float]:
    """Give the seconds that it takes with Celery, and without: one after the other."""
    app = app_of(entries, tasks)
    both = [
        (
            seconds(lambda: read(app, by_celery=True)),
            seconds(lambda: read(app, by_celery=False)),
        )
        for _ in range(runs)
    ]
    within, without = map(statistics.median, zip(*both, strict=True))
    return within, without


def made_anew(entries: int, runs: int) -> float:
    """Give messages a second of processor time."""
    config = read(app_of(entries, 1), by_celery=True)
    signals.before_task_publish.connect(listen)

    def make() -> None:
        for entry in config.entries:
            entry.message.made(id=entry.name, now=NOW, slot=NOW, expires=None)

    return entries / statistics.median(seconds(make) for _ in range(runs))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--entries", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=5)
    given = options.parse_args()
    for tasks in (1, given.entries):
        within, without = reading(given.entries, tasks, given.runs)
        print(
            f"read, {given.entries} entries of {tasks} tasks: {within:.2f} s,"
            f" without Celery {without:.2f} s: {within / without:.1f} times"
        )
    rate = made_anew(given.entries, given.runs)
    print(f"made anew: {rate:,.0f} messages a second")


def listen(headers: dict[str, Any], **_: Any) -> None:
    headers["trace"] = "1"


if __name__ == "__main__":
    main()
