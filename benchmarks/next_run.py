"""How long the next run of a cron expression takes to find, beside other engines.

    python -m benchmarks.next_run

Fifty realistic expressions, in UTC and in New York. Each engine starts at the same
twenty instants, spread over a year, and walks four runs on from each; reading the
expression is not measured. All figures are microseconds for one next run and come from
one run of this script. Engines that cannot be imported are named and left out.
"""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles
from time import perf_counter_ns
from typing import TypeAlias
from zoneinfo import ZoneInfo

from beatd.instant import instant_of
from beatd.schedules import cron
from benchmarks.harness import PEERS, Figures, Row, Table, chosen, options, session

EXPRESSIONS = """
* * * * *
*/2 * * * *
*/5 * * * *
*/10 * * * *
*/15 * * * *
*/20 * * * *
*/30 * * * *
1-59/2 * * * *
3,18,33,48 * * * *
0 * * * *
5 * * * *
17 * * * *
30 * * * *
59 * * * *
0 */2 * * *
15 */3 * * *
0 */4 * * *
20 */6 * * *
0 */12 * * *
0 0 * * *
30 0 * * *
0 1 * * *
30 2 * * *
15 3 * * *
0 4 * * *
45 5 * * *
0 6 * * *
0 9 * * *
30 12 * * *
0 18 * * *
59 23 * * *
0 0,12 * * *
0 8,12,16 * * *
*/5 8-18 * * *
*/15 9-17 * * 1-5
0 9-17 * * 1-5
0 9 * * 1-5
30 17 * * 5
0 6 * * 1
0 0 * * 0
30 3 * * 6
0 10 * * 1,3,5
0 22 * * 1-5
0 0 1 * *
0 6 1 * *
30 4 15 * *
0 0 1,15 * *
0 0 1 1 *
0 0 1 */3 *
0 12 1 1,7 *
""".strip().splitlines()

ZONES = ("UTC", "America/New_York")
STARTS = [
    datetime(2026, 1, 5, 7, 41, 13, tzinfo=UTC) + n * timedelta(days=18, hours=5)
    for n in range(20)
]
RUNS = 4
PASSES = 5

Walk: TypeAlias = Callable[[], None]
"""Find `RUNS` runs after each of `STARTS`."""


def beatd_engine(expression: str, zone: ZoneInfo) -> Walk:
    next_after = cron(expression).in_zone(zone).next_after
    starts = [instant_of(start) for start in STARTS]

    def walk() -> None:
        for start in starts:
            slot: int | None = start
            for _ in range(RUNS):
                assert slot is not None
                slot = next_after(slot)

    return walk


def celery_engine(expression: str, zone: ZoneInfo) -> Walk:
    """The least of Celery that gives a next run: `remaining_delta`, added up."""
    from celery import Celery
    from celery.schedules import crontab
    from celery.utils.time import ffwd

    minute, hour, day, month, weekday = expression.split()
    app = Celery(set_as_current=False)
    app.conf.update(timezone=zone.key, enable_utc=True)
    schedule = crontab(
        minute, hour, weekday, day, month, app=app, nowfun=lambda: STARTS[0]
    )
    starts = [start.astimezone(zone) for start in STARTS]

    def walk() -> None:
        for slot in starts:
            for _ in range(RUNS):
                last, delta, _now = schedule.remaining_delta(slot, ffwd=ffwd)
                slot = last + delta

    return walk


def cronsim_engine(expression: str, zone: ZoneInfo) -> Walk:
    from cronsim import CronSim

    walks = [CronSim(expression, start.astimezone(zone)) for start in STARTS]

    def walk() -> None:
        for runs in walks:
            for _ in range(RUNS):
                next(runs)

    return walk


def croniter_engine(expression: str, zone: ZoneInfo) -> Walk:
    from croniter import croniter

    walks = [croniter(expression, start.astimezone(zone)) for start in STARTS]

    def walk() -> None:
        for runs in walks:
            for _ in range(RUNS):
                runs.get_next(datetime)

    return walk


Engine: TypeAlias = Callable[[str, ZoneInfo], Walk]

ENGINES: dict[str, Engine] = {
    "beatd": beatd_engine,
    "celery": celery_engine,
    "cronsim": cronsim_engine,
    "croniter": croniter_engine,
}


COLUMNS = {"median, us": ".2f", "p90, us": ".2f", "worst, us": ".2f"}


def rows() -> Iterator[Row]:
    """Give a row for each engine that can be imported; the others are named."""
    # Those of the peers' environment that are Python alone.
    sys.path += map(str, PEERS.parent.parent.glob("lib/python*/site-packages"))
    for name, engine in ENGINES.items():
        try:
            engine(EXPRESSIONS[0], ZoneInfo("UTC"))
        except ImportError:
            print(f"left out: {name}, which is not installed here")
            continue
        yield Row(name, lambda engine=engine: figures(engine))  # type: ignore[misc]


def figures(engine: Engine) -> Figures:
    times, unsaid = measure(engine)
    if unsaid:
        print(f"  cannot say {', '.join(unsaid)}")
    values = median(times), quantiles(times, n=10)[-1], max(times)
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    given = options(__doc__, runs=1).parse_args()
    with session("next_run") as tables:
        table = Table("next run of a cron expression", COLUMNS)
        tables.append(table)
        table.measure(chosen([*rows()], given), given.runs)


def measure(engine: Engine) -> tuple[list[float], list[str]]:
    """Give the time for each expression and zone, and the expressions it cannot say."""
    times, unsaid = [], []
    for expression in EXPRESSIONS:
        try:
            engine(expression, ZoneInfo("UTC"))
        except ValueError:
            unsaid.append(expression)
            continue
        for zone in map(ZoneInfo, ZONES):
            walks = [engine(expression, zone) for _ in range(PASSES)]
            times.append(median(time_of(walk) for walk in walks))
    return times, unsaid


def time_of(walk: Walk) -> float:
    begin = perf_counter_ns()
    walk()
    return (perf_counter_ns() - begin) / 1_000 / len(STARTS) / RUNS


if __name__ == "__main__":
    main()
