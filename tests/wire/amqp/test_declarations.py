"""What Celery declares in RabbitMQ before its first message, and what beatd does."""

import json
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.amqp.declaring import declare
from beatd.config.loading import router
from beatd.config.settings import Settings
from tests.wire.amqp.record import settings

LINES = [
    pytest.param(line, id=line["id"])
    for line in map(
        json.loads,
        (Path(__file__).parent / "declarations.jsonl").read_text().splitlines(),
    )
]


class Channel:
    """Takes down what is declared, in the form of the vectors."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    def exchange_declare(
        self, exchange: str, type: str, *, durable: bool, auto_delete: bool
    ) -> None:
        self.frames.append(
            {"method": "Exchange.Declare", "exchange": exchange, "type": type}
            | {"durable": durable, "auto_delete": auto_delete, "arguments": {}}
        )

    def queue_declare(
        self, queue: str, *, durable: bool, auto_delete: bool, arguments: Any
    ) -> None:
        self.frames.append(
            {"method": "Queue.Declare", "queue": queue, "durable": durable}
            | {"auto_delete": auto_delete, "arguments": arguments}
        )

    def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self.frames.append(
            {"method": "Queue.Bind", "queue": queue, "exchange": exchange}
            | {"routing_key": routing_key, "arguments": {}}
        )


@pytest.mark.parametrize("line", LINES)
def test_queues_are_declared_as_celery_declares_them(line: dict[str, Any]) -> None:
    routes = router(Settings(**settings(line["conf"])))
    channel = Channel()

    declare(channel, routes.declares({"queue": line["queue"] or None}))

    usual = {"passive": False, "exclusive": False, "internal": False, "nowait": False}
    ours = [frame | usual for frame in channel.frames]
    theirs = [frame | usual for frame in line["frames"]]
    assert sorted(map(repr_of, ours)) == sorted(map(repr_of, theirs))


def repr_of(frame: dict[str, Any]) -> str:
    return json.dumps(frame, sort_keys=True)
