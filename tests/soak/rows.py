"""The entries of a soak: how the config has them, and their slots by own arithmetic.

Slots are milliseconds since the epoch. They are found by counting, and by looking at
every second of the time; local times are those of the standard library. No code of
beatd is asked.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import TypeAlias
from zoneinfo import ZoneInfo

SECOND = 1000

Slots: TypeAlias = Callable[[int, int], Iterable[int]]
"""Returns the slots from one instant to another, both included."""

ZONES = ("Asia/Kolkata", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe")


@dataclass(frozen=True)
class Line:
    """A schedule, as it is written and as it is reckoned."""

    text: str
    slots: Slots


@dataclass(frozen=True)
class Row:
    """One entry; it may be another one, or none, in the changed config."""

    name: str
    line: Line | None
    """None: the plain config does not have it."""
    changed: Line | None
    """What the changed config has instead; None: it does not have it."""
    keys: Mapping[str, object] = field(default_factory=dict)
    """Its rules, as the config has them; each is written as `repr` writes it."""
    rests: bool = False
    """Whether it is paused in the changed config."""
    lasts: tuple[float, ...] = (0.0,)
    """The seconds that its runs take, slot by slot, over and over."""
    from_last: int = 0
    """Its period, if its slots are counted from the first one, whenever that was."""

    def get(self, key: str, default: object = None) -> object:
        """Return what a rule says."""
        return self.keys.get(key, default)

    @property
    def differs(self) -> bool:
        """Whether the two configs have it differently."""
        return self.rests or self.line is not self.changed

    def text(self, *, is_changed: bool) -> str:
        """Return its line of the config; nothing if that does not have it."""
        line = self.changed if is_changed else self.line
        if line is None:
            return ""
        keys: dict[str, object] = {
            "task": "soak.work",
            "kwargs": {"lasts": self.lasts},
            **self.keys,
        }
        if self.rests and is_changed:
            keys["enabled"] = False
        words = "".join(f", {key!r}: {value!r}" for key, value in keys.items())
        return f'    {self.name!r}: {{"schedule": {line.text}{words}}},\n'


def config_text(rows: Iterable[Row], *, is_changed: bool) -> str:
    """Return the config module, plain or changed."""
    lines = "".join(row.text(is_changed=is_changed) for row in rows)
    return (
        "import datetime\nfrom datetime import timedelta\n\n"
        "from beatd.schedules import cron, crontab, every, once\n\n"
        'timezone = "UTC"\n'
        "beat_history_per_entry = 20_000\n"
        "beat_history_bytes = 100_000_000\n"
        f"beat_schedule = {{\n{lines}}}\n"
    )


# Arithmetic ------------------------------------------------------------------------


def grid(every: int, offset: int = 0) -> Slots:
    """Return the slots that come each `every` milliseconds from the epoch on."""

    def slots(begin: int, end: int) -> Iterator[int]:
        first = begin + (offset - begin) % every
        return iter(range(first, end + 1, every))

    return slots


def local(zone: str, minutes: Iterable[int], seconds: Iterable[int] = (0,)) -> Slots:
    """Return the slots at these minutes and seconds of each hour of a zone's clock."""
    place, wanted, within = ZoneInfo(zone), frozenset(minutes), frozenset(seconds)

    def slots(begin: int, end: int) -> Iterator[int]:
        for at in range(begin + -begin % SECOND, end + 1, SECOND):
            shown = datetime.fromtimestamp(at / SECOND, UTC).astimezone(place)
            if shown.second in within and shown.minute in wanted:
                yield at

    return slots


def single(at: int) -> Slots:
    """Return the one slot."""
    return lambda begin, end: [at] if begin <= at <= end else []


def bounded(slots: Slots, first: int, last: int) -> Slots:
    """Return those of the slots that lie between two instants."""
    return lambda begin, end: slots(max(begin, first), min(end, last))


# The entries -----------------------------------------------------------------------


def all_rows(begin: int, length: int) -> list[Row]:
    """Return 200 entries for a soak that begins then and is so many seconds long."""
    rows = [*chain(_intervals(), _crons(), _policies(), _overlaps(), _changing())]
    rows += _bounded(begin, length)
    every_minute = Line("crontab()", local("UTC", range(60)))
    rows += [_same(f"minutely-{n}", every_minute) for n in range(200 - len(rows))]
    return rows


def _same(name: str, line: Line, **more: object) -> Row:
    return Row(name, line, line, more)


def _every(seconds: int, offset: int = 0) -> Line:
    text = f"every({seconds}, offset={offset})"
    return Line(text, grid(seconds * SECOND, offset * SECOND))


def _intervals() -> Iterator[Row]:
    for number in range(3):
        yield _same(f"each-second-{number}", _every(1), coalesce=False)
    for number in range(20):
        yield _same(f"five-{number}", _every(5, number % 5))
    for number in range(10):
        yield _same(f"seven-{number}", Line("7", grid(7 * SECOND)))
        line = Line("timedelta(seconds=15)", grid(15 * SECOND))
        yield _same(f"quarter-{number}", line, options={"queue": "other"})
    for number in range(4):
        line = Line("every(8, align=False)", grid(8 * SECOND))
        yield Row(f"from-last-{number}", line, line, from_last=8 * SECOND)


def _crons() -> Iterator[Row]:
    each, tens = range(60), range(0, 60, 10)
    for number in range(3):
        line = Line('cron("* * * * * *")', local("UTC", each, each))
        yield _same(f"cron-second-{number}", line, coalesce=False)
    for number in range(12):
        zone = ZONES[number % len(ZONES)]
        line = Line('cron("* * * * * */10")', local(zone, each, tens))
        yield _same(f"cron-ten-{number}", line, timezone=zone, coalesce=number % 2 == 0)
    for number in range(24):
        zone, step = ZONES[number % len(ZONES)], 2 + number % 3
        minutes = range(0, 60, step)
        line = Line(f'crontab(minute="*/{step}")', local(zone, minutes))
        yield _same(f"crontab-{number}", line, timezone=zone)
    for number in range(6):
        zone = ZONES[number % len(ZONES)]
        listed = "1,4,9,16,25,31,36,43,49,55"
        line = Line(f'"{listed} * * * *"', local(zone, map(int, listed.split(","))))
        yield _same(f"listed-{number}", line, timezone=zone, coalesce=False)


def _policies() -> Iterator[Row]:
    for number in range(15):
        rules = {"misfire_grace_time": 2, "coalesce": number % 2 == 0}
        yield _same(f"grace-{number}", _every(6, number % 6), **rules)
    for number in range(10):
        rules = {"coalesce": False, "max_catchup": 2}
        yield _same(f"catchup-{number}", _every(4, number % 4), **rules)
    for number in range(8):
        options = {"expires": "next"}
        yield _same(f"expires-{number}", _every(4, number % 4), options=options)
    for number in range(5):
        yield _same(f"jitter-{number}", _every(10, number), jitter=3)
    for number in range(2):
        yield _same(f"argument-{number}", _every(9, number), slot_argument="due")


def _overlaps() -> Iterator[Row]:
    lasts = (0.1, 2.5, 6.0, 0.1, 1.0)
    for kind in ("skip", "queue_one"):
        for number in range(6):
            line, keys = _every(3, number % 3), {"overlap": kind}
            yield Row(f"{kind}-{number}", line, line, keys, lasts=lasts)


def _changing() -> Iterator[Row]:
    for number in range(6):
        line = _every(3, number % 3)
        yield Row(f"rests-{number}", line, line, {"coalesce": False}, rests=True)
    for number in range(4):
        yield Row(f"leaves-{number}", _every(5, number), None)
        yield Row(f"comes-{number}", None, _every(5, number))
        yield Row(f"changes-{number}", _every(5), _every(7, number))


def _bounded(begin: int, length: int) -> Iterator[Row]:
    def at(part: float) -> int:
        return (begin + int(length * part) * SECOND) // SECOND * SECOND

    for number, part in enumerate((0.3, 0.5, 0.7)):
        shown = datetime.fromtimestamp(at(part) / SECOND, UTC)
        line = Line(f'once("{shown:%Y-%m-%dT%H:%M:%S}+00:00")', single(at(part)))
        yield _same(f"once-{number}", line)
    first, last = at(0.25), at(0.75)
    bounds = {
        "start_time": datetime.fromtimestamp(first / SECOND, UTC),
        "end_time": datetime.fromtimestamp(last / SECOND, UTC),
    }
    line = Line("every(5)", bounded(grid(5 * SECOND), first, last))
    yield _same("bounded", line, **{key: _written(at) for key, at in bounds.items()})
    yield _same("ten-runs", _every(4), max_runs=10, coalesce=False)
    yield _same("at-start", _every(10), run_on_start=True)


class _written:
    """A moment, as a config module has it."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def __repr__(self) -> str:
        text = f"{self._moment:%Y-%m-%dT%H:%M:%S}+00:00"
        return f'datetime.datetime.fromisoformat("{text}")'
