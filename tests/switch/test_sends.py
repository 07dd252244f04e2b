"""What an entry of a Celery app sends is what Celery's beat sends for it."""

import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.servers import PATIENCE, Server

pytestmark = pytest.mark.xdist_group("sends")  # all is sent once

PROJECTS = Path(__file__).parent / "projects"
ROOT = Path(__file__).parent.parent.parent

APPS = (
    *("plain", "annotated", "first_protocol", "as_text", "own_amqp"),
    *("by_dict", "by_pattern", "by_text", "by_tuple", "by_colon", "by_instance"),
)


Sent = dict[str, Any]
"""By app, by entry, what came into Redis."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switch") / "sends"
    shutil.copytree(PROJECTS / "sends", folder)
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[Sent, Sent]:
    """Return what Celery's beat has sent, and what beatd has."""
    with Server() as server:
        return _sent("celery", server, folder), _sent("beatd", server, folder)


def _sent(kind: str, server: Server, folder: Path) -> Sent:
    apps = [f"sends:{app}" for app in (*APPS, "eager", "broadcasting")]
    process = subprocess.run(
        [sys.executable, "-m", "tests.switch.sending", kind, server.url(), *apps],
        cwd=folder,
        env={**os.environ, "BROKER": server.url(), "PYTHONPATH": str(ROOT)},
        timeout=4 * PATIENCE,  # for all apps
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr + process.stdout
    found: Sent = json.loads((folder / f"{kind}.json").read_text())
    return found


@pytest.mark.parametrize("app", APPS)
def test_an_entry_sends_what_celery_beat_sends(
    app: str, both: tuple[Sent, Sent]
) -> None:
    theirs, ours = (sent[f"sends:{app}"] for sent in both)

    assert theirs.keys() == ours.keys()
    assert unsent(theirs) == unsent(ours)
    for name in theirs.keys() - unsent(theirs):
        assert compared(ours[name], ours=True) == compared(theirs[name]), name


def unsent(sent: dict[str, Any]) -> set[str]:
    return {name for name, one in sent.items() if "unsent" in one}


def test_what_celery_would_run_in_the_scheduler_is_queued(
    both: tuple[Sent, Sent],
) -> None:
    ours = both[1]["sends:eager"]

    queues = {name: [*compared(ours[name], ours=True)][:1] for name in ours}
    assert queues == {
        "eager": ["eager"],
        "added": ["eager"],
        "signed": ["signed"],
        "other": ["celery"],
    }


def test_a_broadcast_is_heard_though_celery_beat_does_not_declare_its_exchange(
    both: tuple[Sent, Sent],
) -> None:
    theirs, ours = (sent["sends:broadcasting"]["to_all"] for sent in both)

    assert compared(theirs) == {}
    assert [*compared(ours, ours=True)] == ["/0.everywhere/celery"]


def compared(sent: dict[str, Any], *, ours: bool = False) -> dict[str, Any]:
    """Return what was sent, without what differs each time."""
    found = {}
    for key, value in sent.items():
        if isinstance(value, list) and not key.startswith("_kombu"):
            found[key] = [message_of(text, ours=ours) for text in value]
        elif not key.startswith("_kombu"):
            found[key] = value
    return found


def message_of(text: str, *, ours: bool) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(text)
    headers, properties = message["headers"], message["properties"]
    if ours:
        assert headers.pop("beatd_entry")
        assert headers.pop("beatd_slot")
    if "id" in headers:
        id = properties["correlation_id"]
        assert headers.pop("id") == id
        assert headers.pop("root_id") == id
        assert headers.pop("origin").startswith("gen")
        headers["eta"] = near(headers["eta"])
        headers["expires"] = near(headers["expires"])
        assert properties.pop("delivery_tag") != ""
    if properties["correlation_id"] != "always-the-same":
        del properties["correlation_id"]
    assert properties.pop("reply_to") != ""
    if expiration := properties.get("expiration"):
        properties["expiration"] = Near(int(expiration) / 1000)
    if "task" not in headers:
        message = of_first_protocol(message)
    return message


@dataclass(frozen=True)
class Near:
    """A moment, or a length: near enough to that of a message that was sent before."""

    seconds: float
    offset: timedelta | None = None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Near)
            and abs(self.seconds - other.seconds) < PATIENCE
            and self.offset == other.offset
        )


def near(moment: str | None) -> Near | None:
    if moment is None:
        return None
    found = datetime.fromisoformat(moment)
    offset = found.utcoffset()
    return Near(found.replace(tzinfo=found.tzinfo or UTC).timestamp(), offset)


def of_first_protocol(message: dict[str, Any]) -> dict[str, Any]:
    body = json.loads(base64.b64decode(message["body"]))
    if isinstance(body, dict):
        for name in ("id", "eta", "expires"):
            body.pop(name)
        message["properties"].pop("delivery_tag")
    return {**message, "body": body}
