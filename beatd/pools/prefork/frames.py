"""What a pool and its children say to each other: length-prefixed msgpack.

A child is given jobs in chunks, and begins one after the other. Which of them may begin
is settled by `Claims`, without asking.
"""

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from beatd.pools.base import Finished

LARGEST = 1 << 30
"""Bytes in one frame at most. Text that strayed into a channel is found: as a length
it claims more."""

_LENGTH = 4


class BrokenFrame(Exception):
    """What came through a channel is no frame, or none that fits there."""


class Ready(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """The first frame of a child: it can take jobs."""

    pid: int


class JobEnded(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """A job of the child has ended; what the child does now."""

    finished: Finished
    leaving: bool = False
    """Whether the child takes no more jobs, and ends."""
    goes_on: bool = False
    """Whether the child begins the next job of its chunk."""


def pack(words: Any) -> bytes:
    """Return one frame with this content."""
    content = msgspec.msgpack.encode(words)
    return len(content).to_bytes(_LENGTH, "big") + content


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Take these bytes; yield the content of each frame that is complete now."""
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


class Claims:
    """A pipe with a token for each job of a chunk that may begin, besides the first.

    A child takes one before it begins the next job; the pool takes all that are left
    to have those jobs back. Each token goes to one of the two: the kernel sees to it.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)

    def offer(self, number: int) -> None:
        """Let this many jobs begin, one after the other."""
        os.write(self._writer, b"." * number)

    def take_back(self) -> int:
        """Let no more jobs begin; return how many will not."""
        try:
            return len(os.read(self.reader, 4096))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self.reader)
        os.close(self._writer)


def claim(reader: int) -> bool:
    """Take a token for the next job; return False if there is none."""
    try:
        return bool(os.read(reader, 1))
    except BlockingIOError:
        return False
