"""What a config's entries are and send, in short: processes compare theirs by it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from beatd.text import listed
from beatd.timetable.entry import Entry, Policy

_NAME, _CONTENT = 5, 3
"""Bytes that stand for an entry's name, and for all else of it."""

_SIZE = _NAME + _CONTENT

MOST = 100_000
"""Of more entries than this, an imprint does not say which they are."""


class Imprint(NamedTuple):
    """Equal for equal entries, whatever process has loaded them."""

    digest: str
    """Stands for all entries."""
    entries: bytes = b""
    """A few bytes for each entry, sorted; empty if there are too many."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one config has that another one has not, or not the same."""

    missing: list[str]
    """Names of entries that are not in the other one."""
    changed: list[str]
    """Names of entries that are in both, and not the same."""
    others: int
    """How many entries only the other one has."""
    is_told: bool = True
    """Whether it is known which entries differ; they may be too many."""


def trace_of(entry: Entry) -> bytes:
    """Return the bytes that stand for one entry in an imprint."""
    name = entry.name.encode("utf-8", "surrogatepass")
    route = entry.message.route
    content = (
        f"{entry.message.essence()}\0{route.queue}\0{route.exchange_type}"
        f"\0{entry.schedule.fingerprint}\0{entry.offset}\0{entry.expires_next}"
        f"\0{_text_of(entry.policy)}"
    ).encode("utf-8", "surrogatepass")
    return (
        blake2b(name, digest_size=_NAME).digest()
        + blake2b(content, digest_size=_CONTENT).digest()
    )


@lru_cache(maxsize=1024)
def _text_of(policy: Policy) -> str:
    return repr(policy)


def imprint_of(traces: Iterable[bytes]) -> Imprint:
    """Return the imprint of all entries, from the bytes that stand for each."""
    ordered = sorted(traces)
    joined = b"".join(ordered)
    digest = blake2b(joined, digest_size=16).hexdigest()
    return Imprint(digest, joined if len(ordered) <= MOST else b"")


def compare(entries: Mapping[str, Entry], other: Imprint) -> Difference:
    """Return what these entries have that those of the other imprint have not."""
    traces = {name: trace_of(entry) for name, entry in entries.items()}
    if not other.entries and traces:
        is_empty = imprint_of(()).digest == other.digest
        return Difference([*traces] if is_empty else [], [], 0, is_told=is_empty)
    theirs = {
        other.entries[at : at + _NAME]: other.entries[at + _NAME : at + _SIZE]
        for at in range(0, len(other.entries), _SIZE)
    }
    missing, changed = [], []
    for name, trace in traces.items():
        content = theirs.pop(trace[:_NAME], None)
        if content is None:
            missing.append(name)
        elif content != trace[_NAME:]:
            changed.append(name)
    return Difference(missing, changed, len(theirs))


def in_words(difference: Difference, named: int = 5) -> str:
    """Return for people what nobody emits as long as the other config is in use."""
    if not difference.is_told:
        return "there are too many entries to say which ones differ"
    missing, changed = difference.missing, difference.changed
    parts = []
    if missing:
        parts.append(f"nobody emits {_some(missing, named)}")
    if changed:
        parts.append(f"not as they are here: {_some(changed, named)}")
    if difference.others:
        parts.append(f"{difference.others} more that are not here are emitted")
    return "; ".join(parts)


def _some(names: list[str], limit: int) -> str:
    return listed([*map(repr, sorted(names))], limit)
