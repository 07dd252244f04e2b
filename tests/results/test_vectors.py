"""What Celery's workers stored, stored by ours: the same bytes under the same key.

tests/wire/results.jsonl holds the results of shared/wire/vectors.jsonl with a meta.
"""

import base64
import builtins
import json
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beatd import errors, results
from beatd.results.base import Meta
from beatd.settings import read
from tests.results import wireapp
from tests.servers import Server

RECORDED = Path(__file__).parents[1] / "wire" / "results.jsonl"
VECTORS = [json.loads(line) for line in RECORDED.read_text().splitlines()]


def has_bytes(vector: dict[str, Any]) -> bool:
    # YAML broke the lines of a traceback that was longer then: with whole paths.
    return vector["raw"] is not None and "yaml.fail" not in vector["id"]


def bytes_of(vector: dict[str, Any]) -> bytes:
    raw = vector["raw"]
    return base64.b64decode(raw["b64"]) if isinstance(raw, dict) else raw.encode()


WITH_BYTES = [vector for vector in VECTORS if has_bytes(vector)]
WITHOUT = [vector for vector in VECTORS if not has_bytes(vector)]

IN_CELERY = {
    "NotRegistered": errors.NotRegistered,
    "MaxRetriesExceededError": errors.MaxRetriesExceeded,
    "TaskRevokedError": errors.Revoked,
    "Reject": errors.Reject,
    "EncodeError": errors.MessageError,
}

TYPES = {
    "dt": datetime(2030, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 # naive, as it was sent
    "aware": datetime(2030, 1, 2, tzinfo=UTC),
    "date": date(2030, 1, 2),
    "time": time(3, 4, 5),
    "uuid": UUID(int=5),
    "dec": Decimal("1.10"),
    "b": b"ok",
    "raw": b"\xff\x00",
    "tuple": (1, 2),
    "none": None,
    "f": 1e300,
    "text": "\u2603",
}


@pytest.fixture(autouse=True)
def _wireapp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wireapp", wireapp.module())


def value_of(vector: dict[str, Any]) -> Any:
    """Give what the recorded task returned or raised."""
    result = vector["meta"]["result"]
    if vector["id"].startswith("res.success.types"):
        return TYPES
    if vector["id"].startswith("res.conf.pickle.fail"):
        return ValueError(*result.removeprefix("ValueError('").split("')")[:1])
    if not isinstance(result, dict) or "exc_type" not in result:
        return result
    name, module, args = result["exc_type"], result["exc_module"], result["exc_message"]
    if name == "UnpickleableExceptionWrapper":
        return unpicklable(*args)
    if module == "wireapp":
        return {"AppError": wireapp.AppError, "Outer.Inner": wireapp.Outer.Inner}[name](
            *args
        )
    return (IN_CELERY.get(name) or getattr(builtins, name))(*args)


def unpicklable(module: str, name: str, args: list[Any], text: str) -> Exception:
    if name == "Local":
        return wireapp.local_error(*args)
    if name == "NeedsKw":
        return wireapp.NeedsKw(code=9)
    lock, reason = args
    return wireapp.AppError(wireapp.Unpicklable(lock), reason)


def meta_of(vector: dict[str, Any]) -> Meta:
    stored = vector["meta"]
    own = ("name", "args", "kwargs", "worker", "retries", "queue")
    done = stored["date_done"]
    return Meta(
        stored["task_id"],
        stored["status"],
        value_of(vector),
        stored["traceback"],
        stored["children"],
        datetime.fromisoformat(done) if done else None,
        stored.get("group_id"),
        stored.get("parent_id"),
        {name: stored[name] for name in own if name in stored},
    )


@pytest.mark.parametrize("vector", WITH_BYTES, ids=lambda vector: vector["id"])
def test_a_result_is_stored_as_celery_stores_it(
    vector: dict[str, Any], server: Server
) -> None:
    conf = {**vector["conf"], "result_backend": server.url()}
    backend = results.connect(read(conf).settings)

    backend.store([meta_of(vector)])
    backend.close()

    with server.client() as client:
        assert client.keys() == [vector["key"].encode()]
        assert client.get(vector["key"]) == bytes_of(vector)
        assert client.ttl(vector["key"]) == vector["ttl_s"]


@pytest.mark.parametrize("vector", WITH_BYTES, ids=lambda vector: vector["id"])
def test_what_celery_stored_is_read(vector: dict[str, Any]) -> None:
    encoding = results.encoding_of(read(vector["conf"]).settings)
    written = meta_of(vector)

    found = encoding.decode(written.task_id, bytes_of(vector))

    assert (found.status, found.traceback) == (written.status, written.traceback)
    assert found.children == written.children
    assert (found.group_id, found.parent_id) == (written.group_id, written.parent_id)
    assert found.extended == written.extended
    assert_same_value(found.result, written.result)


def assert_same_value(found: Any, written: Any) -> None:
    if not isinstance(written, Exception):
        assert found == (written | {"tuple": [1, 2]} if written is TYPES else written)
        return
    # A class that nobody else can have is made anew, under its name.
    assert type(found).__name__ == type(written).__name__
    assert type(found).__module__ == type(written).__module__
    assert [str(arg) for arg in found.args] == [str(arg) for arg in written.args]


@pytest.mark.parametrize("vector", WITHOUT, ids=lambda vector: vector["id"])
def test_what_was_recorded_without_its_bytes_comes_back_as_it_was(
    vector: dict[str, Any],
) -> None:
    encoding = results.encoding_of(read(vector["conf"]).settings)
    written = meta_of(vector)

    found = encoding.decode(written.task_id, encoding.encode(written))

    assert_same_value(found.result, written.result)
    assert found.traceback == written.traceback
