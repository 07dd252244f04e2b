"""What alerts have to remember beyond the process that leads: notes in the broker."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from beatd.alerts.courier import Parcel
from beatd.alerts.state import EntryState
from beatd.instant import EARLIEST, Instant

BOOK = "alerts"

HEAD = ""
"""Stands for what is no entry's, in the place of an entry's name."""

MOST_PARCELS = 100
"""Parcels that are kept, at most, for whoever leads next."""

_encode = msgspec.msgpack.Encoder().encode


class Head(msgspec.Struct, array_like=True):
    """How far the history has been read, and what is still to be told."""

    page: int | None = None
    """The number of the last page that was read; None: none was, ever."""
    at: Instant = EARLIEST
    """When that page was written."""
    parcels: Sequence[Parcel] = ()


_head = msgspec.msgpack.Decoder(Head).decode
_state = msgspec.msgpack.Decoder(EntryState).decode


def read(notes: Mapping[str, bytes]) -> tuple[Head, dict[str, EntryState], list[str]]:
    """Return what the notes say, and the names of those that cannot be read."""
    head, states, odd = Head(), {}, []
    for name, note in notes.items():
        try:
            if name == HEAD:
                head = _head(note)
            else:
                states[name] = _state(note)
        except msgspec.MsgspecError:
            odd.append(name)
    return head, states, odd


def rows(
    head: Head, states: Mapping[str, EntryState], changed: Collection[str]
) -> tuple[dict[str, bytes], list[str]]:
    """Return the notes to write, and the names of those to remove."""
    found = {name: _encode(states[name]) for name in changed if states.get(name)}
    gone = [name for name in changed if name not in found]
    return {HEAD: _encode(head), **found}, gone
