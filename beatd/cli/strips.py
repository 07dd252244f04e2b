"""Signs for what became of an entry's last slots, in a column of `beatd list`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from zoneinfo import ZoneInfo

import click

from beatd.cli.output import Failure, Screen, stamps
from beatd.cli.past import Run, past_view
from beatd.config.loading import Config
from beatd.errors import BeatdError
from beatd.instant import Instant, Span, span_of
from beatd.timetable.pages import What

STRIP = 15
"""How many of an entry's last slots are shown."""

HEAD = f"LAST {STRIP}"


class Strips:
    """What became of each entry's last slots, beside the table, where it has room."""

    def __init__(self, config: Config, out: Screen, names: Sequence[str]) -> None:
        """Ask for what became of the slots of these entries.

        If the broker cannot be asked, standard error has that, and nothing is known.
        """
        self._late = span_of(config.settings.beat_max_late)
        self._out = out
        self._names = names
        self._runs = _recent(config, names)
        self.legend = ""
        """What the signs mean that are there."""

    def state(self, name: str, slot: Instant | None) -> str:
        """Return in a word how the run of a slot ended; empty if nobody knows."""
        for run in reversed(self._runs.get(name, ())):
            if run.id and run.record.slot == slot:
                return run.word if run.state else ""
        return ""

    def beside(self, rows: Sequence[str]) -> list[str]:
        """Return the head and the rows of the entries with strips after them.

        Without room, or a history, they stay as they are.
        """
        width = max(len(click.unstyle(row)) for row in rows)
        room = self._out.width
        if room is not None and width + 2 + STRIP > room:
            return [*rows]
        runs, late = self._runs, self._late
        if not any(runs.values()):
            return [*rows]
        every = [run for some in runs.values() for run in some]
        self.legend = _legend(every, late, self._out)
        cells = [HEAD, *(_strip(runs[name], late, self._out) for name in self._names)]
        gaps = [" " * (width - len(click.unstyle(row))) for row in rows]
        table = zip(rows, gaps, cells, strict=True)
        return [f"{row}{gap}  {cell}".rstrip() for row, gap, cell in table]

    def data(self, zone: ZoneInfo) -> dict[str, object]:
        """Return by entry the same for a JSON document, the oldest slot first."""
        return {
            name: [
                {
                    **stamps("slot", run.record.reach, zone),
                    "kind": _kind(run, self._late),
                }
                for run in runs
            ]
            for name, runs in self._runs.items()
        }


def _recent(config: Config, names: Sequence[str]) -> dict[str, list[Run]]:
    try:
        return past_view(config).recent(names, STRIP)
    except (BeatdError, Failure) as error:
        click.echo(f"no {HEAD}: {error}", err=True)
        return {}


_GLYPHS: Mapping[str, tuple[str, str]] = {
    "ok": ("+", "✔"),
    "sent": (">", "➤"),
    "late": ("~", "◷"),
    "missed": ("!", "▲"),
    "failed": ("x", "✘"),
    "dropped": ("-", "⤼"),
    "runs": ("*", "●"),
    "paused": ("=", "‖"),
    "uncertain": ("?", "?"),
}
"""By what became of a slot, its sign in ASCII, and in other text."""

_STYLES = {"failed": "bad", "missed": "warning", "late": "warning"}

_OF_REASONS = {"misfire": "missed", "paused": "paused", "unroutable": "missed"}
_OF_STATES = {"SUCCESS": "ok", "FAILURE": "failed", "STARTED": "runs"}


def _kind(run: Run, tolerance: Span) -> str:
    """Return what became of a slot, as strips show it."""
    if run.record.what is What.DROPPED:
        return _OF_REASONS.get(run.record.why, "dropped")
    if run.record.what is What.UNCERTAIN:
        return "uncertain"
    kind = _OF_STATES.get(run.state, "sent")
    return "late" if kind in ("ok", "sent") and run.late > tolerance else kind


def _strip(runs: Sequence[Run], tolerance: Span, out: Screen) -> str:
    """Return a sign for each run; those later than `tolerance` are late."""
    kinds = [_kind(run, tolerance) for run in runs]
    return "".join(
        out.style(_GLYPHS[kind][out.utf8] * len([*same]), like=_STYLES.get(kind, kind))
        for kind, same in groupby(kinds)
    )


def _legend(runs: Iterable[Run], tolerance: Span, out: Screen) -> str:
    """Return what the signs of these runs mean."""
    kinds = {_kind(run, tolerance) for run in runs}
    return ", ".join(
        f"{signs[out.utf8]} {kind}" for kind, signs in _GLYPHS.items() if kind in kinds
    )
