"""Task messages of a real Celery, and what our own code makes of the same calls.

`messages.jsonl` copies from `shared/wire/vectors.jsonl` the kinds that carry task
messages (msg, beat, route, opt, and what workers sent in res), cut to what is compared:
call and settings, the messages as they lay in Redis, and the sets of bindings.
"""

import base64
import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from beatd.instant import Instant, instant_of
from beatd.message import Limits, MessageFormat
from beatd.message.codec import content_types
from beatd.routing import PRIORITY_STEPS, SEPARATOR, Queue, Router

EVERYTHING = Limits(accept=content_types(["json", "msgpack", "yaml", "pickle"]))

NOON: Instant = instant_of(datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC))

_NAMES = {
    "datetime": datetime,
    "timezone": datetime.timezone,
    "timedelta": datetime.timedelta,
    "ZoneInfo": ZoneInfo,
    "Decimal": Decimal,
    "UUID": UUID,
}


@dataclass(frozen=True)
class Message:
    """One message as it lay in Redis."""

    key: str
    raw: str
    volatile: tuple[str, ...]

    @property
    def headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = json.loads(self.raw)["headers"]
        return headers

    @property
    def properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = json.loads(self.raw)["properties"]
        return properties

    @property
    def id(self) -> str:
        return str(self.properties["correlation_id"])

    @property
    def tag(self) -> str:
        return str(self.properties["delivery_tag"])


@dataclass(frozen=True)
class Vector:
    """One recorded call."""

    id: str
    kind: str
    conf: dict[str, Any]
    call: dict[str, Any]
    messages: tuple[Message, ...]
    sent_by_worker: tuple[Message, ...]
    bindings: dict[str, list[str]]
    """Members of the binding sets, by key."""
    raises: dict[str, str] | None

    @property
    def transport(self) -> dict[str, Any]:
        options: dict[str, Any] = self.conf.get("broker_transport_options", {})
        return options

    @property
    def separator(self) -> str:
        return str(self.transport.get("sep", SEPARATOR))

    @property
    def steps(self) -> list[int]:
        return list(self.transport.get("priority_steps", PRIORITY_STEPS))

    def router(self) -> Router:
        """Return the router that these settings make."""
        return Router(
            queues=[
                Queue(
                    q["name"], q["exchange"], q["type"], q["routing_key"],
                    q.get("expires"),
                )
                for q in self.conf.get("task_queues", ())
            ],
            default_queue=self.conf.get("task_default_queue", "celery"),
            routes=self.conf.get("task_routes"),
        )  # fmt: skip

    def format(self, message: Message) -> MessageFormat:
        """Return the format that these settings make, in the process of `message`."""
        zone = self.conf.get("timezone")
        return MessageFormat(
            serializer=self.conf.get("task_serializer", "json"),
            compression=self.conf.get("task_compression"),
            body_encoding=self.transport.get("body_encoding", "base64"),
            protocol=self.conf.get("task_protocol", 2),
            utc=self.conf.get("enable_utc", True),
            zone=ZoneInfo(zone) if zone else datetime.UTC,
            origin=message.headers.get("origin") or "",
            reply_to=message.properties["reply_to"],
        )


def vectors() -> Iterator[Vector]:
    with (Path(__file__).parent / "messages.jsonl").open() as lines:
        for line in lines:
            fields = json.loads(line)
            yield Vector(
                id=fields["id"],
                kind=fields["kind"],
                conf=fields["conf"],
                call=fields["call"],
                messages=tuple(_messages(fields.get("messages", ()))),
                sent_by_worker=tuple(_messages(fields.get("sent_by_worker", ()))),
                bindings=fields.get("keys", {}),
                raises=fields.get("raises"),
            )


def _messages(found: Any) -> Iterator[Message]:
    for message in found:
        if "celeryev" not in message["key"]:  # an event, no task message
            yield Message(message["key"], message["raw"], tuple(message["volatile"]))


def python(value: Any) -> Any:
    """Return a value of a call; `{"$py": text}` is one that JSON cannot say."""
    if isinstance(value, dict):
        if value.keys() == {"$py"}:
            return eval(value["$py"], dict(_NAMES))  # our own file
        return {name: python(part) for name, part in value.items()}
    return [python(part) for part in value] if isinstance(value, list) else value


def masked(raw: str, volatile: tuple[str, ...]) -> str:
    """Hide what depends on the moment of sending: eta, expires and expiration."""
    text = raw
    if any(path.startswith("body.") for path in volatile):  # protocol 1
        body = json.loads(raw)["body"]
        text = text.replace(body, base64.b64decode(body).decode())
    for path in volatile:
        name = path.rpartition(".")[2]
        if name in ("eta", "expires", "expiration"):
            text = re.sub(rf'("{name}": )"[^"]*"', r"\1<>", text)
    return text


def without_marks(raw: str) -> str:
    """Take away the two headers that only our scheduler's messages have."""
    return re.sub(r'"beatd_entry": "[^"]*", "beatd_slot": "[^"]*", ', "", raw)
