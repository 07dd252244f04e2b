"""How fast tasks are sent: each by a call of its own, and many at once.

    python -m benchmarks.sending [--messages 10000] [--runs 5] [--beatd before=PYTHON]

Into Redis, in a process that does nothing else: tasks a second, and seconds of its
processor time for 1,000 tasks. The connection is made before.
"""

import argparse

from benchmarks.harness import (
    Figures,
    GivenUp,
    Row,
    Table,
    chosen,
    options,
    ours,
    place,
    session,
)
from benchmarks.workers import Worker, beatd, peers, rq

COLUMNS = {
    "one by one, tasks/s": ",.0f",
    "CPU s for 1,000": ".4f",
    "many at once, tasks/s": ",.0f",
    "CPU s for 1,000, many": ".4f",
}

SENDER = """
import sys
import time

import project

number = int(sys.argv[1])


def measure(work):
    began, effort = time.perf_counter(), time.process_time()
    work()
    rate = number / (time.perf_counter() - began)
    return rate, (time.process_time() - effort) / number * 1000


def one_by_one():
    for _ in range(number):
        project.send()


project.send()
figures = measure(one_by_one)
if hasattr(project, "send_many"):
    try:
        project.send_many(1)
        figures += measure(lambda: project.send_many(number))
    except AttributeError:  # an earlier beatd
        pass
print(*figures)
"""


def measure(worker: Worker, messages: int) -> Figures:
    with place() as here:
        worker.prepare(here, results=False)
        here.write({"sender.py": SENDER})
        name = f"sender of {worker.name}"
        with here.run(worker.python, "sender.py", str(messages), name=name) as program:
            program.until(lambda: program.log.read_text().endswith("\n"))
            said = program.log.read_text()
    try:
        return dict(zip(COLUMNS, map(float, said.split()), strict=False))
    except ValueError as error:
        raise GivenUp(f"{name}:\n{said}") from error


def rows(given: argparse.Namespace) -> list[Row]:
    ways = [beatd(one)[0] for one in ours(given)]
    others = [*peers(), *rq()]
    names = set()
    for one in others:
        if not one.file and one.module not in names:
            names.add(one.module)
            ways.append(one)
    return chosen(
        [
            Row(
                one.name.partition(",")[0],
                lambda one=one: measure(one, given.messages),  # type: ignore[misc]
            )
            for one in ways
        ],
        given,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    given = parser.parse_args()
    with session("sending") as tables:
        table = Table(f"{given.messages:,} tasks sent", COLUMNS)
        tables.append(table)
        table.measure(rows(given), given.runs)


if __name__ == "__main__":
    main()
