"""Long work in parts: between two of them, others get their turn."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of this size; the last one may be shorter."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def calling(
    on_part: Callable[[], object], items: Iterable[T], size: int
) -> Iterator[T]:
    """Yield the items, and call `on_part` before each part of this size."""
    for number, item in enumerate(items):
        if number % size == 0:
            on_part()
        yield item
