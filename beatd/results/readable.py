"""Reads results of which some may be unreadable: one hides no other."""

from collections.abc import Sequence

from beatd.config.settings import mask
from beatd.errors import MessageError
from beatd.results.base import Keeper, Meta, State
from beatd.results.exceptions import repr_of
from beatd.text import one_line

LONGEST_WHY = 200
"""Characters that are shown of an exception at most."""


def why_failed(meta: Meta) -> str:
    """Return the exception of a run that failed, in one line; empty for another."""
    if meta.status != State.FAILURE:
        return ""
    text = mask(one_line(repr_of(meta.result)))
    return text if len(text) <= LONGEST_WHY else f"{text[: LONGEST_WHY - 1]}…"


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
