"""The pictures of the README and the site: what commands print, as SVG.

    python -m tests.pictures

writes docs/pictures/list.svg and status.svg. A shop is made in a folder that is thrown
away, with a scheduler that answers from a snapshot; then the commands print what they
print to a terminal, at the time of the shop. tests/test_site.py makes the pictures
again and compares.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import chdir, closing
from html import escape
from pathlib import Path

import msgspec
from click.testing import CliRunner
from freezegun import freeze_time

from beatd.cli import beatd
from beatd.cli.output import Screen
from beatd.config.loading import Wanted, load
from beatd.ids import run_id
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, datetime_of
from beatd.results import connect
from beatd.results.base import Meta
from beatd.service.status import (
    BrokerStatus,
    HealthProblem,
    QueueStatus,
    WorkerStatus,
)
from beatd.version import __version__
from tests.cli.conftest import LAST_RUNS, NOW, SHOP, at, ran
from tests.cli.test_history import Told
from tests.cli.test_status import WELL, Scheduler
from tests.processes import ROOT

FOLDER = ROOT / "docs" / "pictures"
SCREEN = Screen(width=112, color=True, utf8=True)
_HOME = "/srv/shop"  # what the folder is called in the pictures
_FILES = """
broker_url = "sqlite:///broker.db"
result_backend = "sqlite:///results.db"
"""

# A letter for each of the last slots: . ran, x failed, l late, m missed, o still runs.
_PAST = {
    "tick": (2 * SECOND, "..............."),
    "sync-crm": (5 * MINUTE, "...x..........o"),
    "report-sales": (HOUR, "............ml."),
    "nightly-backup": (DAY, "..............."),
    "invoice-run": (30 * DAY, "....x........xx"),
}
_STATES = {"x": "FAILURE", "o": "STARTED"}

_WELL = msgspec.structs.replace(
    WELL,
    version=__version__,
    config=msgspec.structs.replace(WELL.config, state_file="celerybeat-schedule"),
    broker=BrokerStatus(
        url="sqlite:///broker.db",
        answers=True,
        server=f"sqlite 3.46.1, {_HOME}/broker.db",
        round_trip=0.0002,
    ),
    queues=[
        QueueStatus(name="celery", length=3, oldest=1.2, workers=["w1@a", "w2@a"]),
        QueueStatus(name="reports", length=0, workers=["w2@a"]),
    ],
    workers=[
        WorkerStatus(name="w1@host-a", queues=["celery"], holds=2),
        WorkerStatus(name="w2@host-a", queues=["celery", "reports"], holds=0),
    ],
    problems=[
        HealthProblem(
            kind="dead_letters",
            text="workers have set aside 1 message",
            command="beatd dead list",
        )
    ],
)


def _write_past(last: dict[str, Instant]) -> None:
    """Write what became of the shop's last slots into its broker and its results."""
    told = Told()
    metas = []
    told.begin(NOW - 3 * DAY)
    for entry, (period, letters) in _PAST.items():
        for back, letter in zip(range(len(letters))[::-1], letters, strict=True):
            slot = last[entry] - back * period
            if letter == "m":
                told.dropped(entry, slot, slot, 1, "misfire")
                continue
            told.sent(entry, slot, late=250 * SECOND if letter == "l" else 6)
            state = _STATES.get(letter, "SUCCESS")
            took = None if letter == "o" else 0.004 if entry == "tick" else 11.9
            id = run_id("default", entry, 0, slot)
            metas.append(Meta(id, state, runtime=took))
    told.broker.close()
    with closing(connect(load(Wanted()).settings)) as results:
        results.store(metas)


def printed() -> Iterator[tuple[str, str]]:
    """Yield the name of each picture, and the command with what it prints."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("celeryconfig.py").write_text(SHOP + _FILES)
        with freeze_time(datetime_of(NOW)):
            ran(**{name.replace("-", "_"): last for name, last in LAST_RUNS.items()})
            _write_past({name: at(LAST_RUNS[name]) for name in _PAST})
            with Scheduler(Path(folder)) as scheduler:
                scheduler.status = _WELL
                for name in ("list", "status"):
                    shown = CliRunner().invoke(
                        beatd, [name], obj=SCREEN, color=True, catch_exceptions=False
                    )
                    text = shown.stdout.replace(str(Path.cwd()), _HOME)
                    yield name, f"$ beatd {name}\n{text}"


# As SVG ----------------------------------------------------------------------------

_WIDTH, _HEIGHT, _MARGIN = 8.4, 20, 16
_COLOURS = {"31": "#ff7b72", "90": "#8b949e", "38;5;208": "#ffa657"}
"""Of the escape sequences that commands use, the colour on a dark ground."""


def drawn(text: str, title: str) -> str:
    """Return what a terminal would show of a text, as SVG."""
    lines = text.rstrip("\n").split("\n")
    columns = max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)
    width = round(columns * _WIDTH + 2 * _MARGIN)
    height = len(lines) * _HEIGHT + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img" aria-label="{title}"'
        " font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\""
        ' font-size="14" fill="#e6edf3" xml:space="preserve">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
    ]
    for number, line in enumerate(lines):
        y = _MARGIN + number * _HEIGHT + 15
        parts += (_word(x, y, word, how) for x, word, how in _words(line))
    return "\n".join([*parts, "</svg>\n"])


def _words(line: str) -> Iterator[tuple[int, str, str]]:
    """Yield stretches of a line without wide gaps: column, text, escape sequence."""
    column, how = 0, ""
    for part in re.split(r"(\x1b\[[\d;]*m)", line):
        if found := re.fullmatch(r"\x1b\[([\d;]*)m", part):
            how = "" if found[1] == "0" else f"{how} {found[1]}"
            continue
        for word in re.finditer(r"\S+(?: \S+)*", part):
            yield column + word.start(), word[0], how
        column += len(part)


def _word(column: int, y: int, word: str, how: str) -> str:
    colour = [hue for code, hue in _COLOURS.items() if code in how.split()]
    looks = f' fill="{colour[-1]}"' if colour else ""
    looks += ' font-weight="bold"' if "1" in how.split() else ""
    x, length = _MARGIN + column * _WIDTH, len(word) * _WIDTH
    place = f'x="{x:.1f}" y="{y}" textLength="{length:.1f}"'
    return f"<text {place}{looks}>{escape(word)}</text>"


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    for name, text in printed():
        FOLDER.joinpath(f"{name}.svg").write_text(drawn(text, f"beatd {name}"))
        print(text)
