"""The frames between a pool and its children: length-prefixed msgpack.

A child is given jobs in chunks, and begins one after the other. `Claims` decide which
of them it may begin, without a message.
"""

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from beatd.instant import Span
from beatd.pools.base import Finished

LARGEST = 1 << 30
"""Bytes in the largest frame. So text that got into a channel by mistake is found: read
as a length it is larger."""

_LENGTH = 4


class BrokenFrame(Exception):
    """The bytes in a channel are no frame, or not one that is expected there."""


class Ready(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """The first frame of a child: it can take jobs."""

    pid: int


class JobEnded(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Tells the pool that a job has ended, and what the child does now."""

    finished: Finished
    leaving: bool = False
    """Whether the child takes no more jobs, and ends."""
    goes_on: bool = False
    """Whether the child begins the next job of its chunk."""
    took: Span = 0
    """How long the job ran, as the child has measured it."""


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

    A child takes a token before it begins the next job; the pool takes all tokens that
    are left to take back those jobs. The kernel gives each token to only one of them.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)

    def offer(self, number: int) -> None:
        """Let this many jobs begin, one after the other."""
        os.write(self._writer, b"." * number)

    def take_back(self) -> int:
        """Let no more jobs begin; return how many of them will not."""
        try:
            return len(os.read(self.reader, 4096))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.reader)
        os.close(self._writer)


def claim(reader: int) -> bool:
    """Take a token for the next job; return False if there is none."""
    try:
        return bool(os.read(reader, 1))
    except BlockingIOError:
        return False
