"""Task ids: computed for slots, drawn for calls, both sorted by time."""

import struct
import uuid
from functools import lru_cache
from hashlib import blake2b

from beatd.instant import Instant

_LATEST = (1 << 48) - 1
_RANDOM_BITS = (1 << 74) - 1


def run_id(namespace: str, entry: str, era: int, slot: Instant) -> str:
    """Give the task id of one slot of `entry`, in about a microsecond.

    It is a UUID of version 8: the slot's milliseconds, then a hash of namespace, entry,
    clock era and slot. The same slot has the same id everywhere.
    """
    # What comes before the name has a fixed length, so that no two slots look alike.
    named = _prefix(namespace) + struct.pack(">qq", era, slot) + _bytes(entry)
    hashed = blake2b(named, digest_size=10).digest()
    return _uuid(slot, 8, int.from_bytes(hashed, "big"))


def call_id(now: Instant, entropy: bytes) -> str:
    """Give an id for a call made `now`: version 7, from 10 random bytes."""
    return _uuid(now, 7, int.from_bytes(entropy[:10], "big"))


def instant_of_id(task_id: str) -> Instant | None:
    """Give the slot of a computed id, the moment of a call's; None for other ids."""
    try:
        number = uuid.UUID(task_id)
    except ValueError:
        return None
    return number.int >> 80 if number.version in (7, 8) else None


def _uuid(instant: Instant, version: int, rest: int) -> str:
    # Instants before 1970 or after the year 10889 have no 48 bits: the hash still
    # tells such slots apart.
    head = min(max(instant, 0), _LATEST)
    rest &= _RANDOM_BITS
    text = (
        f"{head:012x}{version:x}{rest >> 62:03x}"
        f"{(rest & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000:016x}"
    )
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=16)
def _prefix(namespace: str) -> bytes:
    return blake2b(_bytes(namespace), digest_size=16).digest()


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
