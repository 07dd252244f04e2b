"""Flower shows and steers beatd's worker; it runs as a process of its own."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.processes import module
from tests.servers import PATIENCE, Server, eventually, number_of, reserved_port
from tests.wire.clients import celery_client
from tests.worker.project import Project

NODE = f"w0@{socket.gethostname()}"


class Flower:
    """A running Flower, asked by its HTTP API."""

    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}/api"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._at}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str) -> Any:
        request = urllib.request.Request(f"{self._at}{path}", method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def knows(self) -> Any:
        """Return what it knows of the worker; None before it knows all of it.

        Before that, events are none that it hears for sure.
        """
        wanted = {"stats", "registered", "active_queues"}
        try:
            known = self.get("/workers?refresh=1").get(NODE, {})
            heard = self.get("/workers?status=1")
        except OSError:  # it is not up
            return None
        return known if heard == {NODE: True} and known.keys() >= wanted else None

    def states(self) -> dict[str, str]:
        return {key: task["state"] for key, task in self.get("/tasks").items()}


@contextmanager
def flower(folder: Path, broker: str, backend: str) -> Iterator[Flower]:
    addresses = ("-b", broker, "--result-backend", backend)
    with reserved_port() as reserved:
        port = number_of(reserved)
        options = (f"--port={port}", "--address=127.0.0.1")
        api = {"FLOWER_UNAUTHENTICATED_API": "1"}
        with module("celery", *addresses, "flower", *options, cwd=folder, **api):
            yield Flower(port)


def test_flower_shows_the_worker_and_its_tasks_and_steers_it(
    tmp_path: Path, server: Server
) -> None:
    urls = server.url(0), server.url(1)
    project = Project(tmp_path, *urls)
    with (
        celery_client(*urls) as client,
        flower(tmp_path, *urls) as shown,
        project.worker("-c", "2", "-E"),
    ):
        known = eventually(shown.knows, "Flower to know the worker")
        assert known["stats"]["pool"]["max-concurrency"] == 2
        assert "proj.add" in known["registered"]
        assert known["active_queues"][0]["name"] == "celery"

        good = client.send_task("proj.add", [1, 2])
        bad = client.send_task("proj.fail", ["no such thing"])
        long = client.send_task("proj.mark", ["long", 60])
        expected = {good.id: "SUCCESS", bad.id: "FAILURE", long.id: "STARTED"}
        eventually(lambda: shown.states() == expected)
        task = shown.get(f"/task/info/{good.id}")
        assert (task["name"], task["result"], task["worker"]) == ("proj.add", "3", NODE)

        grown = shown.post(f"/worker/pool/grow/{NODE}?n=1")
        assert "Growing" in grown["message"]
        shown.post(f"/task/revoke/{long.id}?terminate=true&signal=SIGKILL")
        eventually(lambda: shown.states()[long.id] == "REVOKED")
    project.app.close()
