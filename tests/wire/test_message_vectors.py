"""Every task message that was recorded from Celery, read and written byte for byte."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from beatd.errors import MessageError
from beatd.instant import instant_of
from beatd.message import (
    Call,
    Canvas,
    Sending,
    read_body,
    read_envelope,
    retry_of,
    template,
)
from beatd.routing import binding_of, bound_queues, fanout_channel, list_key, step_of
from tests.wire.vectors import (
    EVERYTHING,
    NOON,
    Message,
    Vector,
    masked,
    python,
    vectors,
    without_marks,
)

ALL = list(vectors())
SENT = [vector for vector in ALL if vector.messages and not vector.raises]
CANVAS = [vector for vector in SENT if vector.call["fn"] == "canvas"]
PLAIN = [vector for vector in SENT if vector.call["fn"] != "canvas"]
REFUSED = [vector for vector in ALL if vector.raises]
BY_WORKER = [vector for vector in ALL if vector.sent_by_worker]

UNREGISTERED = "elsewhere"


def named(vector: Vector) -> str:
    return vector.id


def call_of(message: Message) -> Call:
    return read_body(read_envelope(message.raw.encode(), EVERYTHING), EVERYTHING)


def sending_of(vector: Vector) -> Sending:
    """Return what the client, or `celery beat`, was told to send."""
    call = python(vector.call)
    if call["fn"] == "celery beat":
        entry = call["entry"]
        options = dict(entry.get("options", {}))
        if entry["task"].endswith(".ignored"):  # the task class says so
            options["ignore_result"] = True
        return Sending(entry["task"], entry.get("args"), entry.get("kwargs"), options)
    if call["fn"] == "delay":
        priority = vector.conf.get("task_default_priority")
        options = {"priority": priority, **call["task_options"]}
        return Sending(call["name"], tuple(call["args"]), call["kwargs"], options)
    return Sending(call["name"], call["args"], call["kwargs"], call.get("options", {}))


def sent(
    vector: Vector, sending: Sending, message: Message, *, registered: bool
) -> str:
    """Return what we send, under the ids of the recorded message."""
    router = vector.router()
    options = router.options(sending.task, sending.options)
    route = router.route(sending.task, sending.options)
    entry = vector.call.get("entry_name")
    made = template(
        vector.format(message),
        route,
        sending.task,
        sending.args,
        sending.kwargs,
        options,
        registered=registered,
        entry=entry,
    )
    slot = NOON if entry else None
    return made.complete(id=message.id, tag=message.tag, now=NOON, slot=slot).decode(
        "ascii"
    )


@pytest.mark.parametrize("vector", PLAIN, ids=named)
def test_a_call_is_encoded_as_celery_does(vector: Vector) -> None:
    sending = sending_of(vector)
    registered = vector.call["fn"] != "send_task"
    registered = registered and not sending.task.endswith(UNREGISTERED)

    for message in vector.messages:
        ours = sent(vector, sending, message, registered=registered)

        assert masked(without_marks(ours), message.volatile) == masked(
            message.raw, message.volatile
        )


@pytest.mark.parametrize("vector", CANVAS, ids=named)
def test_the_messages_of_a_canvas_are_encoded_one_by_one(vector: Vector) -> None:
    for message in vector.messages:
        call = call_of(message)
        sending = Sending(
            call.envelope.task,
            tuple(call.args),
            call.kwargs,
            {
                "group_id": call.envelope.group,
                "group_index": call.envelope.group_index,
                "root_id": call.envelope.root_id,
                "chain": call.chain,
                "chord": call.chord,
            },
        )

        assert sent(vector, sending, message, registered=False) == message.raw


@pytest.mark.parametrize("vector", REFUSED, ids=named)
def test_what_celery_refuses_is_refused(vector: Vector) -> None:
    nobody = Message("", '{"headers": {}, "properties": {"reply_to": ""}}', ())

    with pytest.raises(
        MessageError, match=r"^args\[0\]: \w+ has no form for type \w+$"
    ):
        sent_to(nobody, vector)


def sent_to(message: Message, vector: Vector) -> None:
    sending = sending_of(vector)
    route = vector.router().route(sending.task, sending.options)
    template(
        vector.format(message),
        route,
        sending.task,
        sending.args,
        sending.kwargs,
        sending.options,
    )


@pytest.mark.parametrize("vector", PLAIN, ids=named)
def test_a_message_is_decoded_to_the_call_that_was_made(vector: Vector) -> None:
    sending = sending_of(vector)
    for message in vector.messages:
        if vector.kind == "msg.type.marker_clash":  # Celery's worker drops it as well
            with pytest.raises(MessageError, match="no type is marked 'zzz'"):
                call_of(message)
            continue

        call = call_of(message)

        assert call.envelope.task == sending.task
        assert call.envelope.id == message.id
        assert plain(call.args) == plain(sending.args or [])
        assert plain(call.kwargs) == plain(sending.kwargs or {})
        options = vector.router().options(sending.task, sending.options)
        for name, value in options.items():
            if value is not None:
                check_option(name, value, call, options)


def plain(value: Any) -> Any:
    """Return a value as it comes through JSON, comparable even with NaN in it."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def check_option(name: str, value: Any, call: Call, options: Any) -> None:
    envelope = call.envelope
    overridden = options.get("headers") or {}
    match name:
        case "headers":
            expected = {
                k: v for k, v in value.items() if k not in ("lang", "timelimit")
            }
            assert expected.items() <= envelope.custom_headers.items()
            if "timelimit" in value:
                limits = [envelope.time_limit, envelope.soft_time_limit]
                assert limits == value["timelimit"]
        case "time_limit" if "timelimit" not in overridden:
            assert envelope.time_limit == value
        case "soft_time_limit":
            assert envelope.soft_time_limit == value
        case "countdown":
            assert (envelope.eta is None) == (value == 0)
        case "eta":
            assert envelope.eta == instant_in_utc(value)
        case "expires":
            assert envelope.expires is not None
            if not isinstance(value, int | float):
                assert envelope.expires == instant_in_utc(value)
        case "group_id":
            assert envelope.group == value
        case "link":
            assert call.callbacks == [value]
        case "link_error":
            assert call.errbacks == [value]
        case "task_id":
            assert envelope.id == value
        case "stamped_headers":
            assert envelope.stamps == {stamp: options[stamp] for stamp in value}
        case (
            "shadow" | "retries" | "ignore_result" | "root_id" | "parent_id"
            | "group_index" | "reply_to" | "priority" | "argsrepr" | "kwargsrepr"
        ):  # fmt: skip
            assert getattr(envelope, name) == value
        case (
            "queue" | "exchange" | "routing_key"  # where it lies, not what it says
            | "serializer" | "compression"  # it was decoded
            | "delivery_mode" | "app_id" | "type" | "message_id"  # not for workers
        ):  # fmt: skip
            pass
        case _:
            assert name in options["stamped_headers"]


def instant_in_utc(value: Any) -> int:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


# Celery loses this message, because its producer does not know the exchange's type;
# its settings are those of route.fanout, and so ours is published like that one.
LOST_BY_CELERY = "route.broadcast"

ROUTED = [
    vector
    for vector in ALL
    if vector.call["fn"] != "canvas"
    and not vector.raises
    and not vector.sent_by_worker
    and vector.kind != LOST_BY_CELERY
]


@pytest.mark.parametrize("vector", ROUTED, ids=named)
def test_a_message_goes_where_celery_puts_it(vector: Vector) -> None:
    sending = sending_of(vector)
    transport = vector.transport
    prefix = transport.get("global_keyprefix", "")
    route = vector.router().route(sending.task, sending.options)
    if route.exchange_type == "fanout":
        keys = [
            fanout_channel(
                route.exchange,
                route.routing_key,
                db=3 if vector.kind == "opt.db" else 0,
                prefix=transport.get("fanout_prefix", True),
                patterns=transport.get("fanout_patterns", True),
            )
        ]
    else:
        queues = (
            [route.queue]
            if route.queue
            else bound_queues(
                vector.bindings.get(f"_kombu.binding.{route.exchange}", ()),
                route.exchange_type,
                route.routing_key,
                vector.separator,
            )
        )
        step = step_of(route.priority, vector.steps)
        keys = [list_key(queue, step, vector.separator) for queue in queues]

    assert sorted(prefix + key for key in keys) == sorted(
        message.key for message in vector.messages
    )


@pytest.mark.parametrize(
    "vector",
    # What opt.db bound lies in a database that was not dumped.
    [vector for vector in ROUTED if vector.kind != "opt.db"],
    ids=named,
)
def test_the_queue_is_bound_as_celery_does(vector: Vector) -> None:
    sending = sending_of(vector)
    router = vector.router()
    queue = router.declares(router.options(sending.task, sending.options))
    prefix = vector.transport.get("global_keyprefix", "")

    members = vector.bindings[f"{prefix}_kombu.binding.{queue.exchange}"]

    assert binding_of(queue).member(vector.separator) in members


@pytest.mark.parametrize("vector", BY_WORKER, ids=named)
def test_what_follows_from_a_call_is_sent_as_celery_s_worker_does(
    vector: Vector,
) -> None:
    first = vector.sent_by_worker[0]
    call = made_here(vector, sending_of(vector), first)
    for message in vector.sent_by_worker:
        recorded = call_of(message)
        sending = following(vector, call, recorded)

        ours = sent(vector, sending, message, registered=True)

        assert masked(ours, message.volatile) == masked(message.raw, message.volatile)
        call = recorded


def made_here(vector: Vector, sending: Sending, like: Message) -> Call:
    """Return the call that the worker had, as a worker reads it."""
    made = template(
        vector.format(like),
        vector.router().route(sending.task, sending.options),
        sending.task,
        sending.args,
        sending.kwargs,
        sending.options,
    )
    raw = made.complete(id="unused", tag="tag", now=NOON)
    return read_body(read_envelope(raw, EVERYTHING), EVERYTHING)


def following(vector: Vector, call: Call, recorded: Call) -> Sending:
    """Return the sending that the worker's message came from."""
    envelope = recorded.envelope
    if "retry" in vector.kind:
        return retry_of(call, envelope.eta, options={"ignore_result": False})
    came = call.envelope
    parent = {"root_id": came.root_id or came.id, "parent_id": came.id}
    # The worker drew the id of the callback.
    canvas = Canvas(lambda: envelope.id, **parent)
    if "link" in vector.kind:
        assert call.callbacks
        canvas.add(call.callbacks[0], (recorded.args[0],))
    elif "chain" in vector.kind:
        result = recorded.args[0]
        if isinstance(result, dict):  # a task's own tuple, which JSON made a list
            result = {**result, "args": tuple(result["args"])}
        assert call.chain
        *rest, step = call.chain
        canvas.add(step, (result,), chain=rest)
    else:  # a task that calls another
        return Sending(envelope.task, tuple(recorded.args), {}, parent)
    (sending,) = canvas.sends
    return sending


def test_every_recorded_message_is_looked_at() -> None:
    seen = {v.id for v in (*PLAIN, *CANVAS, *REFUSED, *ROUTED, *BY_WORKER)}

    assert {v.kind for v in ALL if v.id not in seen} == {LOST_BY_CELERY}
    assert sum(len(v.messages) for v in (*PLAIN, *CANVAS)) > 250
    assert json.dumps(sorted(v.kind for v in REFUSED)).count("msg.type") == len(REFUSED)
