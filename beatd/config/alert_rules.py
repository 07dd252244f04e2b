"""Which rule of alerts holds for which entry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from beatd.config.settings import (
    ALL_ALERTS,
    AlertKind,
    Changes,
    Ping,
    Problem,
    Settings,
)
from beatd.instant import SECOND, Span, span_of
from beatd.text import counted

_KNOWN = 100_000
"""Entries whose rules are remembered, at most."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """What is told of an entry, and to whom."""

    kinds: frozenset[AlertKind] = ALL_ALERTS
    max_late: Span = 10 * SECOND
    failures: int = 1
    """How many failures in a row are an alert."""
    max_wait: Span | None = None
    max_run: Span | None = None
    pause_after: int | None = None
    """How many failures in a row pause the entry."""
    ping: Ping | None = None
    command: tuple[str, ...] | None = None
    function: str | None = None
    log: bool = True

    @property
    def watches_runs(self) -> bool:
        """Whether it depends on what becomes of runs once they are sent."""
        wants_end = {AlertKind.FAILED, AlertKind.RECOVERED} & self.kinds
        return bool(wants_end or self.waits or self.pause_after or self.ping)

    @property
    def waits(self) -> bool:
        """Whether it depends on how long runs wait, or go on."""
        return bool(
            (self.max_wait is not None and AlertKind.NOT_TAKEN in self.kinds)
            or (self.max_run is not None and AlertKind.TOO_LONG in self.kinds)
        )

    @property
    def told(self) -> list[str]:
        """What is told, in words, in the order of the kinds."""
        words = {
            AlertKind.LATE: f"late by more than {as_written(self.max_late)}",
            AlertKind.MISSED: "missed",
            AlertKind.FAILED: "failed" + _in_a_row(self.failures),
            AlertKind.RECOVERED: "recovered",
        }
        if self.max_wait:
            words[AlertKind.NOT_TAKEN] = f"not taken for {as_written(self.max_wait)}"
        if self.max_run:
            words[AlertKind.TOO_LONG] = f"goes on for {as_written(self.max_run)}"
        if self.pause_after:
            number = counted(self.pause_after, "failure")
            words[AlertKind.PAUSED] = f"paused after {number}"
        return [text for kind, text in words.items() if kind in self.kinds]

    @property
    def ways(self) -> list[str]:
        """To whom it is told, in words without secrets."""
        found = ["log"] if self.log else []
        if self.ping:
            found.append(f"ping {self.ping.shown}")
        if self.command:
            found.append(f"command {self.command[0]}")
        if self.function:
            found.append(f"function {self.function}")
        return found


def _in_a_row(number: int) -> str:
    return f" {number} times in a row" if number > 1 else ""


def as_written(span: Span) -> str:
    """Return a limit in seconds, as the config has it."""
    return f"{span / SECOND:g} s"


@dataclass(frozen=True)
class AlertRules:
    """The rules of one config; False for none at all.

    All globs that an entry's name matches count, in the order in which they are
    written, a later one before an earlier one; then what the entry itself says.
    """

    default: AlertRule = AlertRule()
    globs: Sequence[tuple[str, Changes | None]] = ()
    own: Mapping[str, Changes | None] = field(default_factory=dict)
    pauses: Mapping[str, int] = field(default_factory=dict)
    """By entry, its own `pause_after_failures`."""
    _known: dict[str, AlertRule | None] = field(
        default_factory=dict, compare=False, repr=False
    )

    _shared: dict[tuple[int, ...], AlertRule | None] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __bool__(self) -> bool:
        return bool(self.globs or self.own or self.pauses or self.default.pause_after)

    @property
    def functions(self) -> list[str]:
        """The dotted names of all functions that may be called."""
        said = [*(changes for _, changes in self.globs), *self.own.values()]
        names = (changes.get("function") for changes in said if changes)
        return [*dict.fromkeys(filter(None, names))]

    def of(self, entry: str) -> AlertRule | None:
        """Return the rule of an entry; None if nothing is told of it."""
        try:
            return self._known[entry]
        except KeyError:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            rule = self._known[entry] = self._of(entry)
            return rule

    def _of(self, entry: str) -> AlertRule | None:
        matched = tuple(
            number
            for number, (glob, _) in enumerate(self.globs)
            if fnmatchcase(entry, glob)
        )
        if entry in self.own or entry in self.pauses:
            return self._made(entry, matched)
        # Entries that match the same globs share one rule: there may be very many.
        if matched not in self._shared:
            self._shared[matched] = self._made(entry, matched)
        return self._shared[matched]

    def _made(self, entry: str, matched: Sequence[int]) -> AlertRule | None:
        said = [self.globs[number][1] for number in matched]
        if entry in self.own:
            said.append(self.own[entry])
        rule = None
        for changes in said:
            # None switches all off that was said before.
            rule = None if changes is None else replace(rule or self.default, **changes)
        pause = self.pauses.get(entry, (rule or self.default).pause_after)
        if rule is not None:
            return replace(rule, pause_after=pause)
        # It may be paused without alerts of other kinds.
        only = frozenset({AlertKind.PAUSED})
        return replace(self.default, kinds=only, pause_after=pause) if pause else None


NO_ALERTS = AlertRules()


def rules_of(
    settings: Settings, own: Mapping[str, Changes | None], pauses: Mapping[str, int]
) -> AlertRules:
    """Return the rules of a config; `own` and `pauses` are what its entries say."""
    default = AlertRule(
        max_late=span_of(settings.beat_max_late),
        pause_after=settings.beat_pause_after_failures,
    )
    return AlertRules(default, [*settings.beat_alerts.items()], own, pauses)


def unreadable(rules: AlertRules, settings: Settings) -> Iterator[tuple[str, Problem]]:
    """Yield a problem, and its setting, if alerts lack what they are read from."""
    if rules and not settings.beat_history_per_entry:
        name = "beat_history_per_entry"
        text = f"{name}: alerts need the history, and 0 keeps none"
        yield name, Problem(text, "leave it out, or the alerts")
    if rules and settings.result_url is None:
        text = (
            "alerts: without a result_backend nobody tells how runs end: no alert says"
            " that they failed, and none is paused for that"
        )
        hint = "set result_backend, for workers, too"
        yield "beat_alerts", Problem(text, hint, warning=True)
