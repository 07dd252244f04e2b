"""Records what Celery sends to a RabbitMQ: `python -m tests.wire.amqp.record`.

The calls are those of `../messages.jsonl`, where the same Celery sent them to Redis;
what is recorded comes from the bytes between both, by a proxy that decodes frames.
"""

import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import entity
from kombu.exceptions import EncodeError

from tests.rabbitmq import Rabbit, VHost
from tests.servers import eventually
from tests.wire.amqp.frames import Reader, Sent
from tests.wire.vectors import Vector, python, vectors

Kombu: Any = entity  # it has no types

HERE = Path(__file__).parent

HOST = f"@{socket.gethostname()}"
"""What stands in every vector for the machine's name."""


class Wiretap:
    """Carries one client's bytes to the server, and notes what the client says."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._target = port
        self.sent: list[Sent] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return  # closed
            there = socket.create_connection(("127.0.0.1", self._target))
            for pair in ((here, there, Reader()), (there, here, None)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(
        self, here: socket.socket, there: socket.socket, reader: Reader | None
    ) -> None:
        with suppress(OSError), closing(there):  # either end may go first
            while piece := here.recv(1 << 16):
                if reader:
                    self.sent += reader.feed(piece)
                there.sendall(piece)


@contextmanager
def tapped(rabbit: Rabbit) -> Iterator[tuple[Wiretap, str]]:
    """Lend a wiretap, and the address of an empty virtual host behind it."""
    vhost = VHost(rabbit)
    with closing(Wiretap(rabbit.port)) as tap:
        yield tap, rabbit.url(vhost.name, tap.port)
    rabbit.drop_vhost(vhost.name)


def app_of(vector: Vector, url: str) -> Celery:
    conf = dict(vector.conf)
    conf["task_queues"] = [
        Kombu.Queue(
            queue["name"],
            Kombu.Exchange(queue["exchange"], queue["type"]),
            routing_key=queue["routing_key"],
            expires=queue.get("expires"),
        )
        for queue in conf.get("task_queues", ())
    ] or None
    app = Celery(broker=url, set_as_current=False)
    app.conf.update(conf)
    return app


def messages(rabbit: Rabbit) -> Iterator[dict[str, Any]]:
    """Yield the message of each call that Celery's client can make here."""
    for vector in vectors():
        if vector.call["fn"] != "send_task" or len(vector.messages) != 1:
            continue
        if "broker_transport_options" in vector.conf:
            continue  # these are of Redis
        call = python(vector.call)
        with tapped(rabbit) as (tap, url), app_of(vector, url) as app:
            try:
                app.send_task(
                    call["name"],
                    call["args"],
                    call["kwargs"],
                    **call.get("options", {}),
                )
            except (struct.error, EncodeError):
                continue  # no priority of AMQP's, no JSON
            message = eventually(lambda: _tasks(tap.sent))[0]
        yield {"id": vector.id, **message.as_line()}


def beats(rabbit: Rabbit) -> Iterator[dict[str, Any]]:
    """Yield the message of each entry that Celery's beat emits."""
    for vector in vectors():
        if vector.call["fn"] != "celery beat" or "task_queues" in vector.conf:
            continue
        entry = dict(vector.call["entry"])
        entry["schedule"] = 1
        script = (
            "from celery import Celery\n"
            "app = Celery(broker=URL)\n"
            f"conf = {vector.conf!r}\n"
            f"conf['beat_schedule'] = {{{vector.call['entry_name']!r}: {entry!r}}}\n"
            "app.conf.update(conf)\n"
        )
        if not entry["task"].endswith("elsewhere"):  # else Celery does not know it
            ignored = entry["task"].endswith(".ignored")
            script += (
                f"app.task(name={entry['task']!r}, ignore_result={ignored})"
                "(lambda *args, **kwargs: None)\n"
            )
        with tapped(rabbit) as (tap, url), tempfile.TemporaryDirectory() as folder:
            Path(folder, "app.py").write_text(script.replace("URL", repr(url)))
            beat = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "app", "beat"], cwd=folder
            )
            try:
                message = eventually(lambda: _tasks(tap.sent))[0]
            finally:
                beat.terminate()
                beat.wait()
        yield {"id": vector.id, **message.as_line()}


def _tasks(sent: Sequence[Sent]) -> list[Sent]:
    """Return the messages of tasks among these, without events."""
    return [
        one
        for one in [*sent]
        if one.method == "Basic.Publish" and one.arguments["exchange"] != "celeryev"
    ]


DECLARING: dict[str, tuple[str, str]] = {
    "default": ("", "{}"),
    "default named": ("", "{'task_default_queue': 'mine'}"),
    "max priority": ("", "{'task_queue_max_priority': 7}"),
    "quorum": ("", "{'task_default_queue_type': 'quorum'}"),
    "missing": ("other", "{}"),
    "missing, max priority": ("other", "{'task_queue_max_priority': 7}"),
    "missing, quorum": ("other", "{'task_create_missing_queue_type': 'quorum'}"),
    "missing, topic": (
        "other",
        "{'task_create_missing_queue_exchange_type': 'topic'}",
    ),
    "a topic": (
        "video",
        "{'task_queues': [Queue('video', Exchange('media', 'topic'),"
        " routing_key='media.#')]}",
    ),
    "a fan-out": (
        "news",
        "{'task_queues': [Queue('news', Exchange('news', 'fanout'))]}",
    ),
    "arguments": (
        "long",
        "{'task_queues': [Queue('long', Exchange('long'), routing_key='long',"
        " queue_arguments={'x-max-length': 10, 'x-overflow': 'reject-publish'},"
        " max_priority=5, expires=3600, message_ttl=60)]}",
    ),
    "transient": (
        "t",
        "{'task_queues': [Queue('t', Exchange('t', durable=False), routing_key='t',"
        " durable=False, auto_delete=True)]}",
    ),
    "several bindings": (
        "both",
        "{'task_queues': [Queue('both', [binding(Exchange('a', 'topic'),"
        " routing_key='a.*'), binding(Exchange('b'), routing_key='b')])]}",
    ),
}
"""By name, the queue that a call names, and settings as Python."""


def declarations(rabbit: Rabbit) -> Iterator[dict[str, Any]]:
    """Yield what Celery's client declares before its first message."""
    for name, (queue, conf) in DECLARING.items():
        with tapped(rabbit) as (tap, url):
            app = Celery(broker=url, set_as_current=False)
            app.conf.update(settings(conf))
            with app:
                app.send_task("t", queue=queue or None)
                eventually(lambda: _tasks(tap.sent))
            passed_over = ("Channel.Open", "Basic.Publish")
            declared = [one for one in tap.sent if one.method not in passed_over]
        yield {"id": name, "queue": queue, "conf": conf} | {
            "frames": [one.as_line() for one in declared]
        }


def settings(text: str) -> dict[str, Any]:
    """Return the settings that a vector says as Python."""
    names = {name: getattr(Kombu, name) for name in ("Queue", "Exchange", "binding")}
    found: dict[str, Any] = eval(text, names)  # our own text
    return found


RECORDS = {"messages": messages, "beat": beats, "declarations": declarations}


def main(*names: str) -> None:
    with Rabbit() as rabbit:
        for name in names or RECORDS:
            record = RECORDS[name]
            with (HERE / f"{name}.jsonl").open("w") as out:
                for line in record(rabbit):
                    out.write(json.dumps(line).replace(HOST, "@host.example") + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
