"""Entries that are paused while beatd runs: notes in the broker, for all schedulers."""

import threading
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from beatd.brokers.base import NoteKeeper
from beatd.event_log import EventLog
from beatd.instant import SECOND, Instant, Span
from beatd.text import listed

tell = EventLog(__name__)

BOOK = "paused"

LOOK: Span = 2 * SECOND
"""How often a leader looks whether entries were paused or resumed."""


class Pause(msgspec.Struct, frozen=True):
    """Why an entry is paused, since when, and by whom."""

    note: str
    at: Instant
    by: str = ""

    @property
    def words(self) -> str:
        """Say that it is paused, for people."""
        by = f" by {self.by}" if self.by else ""
        return f"paused{by}{f': {self.note}' if self.note else ''}"


_encode = msgspec.json.Encoder().encode
_pause = msgspec.json.Decoder(Pause).decode


def read_pauses(broker: NoteKeeper) -> dict[str, Pause]:
    """Return the entries that are paused. A note that cannot be read pauses, too."""
    found = {}
    for entry, note in broker.read_notes(BOOK).items():
        try:
            found[entry] = _pause(note)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found[entry] = Pause("its note cannot be read", 0)
    return found


def pause_notes(pauses: Mapping[str, Pause]) -> dict[str, bytes]:
    """Return the notes that pause these entries, for `BOOK`."""
    return {entry: _encode(pause) for entry, pause in pauses.items()}


class Pauses:
    """What a scheduler knows of paused entries; read by any thread at any time."""

    def __init__(self, broker: NoteKeeper) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self.known: Mapping[str, Pause] = MappingProxyType({})
        """By entry; replaced as a whole."""

    def look(self) -> None:
        """Read the notes, and say what has changed. Raises BrokerUnavailable."""
        with self._lock:
            found = read_pauses(self._broker)
            before, self.known = self.known, MappingProxyType(found)
        _say(before, found)

    def note_of(self, entry: str) -> str:
        """Say why an entry is paused; empty if it is not."""
        pause = self.known.get(entry)
        return pause.words if pause else ""


def _say(before: Mapping[str, Pause], now: Mapping[str, Pause]) -> None:
    for entry in now.keys() - before.keys():
        words = "%s is %s: its slots are dropped until `beatd resume`"
        tell.warning("entry.paused", words, entry, now[entry].words, entry=entry)
    if gone := sorted(before.keys() - now.keys()):
        words = "no longer paused: %s"
        tell.warning("entry.resumed", words, listed(gone, 5), entries=len(gone))
