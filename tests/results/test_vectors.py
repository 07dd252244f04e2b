"""What Celery's workers stored, stored by ours: the same bytes under the same key.

tests/wire/results.jsonl copies from shared/wire/vectors.jsonl what the kinds res.* and
pre.res.* (time limits, lost processes) say of results; the one chord is beside it, in
chords.jsonl. How our own worker comes to the same ends: tests/wire/test_result_vectors.
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
from beatd.config.settings import read
from beatd.results.base import Meta
from tests.results import wireapp
from tests.servers import Server, lives_for

RECORDED = Path(__file__).parents[1] / "wire"


def recorded(name: str) -> list[dict[str, Any]]:
    lines = (RECORDED / name).read_text().splitlines()
    return [json.loads(line) for line in lines]


ALL = recorded("results.jsonl")
GROUPS = [vector for vector in ALL if "-taskset-" in vector["key"]]
VECTORS = [
    vector | {"meta": vector.get("meta") or json.loads(vector["raw"])}
    for vector in ALL
    if vector not in GROUPS and ("meta" in vector or vector["raw"])
]

KINDS = """
pre.res.hard_limit pre.res.soft_limit pre.res.soft_limit.uncaught pre.res.terminate
pre.res.worker_lost
res.autoretry res.chain res.chord res.custom_state res.expired
res.conf.compressed.add res.conf.compressed.fail res.conf.expires.add
res.conf.expires.fail res.conf.expires_none.add res.conf.expires_none.fail
res.conf.extended.add res.conf.extended.fail res.conf.msgpack.add res.conf.msgpack.fail
res.conf.pickle.add res.conf.pickle.fail res.conf.prefix.add res.conf.prefix.fail
res.conf.yaml.add res.conf.yaml.fail
res.failure res.failure.badargs res.failure.chained res.failure.custom
res.failure.encode res.failure.kwonly res.failure.local res.failure.max_retries
res.failure.nested res.failure.unregistered res.failure.unserializable_arg
res.groupresult res.ignore res.ignored res.ignored.failure res.ignored.failure_stored
res.ignored.header res.ignored.header_false
res.link res.link.immutable res.link_error res.reject res.retry res.retry.plain
res.revoked.before res.started
res.success res.success.children res.success.group res.success.none res.success.text
res.success.types
"""
"""All that was recorded about results, once for each of the profiles a and b."""


def has_bytes(vector: dict[str, Any]) -> bool:
    # YAML broke the lines of a traceback that was longer then: with whole paths.
    return vector["raw"] is not None and "yaml.fail" not in vector["id"]


def bytes_of(vector: dict[str, Any]) -> bytes:
    raw = vector["raw"]
    return base64.b64decode(raw["b64"]) if isinstance(raw, dict) else raw.encode()


WITH_BYTES = [vector for vector in VECTORS if has_bytes(vector)]
WITHOUT = [vector for vector in VECTORS if not has_bytes(vector)]

IN_CELERY = {
    "SoftTimeLimitExceeded": errors.SoftTimeLimitExceeded,
    "TimeLimitExceeded": errors.TimeLimitExceeded,
    "WorkerLostError": errors.WorkerLost,
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
    """Return what the recorded task returned or raised."""
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
    with server.client() as client:
        client.flushall()  # also what a scheduler would have left

    backend.store([meta_of(vector)])
    backend.close()

    with server.client() as client:
        assert client.keys() == [vector["key"].encode()]
        assert client.get(vector["key"]) == bytes_of(vector)
        # Some were recorded without it; a day is Celery's default.
        assert lives_for(client, vector["key"], vector.get("ttl_s", 86_400))


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


@pytest.mark.parametrize("vector", GROUPS, ids=lambda vector: vector["id"])
def test_a_group_is_read_and_written_as_celery_saves_it(vector: dict[str, Any]) -> None:
    encoding = results.encoding_of(read(vector["conf"]).settings)

    found = encoding.unpack(bytes_of(vector))

    (group, _), _ = found["result"]
    assert vector["key"] == f"celery-taskset-meta-{group}"
    assert encoding.pack(found) == bytes_of(vector)


def test_no_recorded_kind_is_missing() -> None:
    found = [vector["id"] for vector in ALL + recorded("chords.jsonl")]

    expected = [f"{kind}/{profile}" for kind in KINDS.split() for profile in "ab"]
    assert sorted(found) == sorted(expected)


def assert_same_value(found: Any, written: Any) -> None:
    if not isinstance(written, Exception):
        assert found == (written | {"tuple": [1, 2]} if written is TYPES else written)
        return
    # A class that nobody else can have is made anew, under its name.
    assert type(found).__name__ == type(written).__name__
    if not isinstance(
        written, errors.Verdict
    ):  # it would decide about the reader's own run
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
