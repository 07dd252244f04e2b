"""Signals around the sending of a call, and the pauses before further tries.

Receivers may change the call before it is sent. It is encoded by then, and is opened
for them: while nobody is connected, that costs nothing.
"""

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from beatd import signals
from beatd.brokers.items import Outgoing
from beatd.config.settings import Settings
from beatd.errors import MessageError
from beatd.event_log import EventLog
from beatd.message import codec
from beatd.routing import Router

tell = EventLog(__name__)

_OF_THE_TRANSPORT = (
    *("delivery_mode", "delivery_info", "priority", "body_encoding"),
    *("delivery_tag", "expiration"),
)

_OURS = codec.content_types(["json", "msgpack", "yaml", "pickle"])
"""No limits: these messages are beatd's own."""


def before_publish(sent: Outgoing, router: Router, policy: dict[str, Any]) -> Outgoing:
    """Let receivers change a message; return the message after that.

    A message that cannot be opened for them, or encoded afterwards, is returned as it
    was, and that is logged, as are exceptions of receivers.
    """
    signal = signals.before_task_publish
    if not signal.has_receivers:
        return sent
    try:
        letter = _Letter.opened(sent.message)
        properties, task = letter.properties, letter.task
    except Exception:  # unpickling runs foreign code
        _log_failure(signal, "a call is sent as it is: it cannot be opened for %s")
        return sent
    declare = [router.queue(sent.route.queue)] if sent.route.queue else []
    signal.send(
        task,
        body=letter.body,
        **letter.way,
        declare=declare,
        headers=letter.headers,
        properties=properties,
        retry_policy=policy,
    )
    try:
        return msgspec.structs.replace(sent, message=letter.sealed(properties))
    except Exception:  # receivers may have put anything anywhere
        words = "what %s made of a call of %s cannot be sent: it is sent as it was"
        _log_failure(signal, words, task)
        return sent


def after_publish(sent: Outgoing) -> None:
    """Tell receivers that a message was sent; never raise, for it is sent already."""
    signal = signals.after_task_publish
    if not signal.has_receivers:
        return
    try:
        letter = _Letter.opened(sent.message)
        signal.send(letter.task, body=letter.body, headers=letter.headers, **letter.way)
    except Exception:  # unpickling runs foreign code
        _log_failure(signal, "a call was sent, and cannot be opened for %s")


def pauses(policy: Mapping[str, Any]) -> Iterator[float]:
    """Yield the seconds before each further try, as kombu's retry policies say.

    Keys that the policy lacks have their usual values; tries without a bound (None)
    never end.
    """
    policy = {**_USUAL, **policy}
    pause, limit = policy["interval_start"] or 0, policy["max_retries"]
    for _ in itertools.count() if limit is None else range(limit):
        yield min(pause, policy["interval_max"])
        pause += policy["interval_step"]


_USUAL = Settings().task_publish_retry_policy


def _log_failure(signal: signals.Signal, words: str, *more: str) -> None:
    tell.exception("signal.failed", words, signal.name, *more, signal=signal.name)


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message that is open: all its parts may be changed."""

    envelope: dict[str, Any]
    body: Any
    """`(args, kwargs, embed)`, or what protocol 1 has."""

    @classmethod
    def opened(cls, message: bytes) -> "_Letter":
        envelope = json.loads(message)
        data = envelope["body"].encode()
        if envelope["properties"]["body_encoding"] == "base64":
            data = base64.b64decode(data)
        if compression := envelope["headers"].get("compression"):
            data = codec.decompress(data, compression)
        body = codec.loads(data, envelope["content-type"], _OURS)
        return cls(envelope, tuple(body) if isinstance(body, list) else body)

    @property
    def headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = self.envelope["headers"]
        return headers

    @property
    def task(self) -> str:
        return str(self._call_part["task"])

    @property
    def _call_part(self) -> dict[str, Any]:
        """The part of the message that describes the call: in protocol 1, the body."""
        return self.body if isinstance(self.body, dict) else self.headers

    @property
    def way(self) -> dict[str, str]:
        """Exchange and routing key."""
        way: dict[str, str] = self.envelope["properties"]["delivery_info"]
        return way

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that are the call's, and not the transport's."""
        every = self.envelope["properties"]
        return {k: v for k, v in every.items() if k not in _OF_THE_TRANSPORT}

    def sealed(self, properties: dict[str, Any]) -> bytes:
        """Return the message with its parts as they are now, and these properties.

        May raise anything, for receivers may have put anything into the parts.
        """
        if "task" not in self._call_part:
            raise MessageError("it names no task")
        envelope = self.envelope
        envelope["properties"] = {**envelope["properties"], **properties}
        serializer = codec.name_of(envelope["content-type"])
        data = codec.dumps(self.body, serializer).data
        if compression := self.headers.get("compression"):
            data, _ = codec.compress(data, compression)
        if envelope["properties"]["body_encoding"] == "base64":
            data = base64.b64encode(data)
        envelope["body"] = data.decode()
        return codec.json_text(envelope).encode()
