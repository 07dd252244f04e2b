"""What becomes of results that the back end refuses: a short reason in their place."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from beatd.errors import BeatdError, ResultRefused
from beatd.event_log import EventLog
from beatd.results.base import Meta, Stored
from beatd.text import one_line

tell = EventLog(__name__)

Store: TypeAlias = Callable[[Sequence[Meta | Stored]], None]
"""`Keeper.store` or `Keeper.correct`."""


def store_what_is_taken(
    store: Store, metas: Sequence[Meta | Stored]
) -> Mapping[int, str]:
    """Store these; return by place why some are refused. Raises ResultUnavailable."""
    try:
        store(metas)
    except ResultRefused as refusal:
        return refusal.reasons
    return {}


def store_in_short(store: Store, refused: Meta | Stored, reason: str) -> None:
    """Store the state with the reason as its result; if that is refused, too, say it.

    Raises ResultUnavailable.
    """
    if isinstance(refused, Stored):  # made by the run's process, of any size
        error = BeatdError(f"its result cannot be stored: {one_line(reason)}")
        short = Meta(refused.task_id, refused.status, error)
        reason = store_what_is_taken(store, [short]).get(0, "")
    if reason:
        tell.error(
            "result.refused",
            "the state %s of task %s cannot be stored, and who waits is not told: %s",
            refused.status,
            one_line(refused.task_id),
            reason,
            id=refused.task_id,
        )
