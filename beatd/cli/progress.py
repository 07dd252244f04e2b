"""How far a search has come that takes long, for whoever waits at a terminal."""

import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TextIO, TypeVar

from beatd.clock import Clock
from beatd.instant import SECOND, Span

T = TypeVar("T")

_OFTEN = 1000
"""Items after which the clock is looked at."""

_FIRST: Span = SECOND // 2
"""What has not taken longer is not told of."""

_EVERY: Span = SECOND // 4


class Progress:
    """Counts what is found, in a line that is gone at the end; nothing into a file."""

    def __init__(
        self,
        words: str,
        stream: TextIO | None,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`words` say what is counted: `runs found`."""
        self._words = words
        shows = stream and stream.isatty() and environ.get("TERM") != "dumb"
        self._stream = stream if shows else None
        self._clock = clock
        self._count = 0
        self._next = clock.elapsed() + _FIRST
        self._told = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._told:
            self._write("\r\x1b[K")

    def counting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield these items, and count them beside those of other calls."""
        for item in items:
            self._count += 1
            if self._stream and self._count % _OFTEN == 0:
                self._tell()
            yield item

    def _tell(self) -> None:
        now = self._clock.elapsed()
        if now >= self._next:
            self._next = now + _EVERY
            self._told = True
            self._write(f"\r{self._count} {self._words}")

    def _write(self, text: str) -> None:
        if self._stream:
            self._stream.write(text)
            self._stream.flush()
