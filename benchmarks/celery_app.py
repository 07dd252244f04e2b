"""How long the entries of a Celery app take to be read, and to be made anew.

    python benchmarks/celery_app.py [--entries 10000] [--runs 3]

In this process, without a server; processor time, the best of the runs:

- seconds to read the app's entries, against the same entries without Celery (made by
  beatd alone): of one task, and of as many tasks as entries
- messages a second where each is made by a call, since somebody listens
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
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


def best(runs: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(runs):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--entries", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=3)
    given = options.parse_args()
    for tasks in (1, given.entries):
        app = app_of(given.entries, tasks)
        without = best(given.runs, partial(read, app, by_celery=False))
        within = best(given.runs, partial(read, app, by_celery=True))
        print(
            f"read, {given.entries} entries of {tasks} tasks: {within:.2f} s,"
            f" without Celery {without:.2f} s: {within / without:.1f} times"
        )
    config = read(app_of(given.entries, 1), by_celery=True)
    signals.before_task_publish.connect(listen)

    def make() -> None:
        for entry in config.entries:
            entry.message.made(id=entry.name, now=NOW, slot=NOW, expires=None)

    taken = best(given.runs, make)
    print(f"made anew: {given.entries / taken:,.0f} messages a second")


def listen(headers: dict[str, Any], **_: Any) -> None:
    headers["trace"] = "1"


if __name__ == "__main__":
    main()
