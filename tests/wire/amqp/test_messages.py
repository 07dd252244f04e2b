"""What Celery sends to RabbitMQ, beside what it sends to Redis for the same calls.

The vectors are made by `record.py`, from the bytes between both.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.amqp.message import SHORT, Content, content_of, message_of
from beatd.errors import MessageError
from tests.wire.vectors import Message, vectors

HERE = Path(__file__).parent

OF_THE_MOMENT = ("origin", "reply_to", "eta", "expires", "expiration")
"""What differs from one sending of a call to the next, beside ids that are drawn."""

IN_REDIS = {vector.id: vector for vector in vectors()}


def lines() -> list[Any]:
    return [*_lines()]


def _lines() -> Iterator[Any]:
    for name in ("messages", "beat"):
        for line in (HERE / f"{name}.jsonl").read_text().splitlines():
            found = json.loads(line)
            yield pytest.param(found, id=found["id"])


def in_redis(line: dict[str, Any]) -> Message:
    """Return the same call as it lay in Redis, with what is of the moment from here."""
    (message, *_) = IN_REDIS[line["id"]].messages
    envelope = json.loads(message.raw)
    sent = line["properties"]
    before, now = envelope["properties"]["correlation_id"], sent["correlation_id"]
    raw = message.raw.replace(before, now)
    envelope = json.loads(raw)
    for name in OF_THE_MOMENT:
        for there, here in ((envelope["headers"], sent["headers"]),
                            (envelope["properties"], sent)):  # fmt: skip
            if name in there and name in here:
                assert (there[name] is None) == (here[name] is None)
                there[name] = here[name]
    if "task" not in sent["headers"]:  # protocol 1 has ids and times in the body
        envelope["body"] = line["body"]
    return Message(message.key, json.dumps(envelope), ())


def content(line: dict[str, Any]) -> Content:
    properties = dict(line["properties"])
    headers = properties.pop("headers", {})
    return Content(properties, headers, base64.b64decode(line["body"]))


@pytest.mark.parametrize("line", lines())
def test_an_envelope_becomes_what_celery_sends(line: dict[str, Any]) -> None:
    made = content_of(in_redis(line).raw.encode())

    assert made == content(line)
    assert [*made.headers] == [*content(line).headers]


@pytest.mark.parametrize("line", lines())
def test_what_celery_sends_becomes_the_envelope(line: dict[str, Any]) -> None:
    message = in_redis(line)
    info = message.properties["delivery_info"]

    made = message_of(
        content(line),
        info["exchange"],
        info["routing_key"],
        message.tag,
        redelivered=False,
    )

    expected = json.loads(message.raw)
    known = {"content_type", "content_encoding", *line["properties"]}
    extra = {"delivery_info", "body_encoding", "delivery_tag"}
    expected["properties"] = {
        name: value
        for name, value in expected["properties"].items()
        if name in known | extra
    }
    assert json.loads(made) == expected


def test_values_that_json_lacks_become_text() -> None:
    from datetime import UTC, datetime
    from decimal import Decimal

    at = datetime(2026, 11, 29, 12, tzinfo=UTC)
    death = {"time": at, "count": 1, "key": b"k\xff", "share": Decimal("0.5")}

    made = json.loads(
        message_of(
            Content({}, {"x-death": [death]}, b""), "", "q", "1", redelivered=True
        )
    )

    assert made["headers"]["x-death"] == [
        {"time": at.isoformat(), "count": 1, "key": "k\\xff", "share": "0.5"}
    ]
    assert made["properties"]["delivery_info"]["redelivered"] is True


@pytest.mark.parametrize(
    ("headers", "properties", "words"),
    [
        ({"x" * (SHORT + 1): 1}, {}, "a header's name: expected at most 255 bytes"),
        ({"x": 2**63}, {}, "more than 64 bits"),
        ({}, {"correlation_id": "é" * 128}, "correlation_id: expected at most"),
        ({}, {"priority": 256}, "priority: expected a number from 0 to 255"),
        ({}, {"timestamp": "noon"}, "timestamp: expected seconds"),
    ],
)
def test_what_amqp_cannot_carry_is_refused_in_words(
    headers: dict[str, Any], properties: dict[str, Any], words: str
) -> None:
    envelope = {"body": "", "headers": headers, "properties": properties}

    with pytest.raises(MessageError, match=words):
        content_of(json.dumps(envelope).encode())
