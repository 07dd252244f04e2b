"""A call once more: its retry.

One that its run asks for is a `Sending`, which goes through `Router.route` and
`template` like any other. One after which there is nobody left to ask is the message
itself, but for what counts retries.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from beatd.instant import Instant, datetime_of
from beatd.message.envelope import Call, Envelope


class Sending(NamedTuple):
    """A call that is about to be encoded."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]


def retry_of(
    call: Call,
    eta: Instant | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Sending:
    """Give the same call once more: same id, one retry later, its own parent.

    It goes to the queue it came from. `options` go before what the message said, such
    as `ignore_result` where it left that to the task.
    """
    said = call.envelope
    again = {
        "task_id": said.id,
        "root_id": said.root_id,
        "parent_id": said.id,
        "group_id": said.group,
        "group_index": said.group_index,
        "shadow": said.shadow,
        "chord": call.chord,
        "chain": call.chain,
        "link": call.callbacks or None,
        "link_error": call.errbacks or None,
        "expires": said.expires_text,
        "time_limit": said.time_limit,
        "soft_time_limit": said.soft_time_limit,
        "headers": said.custom_headers or None,
        "retries": said.retries + 1,
        "reply_to": said.reply_to or None,
        "replaced_task_nesting": said.replaced_task_nesting,
        "origin": said.origin or None,
        "ignore_result": said.ignore_result,
        "priority": said.priority,
        "eta": None if eta is None else datetime_of(eta),
        **_stamps(said),
        **_way_back(said),
        **(options or {}),
    }
    return Sending(
        said.task,
        tuple(call.args) if args is None else args,
        call.kwargs if kwargs is None else kwargs,
        {name: value for name, value in again.items() if value is not None},
    )


def retried(said: Envelope, eta: Instant | None = None) -> bytes:
    """Give the same message, one retry later; nobody looks into its body."""
    wire = json.loads(said.raw)
    wire["headers"] = {
        **(wire.get("headers") or {}),
        "retries": said.retries + 1,
        "parent_id": said.id,
        "eta": None if eta is None else datetime_of(eta).isoformat(),
    }
    return json.dumps(wire).encode()


def _stamps(said: Envelope) -> dict[str, Any]:
    if not said.stamped_headers:
        return {}
    stamps = said.stamps or {}
    kept = [name for name in said.stamped_headers if name in stamps]
    return {"stamped_headers": kept, **{name: stamps[name] for name in kept}}


def _way_back(said: Envelope) -> dict[str, Any]:
    if said.exchange:
        return {"exchange": said.exchange, "routing_key": said.routing_key}
    return {"queue": said.routing_key} if said.routing_key else {}
