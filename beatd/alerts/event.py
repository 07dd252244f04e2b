"""What is told of an entry: events, and how they read in each form."""

from collections.abc import Iterator
from zoneinfo import ZoneInfo

import msgspec

from beatd.config.settings import AlertKind
from beatd.instant import SECOND, Instant, datetime_of

STARTED, ENDED, FAILING = "started", "ended", "failing"
"""What only a dead-man's switch is told: a run was sent; one has ended, and there is no
alert; one more has failed since there was one."""

FAIL = frozenset(
    {
        *(AlertKind.MISSED, AlertKind.FAILED, AlertKind.NOT_TAKEN),
        *(AlertKind.TOO_LONG, AlertKind.PAUSED),
    }
)
"""Alerts that a dead-man's switch is told as a failure."""

SCHEMA = "beatd.alert/1"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened to one entry."""

    kind: str
    """An AlertKind, or one of those that only a dead-man's switch is told."""
    entry: str
    at: Instant
    """When it was found."""
    words: str
    """What happened, for people, without the entry's name."""
    slot: Instant | None = None
    run: str = ""
    number: int = 0
    """Of failures in a row, or of slots."""
    reason: str = ""

    @property
    def is_alert(self) -> bool:
        """Whether people are told, and not only a dead-man's switch."""
        return self.kind not in (STARTED, ENDED, FAILING)

    @property
    def line(self) -> str:
        """What happened, with the entry's name, in one line."""
        return f"{self.entry}: {self.words}"


def document(event: Event, zone: ZoneInfo, namespace: str) -> bytes:
    """Return an event as the JSON that commands and functions get."""
    data: dict[str, object] = {
        "schema": SCHEMA,
        "kind": event.kind,
        "entry": event.entry,
        "text": event.line,
        "at": _iso(event.at, zone),
        "at_ts": event.at / SECOND,
        "slot": None if event.slot is None else _iso(event.slot, zone),
        "slot_ts": None if event.slot is None else event.slot / SECOND,
        "task_id": event.run or None,
        "number": event.number or None,
        "reason": event.reason or None,
        "namespace": namespace,
    }
    return msgspec.json.encode(data)


def variables(event: Event, zone: ZoneInfo, namespace: str) -> dict[str, str]:
    """Return the environment variables that a command gets beside that."""
    return dict(_variables(event, zone, namespace))


def _variables(
    event: Event, zone: ZoneInfo, namespace: str
) -> Iterator[tuple[str, str]]:
    # An environment has no byte of value 0.
    yield "BEATD_ALERT", event.kind
    yield "BEATD_ENTRY", event.entry.replace("\0", "�")
    yield "BEATD_TEXT", event.line.replace("\0", "�")
    yield "BEATD_NAMESPACE", namespace
    yield "BEATD_AT", _iso(event.at, zone)
    yield "BEATD_SLOT", "" if event.slot is None else _iso(event.slot, zone)
    yield "BEATD_TASK_ID", event.run
    yield "BEATD_NUMBER", str(event.number or "")
    yield "BEATD_REASON", event.reason.replace("\0", "�")


def _iso(instant: Instant, zone: ZoneInfo) -> str:
    return datetime_of(instant, zone).isoformat()


def ordinal(number: int) -> str:
    """Return a place in a row: `1st`, `12th`."""
    tens, ones = divmod(number % 100, 10)
    end = "th" if tens == 1 else {1: "st", 2: "nd", 3: "rd"}.get(ones, "th")
    return f"{number}{end}"
