"""The retry of a call: the same call once more.

A retry that the run asks for is a `Sending`, which goes through `Router.route` and
`template` like any other call. A retry of a run that has died is the message itself,
but for its count of retries.
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
    """Return the same call once more: same id, one retry later, its own parent.

    The retry goes to the queue that the call came from. `options` win over those of
    the message: `ignore_result`, say, if the message left that to the task.
    """
    envelope = call.envelope
    again = {
        "task_id": envelope.id,
        "root_id": envelope.root_id,
        "parent_id": envelope.id,
        "group_id": envelope.group,
        "group_index": envelope.group_index,
        "shadow": envelope.shadow,
        "chord": call.chord,
        "chain": call.chain,
        "link": call.callbacks or None,
        "link_error": call.errbacks or None,
        "expires": envelope.expires_text,
        "time_limit": envelope.time_limit,
        "soft_time_limit": envelope.soft_time_limit,
        "headers": envelope.custom_headers or None,
        "retries": envelope.retries + 1,
        "reply_to": envelope.reply_to or None,
        "replaced_task_nesting": envelope.replaced_task_nesting,
        "origin": envelope.origin or None,
        "ignore_result": envelope.ignore_result,
        "priority": envelope.priority,
        "eta": None if eta is None else datetime_of(eta),
        **_stamps(envelope),
        **_way_back(envelope),
        **(options or {}),
    }
    return Sending(
        envelope.task,
        tuple(call.args) if args is None else args,
        call.kwargs if kwargs is None else kwargs,
        {name: value for name, value in again.items() if value is not None},
    )


def retried(envelope: Envelope, eta: Instant | None = None) -> bytes:
    """Return the same message, one retry later; its body is not decoded."""
    wire = json.loads(envelope.raw)
    wire["headers"] = {
        **(wire.get("headers") or {}),
        "retries": envelope.retries + 1,
        "parent_id": envelope.id,
        "eta": None if eta is None else datetime_of(eta).isoformat(),
    }
    return json.dumps(wire).encode()


def requeued(envelope: Envelope) -> bytes:
    """Return the same message, marked as redelivered; its body is not decoded.

    What is in flight counts its deaths by its bytes; here, where these change anyway,
    the message itself carries the count.
    """
    wire = json.loads(envelope.raw)
    wire["headers"] = {
        **(wire.get("headers") or {}),
        "redelivered": True,
        "beatd_requeues": envelope.requeues + 1,
    }
    delivery_info = wire["properties"].get("delivery_info") or {}
    wire["properties"]["delivery_info"] = {**delivery_info, "redelivered": True}
    return json.dumps(wire).encode()


def _stamps(envelope: Envelope) -> dict[str, Any]:
    if not envelope.stamped_headers:
        return {}
    stamps = envelope.stamps or {}
    kept = [name for name in envelope.stamped_headers if name in stamps]
    return {"stamped_headers": kept, **{name: stamps[name] for name in kept}}


def _way_back(envelope: Envelope) -> dict[str, Any]:
    if envelope.exchange:
        return {"exchange": envelope.exchange, "routing_key": envelope.routing_key}
    return {"queue": envelope.routing_key} if envelope.routing_key else {}
