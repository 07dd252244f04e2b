"""What a tick costs with more and more entries, of which equally many are due.

    python benchmarks/tick.py [--due 100] [--ticks 100] [--sizes 1000 10000 100000]
        [--picture docs/pictures/tick.svg]

Schedulers in this process, each before a broker in memory and with a schedule file of
its own: they need no server. Prints for each size the median processor time of the
loop's thread in a tick that emits, that of a turn in which nothing is due, and of
replacing and of removing one entry; and draws the first against the size.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from beatd import crontab, every
from beatd.config.loading import examine_source
from beatd.config.source import Source
from beatd.scheduler.loop import Scheduler
from beatd.service.wiring.scheduler import scheduler_of

SIZES = (1_000, 10_000, 100_000, 1_000_000)

SCHEDULES = 5_000


@dataclass(frozen=True)
class Costs:
    """Medians for one size, in milliseconds of processor time."""

    entries: int
    tick: float
    idle: float
    replace: float
    remove: float


def schedule_of(entries: int, due: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield entries of which `due` come ten times a second, and others in a month."""
    month = (time.gmtime().tm_mon - 2) % 12 + 1
    for n in range(due):
        yield f"due-{n}", {"task": "t", "schedule": every(0.1), "args": (n,)}
    for n in range(entries - due):
        at = n % SCHEDULES
        when = crontab(at % 60, at // 60 % 24, "*", 1 + at // 1440, month)
        yield f"entry-{n}", {"task": "t", "schedule": when, "args": (n,)}


def made(entries: int, due: int, folder: Path) -> Scheduler:
    """Return a scheduler of so many entries whose term has begun."""
    written = {
        "broker_url": "memory://",
        "beat_schedule_filename": str(folder / f"{entries}.db"),
        "beat_schedule": dict(schedule_of(entries, due)),
    }
    config = examine_source(Source("tick", written)).config
    assert config is not None
    scheduler = scheduler_of(config)
    deadline = time.monotonic() + 300
    while scheduler.leadership.term is None or not scheduler.digest:
        scheduler.tick(scheduler.clock.now())
        if time.monotonic() > deadline:
            raise SystemExit("no term has begun")
    gc.collect()
    gc.freeze()
    return scheduler


def spent(action: Callable[[], object]) -> float:
    """Return the milliseconds of processor time that this thread takes for it."""
    before = time.thread_time()
    action()
    return 1000 * (time.thread_time() - before)


def measure(entries: int, due: int, ticks: int, folder: Path) -> Costs:
    scheduler = made(entries, due, folder)
    emitting: list[float] = []
    idle: list[float] = []
    while len(emitting) < ticks:
        now = scheduler.clock.now()
        at = scheduler.timetable.next_at()
        is_due = at is not None and at <= now
        cost = spent(lambda now=now: scheduler.tick(now))  # type: ignore[misc]
        (emitting if is_due else idle).append(cost)
        time.sleep(0.02)
    timetable, now = scheduler.timetable, scheduler.clock.now()
    names = [f"entry-{n}" for n in range(0, entries - due, max(1, entries // ticks))]
    replace, remove = [], []
    for name in names:
        entry, marks = timetable.entry(name), {name: timetable.mark(name)}
        remove.append(spent(lambda name=name: timetable.remove(name)))  # type: ignore[misc]
        place = [entry]
        replace.append(
            spent(lambda: timetable.place(place, marks, now))  # noqa: B023 - at once
        )
    scheduler.stop()
    medians = map(statistics.median, (emitting, idle, replace, remove))
    return Costs(entries, *medians)


def picture(found: list[Costs], due: int) -> str:
    """Return the drawing of a tick's cost against the number of entries."""
    wide, high, edge = 560, 260, 50
    top = 1.5 * max(one.tick for one in found)
    step = (wide - 2 * edge) / max(1, len(found) - 1)
    points = [
        (edge + n * step, high - edge - (high - 2 * edge) * one.tick / top)
        for n, one in enumerate(found)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>A tick with {due} entries due, by the number of entries</title>",
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        f'<path d="M{edge} {edge}V{high - edge}H{wide - edge}" fill="none"'
        ' stroke="#888"/>',
        f'<text x="{edge}" y="{edge - 15}">processor time of a tick with {due}'
        " entries due, ms</text>",
        f'<polyline points="{line}" fill="none" stroke="#1565c0" stroke-width="2"/>',
    ]
    for (x, y), one in zip(points, found, strict=True):
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1565c0"/>',
            f'<text x="{x:.1f}" y="{y - 10:.1f}" text-anchor="middle">'
            f"{one.tick:.2f}</text>",
            f'<text x="{x:.1f}" y="{high - edge + 18}" text-anchor="middle">'
            f"{one.entries:,}</text>",
        ]
    parts.append(
        f'<text x="{wide / 2}" y="{high - 10}" text-anchor="middle">entries</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--due", type=int, default=100)
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    print(f"processor time in ms, {given.due} entries due in a tick that emits")
    print(f"{'entries':>10} {'tick':>8} {'idle':>8} {'replace':>8} {'remove':>8}")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes:
            one = measure(size, given.due, given.ticks, Path(folder))
            found.append(one)
            print(
                f"{one.entries:10} {one.tick:8.3f} {one.idle:8.3f}"
                f" {one.replace:8.3f} {one.remove:8.3f}",
                flush=True,
            )
    if given.picture:
        given.picture.write_text(picture(found, given.due))


if __name__ == "__main__":
    main()
