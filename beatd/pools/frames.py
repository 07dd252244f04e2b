"""What a pool and its children say to each other: length-prefixed msgpack."""

from collections.abc import Iterator
from typing import Any

import msgspec

from beatd.pools.base import Finished

LARGEST = 1 << 30
"""Bytes in one frame. Text that strayed into the channel claims more, and is found."""

_LENGTH = 4


class BrokenFrame(Exception):
    """The other side says something that is no frame."""


class Ready(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """A child's first words: it can take jobs."""

    pid: int


class Report(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Jobs that came to an end; `leaving` announces that the child takes no more."""

    finished: list[Finished]
    leaving: bool


def pack(words: Any) -> bytes:
    """Give one frame."""
    content = msgspec.msgpack.encode(words)
    return len(content).to_bytes(_LENGTH, "big") + content


class Frames:
    """Bytes in as they come, whole frames out."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Give the content of each frame that is complete now."""
        self._bytes += received
        while len(self._bytes) >= _LENGTH:
            length = int.from_bytes(self._bytes[:_LENGTH], "big")
            if length > LARGEST:
                raise BrokenFrame(f"a frame claims {length} bytes")
            end = _LENGTH + length
            if len(self._bytes) < end:
                return
            content = bytes(self._bytes[_LENGTH:end])
            del self._bytes[:end]
            yield content
