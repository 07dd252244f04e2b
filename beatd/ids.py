"""Task ids: computed for slots, drawn for calls, both sorted by time."""

import struct
import uuid
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from beatd.instant import Instant

_LATEST = (1 << 48) - 1
_pack = struct.Struct(">qq").pack


def run_id(namespace: str, entry: str, era: int, slot: Instant) -> str:
    """Return the task id of one slot of `entry`.

    It is a UUID of version 8: the slot's milliseconds, then a hash of namespace, entry,
    clock era and slot. The same slot has the same id everywhere.
    """
    return run_ids(namespace, era, slot)(entry)


def run_ids(namespace: str, era: int, slot: Instant) -> Callable[[str], str]:
    """Return what gives the task id of a slot by entry, as `run_id` does.

    What all entries share is worked out once; the rest takes half a microsecond.
    """
    # The parts before the name have a fixed length, so that no two slots look alike.
    shared = blake2b(_prefix(namespace) + _pack(era, slot), digest_size=9)
    head = _head(slot) + "-8"

    def id_of(entry: str) -> str:
        named = shared.copy()
        named.update(_bytes(entry))
        rest = named.hexdigest()
        return f"{head}{rest[:3]}-8{rest[3:6]}-{rest[6:]}"

    return id_of


def call_id(now: Instant, entropy: bytes) -> str:
    """Return an id for a call made `now`: version 7, from 9 random bytes."""
    rest = entropy.hex()
    return f"{_head(now)}-7{rest[:3]}-8{rest[3:6]}-{rest[6:18]}"


def instant_of_id(task_id: str) -> Instant | None:
    """Return the slot of a computed id, the moment of a call's; None for other ids."""
    try:
        number = uuid.UUID(task_id)
    except ValueError:
        return None
    return number.int >> 80 if number.version in (7, 8) else None


def _head(instant: Instant) -> str:
    """Return the first 48 bits of a UUID (RFC 9562), of an instant."""
    if not 0 <= instant <= _LATEST:
        # Before 1970 or after the year 10889: the digits still tell such slots apart.
        instant = min(max(instant, 0), _LATEST)
    head = f"{instant:012x}"
    return f"{head[:8]}-{head[8:]}"


@lru_cache(maxsize=16)
def _prefix(namespace: str) -> bytes:
    return blake2b(_bytes(namespace), digest_size=16).digest()


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
