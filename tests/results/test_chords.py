"""What is counted for chords in Redis, beside Celery's workers.

tests/wire/chords.jsonl holds the kind res.chord of shared/wire/vectors.jsonl: what
Celery's workers had Redis do for one chord.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from beatd import results
from beatd.config.settings import read
from beatd.errors import MessageError, ResultRefused
from beatd.message import Chord
from beatd.results.chords import Chords, Ended, Joined, Part, values_of
from beatd.results.encoding import Encoding
from beatd.results.redis import RedisResults
from tests.servers import Server, lives_for

RECORDED = Path(__file__).parents[1] / "wire" / "chords.jsonl"
VECTORS = [json.loads(line) for line in RECORDED.read_text().splitlines()]
PLAIN = Encoding()


def at(server: Server, **settings: object) -> RedisResults:
    found = read({"result_backend": server.url(), **settings}).settings
    backend = results.connect(found)
    assert isinstance(backend, RedisResults)
    return backend


@pytest.fixture
def chords(server: Server) -> Iterator[RedisResults]:
    backend = at(server)
    yield backend
    backend.close()


def part(task_id: str, index: int | None, value: Any = None) -> Part:
    data = PLAIN.part(task_id, "SUCCESS", task_id if value is None else value)
    return Part("g", task_id, index, data)


def header_of(joined: Joined) -> list[Ended]:
    return [PLAIN.read_part(data) for data in joined.header]


def join_one(chords: Chords, one: Part) -> Joined | None:
    return next(iter(chords.join_chords([one])), None)


# As Celery


def recorded(vector: dict[str, Any], word: str) -> list[list[str]]:
    return [command for command in vector["commands"] if command[0] == word]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_a_chord_is_counted_as_celery_counts_it(
    vector: dict[str, Any], server: Server, chords: RedisResults
) -> None:
    # One that the server did not know yet was asked again.
    calls = {one[9]: one for one in recorded(vector, "EVALSHA") if one[2] == "6"}
    first, second = calls.values()
    group = first[7].removeprefix("celery-taskset-meta-")
    chords.begin_chords([Chord(group, 2)])
    parts = []
    for (_, _, _, *keys), index in ((first, 0), (second, 1)):
        task_id, data = keys[6:8]
        value = json.loads(data)[3]
        parts.append(Part(group, task_id, index, PLAIN.part(task_id, "SUCCESS", value)))
        assert parts[-1].data.decode() == data

    assert join_one(chords, parts[0]) is None
    joined = join_one(chords, parts[1])

    with server.client() as redis:
        for _, key, seconds in recorded(vector, "EXPIRE")[:4]:
            if redis.exists(key):
                assert lives_for(redis, key, int(seconds))
        ((_, claim, _, _, _, seconds),) = (
            one for one in recorded(vector, "SET") if "NX" in one
        )
        assert lives_for(redis, claim, int(seconds))
        for _, key, score, value in recorded(vector, "ZADD"):
            assert redis.zscore(key, value) == float(score)
        for _, key, member in recorded(vector, "SADD"):
            assert redis.sismember(key, member)
        assert joined is not None
        chords.end_chords([joined])
        after = vector["keys_after"]
        assert {key.decode() for key in _of_chords(redis)} == set(after)
        for key, expected in after.items():
            assert redis.get(key) == expected["value"].encode()
            assert lives_for(redis, key, expected["ttl_s"])


# Each chord once


def test_values_come_in_the_headers_order_whatever_ended_first(
    chords: RedisResults,
) -> None:
    chords.begin_chords([Chord("g", 3)])

    assert chords.join_chords([part("c", 2), part("a", 0)]) == []
    joined = join_one(chords, part("b", 1))

    assert joined is not None
    assert values_of(header_of(joined), None) == ["a", "b", "c"]


def test_an_end_that_is_told_again_counts_once(chords: RedisResults) -> None:
    chords.begin_chords([Chord("g", 2)])

    assert join_one(chords, part("a", 0)) is None
    assert join_one(chords, part("a", 0, "another value")) is None
    joined = join_one(chords, part("b", 1))

    assert joined is not None
    assert values_of(header_of(joined), None) == ["a", "b"]


def test_only_the_last_part_gets_the_chord_and_gets_it_again(
    chords: RedisResults,
) -> None:
    chords.begin_chords([Chord("g", 2)])
    join_one(chords, part("a", 0))

    joined = join_one(chords, part("b", 1))

    assert joined is not None
    assert join_one(chords, part("a", 0)) is None, "b has the claim"
    assert join_one(chords, part("b", 1)) == joined, "its answer may have been lost"


def test_a_chord_that_is_over_is_not_given_again(
    chords: RedisResults, server: Server
) -> None:
    chords.begin_chords([Chord("g", 1)])
    joined = join_one(chords, part("a", 0))
    assert joined is not None

    chords.end_chords([joined])
    chords.end_chords([joined])

    assert join_one(chords, part("a", 0)) is None
    with server.client() as redis:
        assert _of_chords(redis) == [b"celery-taskset-meta-g.c"]


def _of_chords(redis: Any) -> list[bytes]:
    """Return all keys but those of a scheduler."""
    return [key for key in redis.scan_iter() if not key.startswith(b"{beatd:")]


def test_who_lost_the_claim_ends_nothing(chords: RedisResults, server: Server) -> None:
    chords.begin_chords([Chord("g", 1)])
    joined = join_one(chords, part("a", 0))
    assert joined is not None
    with server.client() as redis:
        redis.set("celery-taskset-meta-g.c", "another's")
        before = set(redis.keys())

        chords.end_chords([joined])

        assert set(redis.keys()) == before
        assert redis.get("celery-taskset-meta-g.c") == b"another's"


@pytest.mark.parametrize("suffix", [".j", ".t", ".s", ".d", "", ".c"])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_key_of_another_program_is_met_or_refused_and_nothing_else(
    chords: RedisResults, server: Server, suffix: str, is_text: bool
) -> None:
    chords.begin_chords([Chord("g", 1)])
    with server.client() as redis:
        key = f"celery-taskset-meta-g{suffix}"
        redis.delete(key)
        if is_text:
            redis.set(key, "another's")
        else:
            redis.zadd(key, {"another's": 1})

    joined = Joined(part("a", 0), [], None)
    with suppress(ResultRefused):
        joined = join_one(chords, part("a", 0)) or joined
    with suppress(ResultRefused):
        chords.end_chords([joined])
    chords.begin_chords([Chord("g", 1)])


def test_a_chord_that_begins_again_is_counted_anew(chords: RedisResults) -> None:
    for value in ("one", "two"):
        chords.begin_chords([Chord("g", 1)])
        joined = join_one(chords, part("a", 0, value))
        assert joined is not None
        assert values_of(header_of(joined), None) == [value]
        chords.end_chords([joined])


def test_parts_of_an_unknown_size_wait(chords: RedisResults) -> None:
    assert join_one(chords, part("a", 0)) is None

    chords.begin_chords([Chord("g", 1)])

    assert join_one(chords, part("a", 0)) is not None


def test_calls_that_a_header_gained_while_it_ran_are_awaited(
    chords: RedisResults, server: Server
) -> None:
    chords.begin_chords([Chord("g", 1)])
    with server.client() as redis:
        redis.incr("celery-taskset-meta-g.t")  # as `Task.add_to_chord` of Celery does

    assert join_one(chords, part("a", 0)) is None
    assert join_one(chords, part("b", None)) is not None


def test_values_of_groups_within_the_header_keep_their_places(
    chords: RedisResults,
) -> None:
    def leaf(task_id: str) -> list[Any]:
        return [[task_id, None], None]

    shape = [["g", None], [[["inner", None], [leaf("a"), leaf("b")]], leaf("c")]]
    chords.begin_chords([Chord("g", 3, shape)])
    chords.join_chords([part("c", 1), part("b", 1)])

    joined = join_one(chords, part("a", 0))

    assert joined is not None
    assert joined.shape is not None
    kept = PLAIN.unpack(joined.shape)["result"]
    assert values_of(header_of(joined), kept) == [["a", "b"], "c"]


# Settings


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 86_400),
        ({"result_expires": 60}, 60),
        ({"result_chord_expires": 30, "result_expires": 60}, 30),
        ({"result_chord_expires": 0}, -1),
        ({"result_expires": None}, -1),
    ],
    ids=str,
)
def test_what_is_counted_is_kept_for_as_long_as_the_settings_say(
    settings: dict[str, object], seconds: int, server: Server
) -> None:
    chords = at(server, **settings)

    chords.begin_chords([Chord("g", 2)])
    chords.join_chords([part("a", 0)])

    chords.close()
    with server.client() as redis:
        for suffix in (".j", ".s", ".d"):
            assert lives_for(redis, "celery-taskset-meta-g" + suffix, seconds)


def test_headers_without_an_order_are_counted_in_a_list(server: Server) -> None:
    chords = at(
        server, result_backend_transport_options={"result_chord_ordered": False}
    )
    chords.begin_chords([Chord("g", 2)])
    join_one(chords, part("b", 1))

    joined = join_one(chords, part("a", 0))

    chords.close()
    assert joined is not None
    assert values_of(header_of(joined), None) == ["b", "a"]


def test_the_prefix_of_results_is_that_of_chords(server: Server) -> None:
    chords = at(server, result_backend_transport_options={"global_keyprefix": "shop"})

    chords.begin_chords([Chord("g", 2)])

    chords.close()
    with server.client() as redis:
        assert _of_chords(redis) == [b"shop_celery-taskset-meta-g.s"]


# What is counted


def test_failures_are_counted_as_celery_says_them() -> None:
    data = PLAIN.part("a", "FAILURE", ValueError("no"))

    assert json.loads(data) == [
        1,
        "a",
        "FAILURE",
        {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"},
    ]
    ended = PLAIN.read_part(data)
    assert isinstance(ended.value, ValueError)
    assert ended.value.args == ("no",)


@pytest.mark.parametrize("data", [b"5", b"[1, 2]", b"{", b"\xff"])
def test_what_is_no_part_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        PLAIN.read_part(data)
