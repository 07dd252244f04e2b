"""What an option of a task lists: classes of exceptions, alone or in lists of lists."""

from collections.abc import Iterator
from typing import Any


def flat(listed: Any) -> Iterator[Any]:
    """Yield what an option lists, or is; a list may hold others, as in `except`."""
    if isinstance(listed, list | tuple | set | frozenset):
        for one in listed:
            yield from flat(one)
    else:
        yield listed


def classes_in(listed: Any) -> tuple[type, ...]:
    """Return those classes that an option lists, or is, as in Celery."""
    return tuple(one for one in flat(listed) if isinstance(one, type))
