"""Reads results of which some may be unreadable: one hides no other."""

from collections.abc import Sequence

from beatd.errors import MessageError
from beatd.results.base import Keeper, Meta


def load_readable(
    backend: Keeper, task_ids: Sequence[str]
) -> tuple[dict[str, Meta], dict[str, MessageError]]:
    """Return by id the metas that can be read, and why others cannot.

    Raises ResultUnavailable.
    """
    try:
        return backend.load(task_ids), {}
    except MessageError:
        found: dict[str, Meta] = {}
        unreadable: dict[str, MessageError] = {}
    for task_id in task_ids:
        try:
            found |= backend.load([task_id])
        except MessageError as error:
            unreadable[task_id] = error
    return found, unreadable
