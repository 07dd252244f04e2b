import bz2
import contextlib
import json
import lzma
import pickle
import zlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from beatd.errors import MessageError
from beatd.message.codec import (
    JSON,
    MAX_DEPTH,
    MSGPACK,
    PICKLE,
    YAML,
    compress,
    content_types,
    decompress,
    dumps,
    json_text,
    loads,
)

ALL = content_types(["json", "msgpack", "yaml", "pickle"])
SAFE = content_types(["json", "msgpack", "yaml"])


class Colour(StrEnum):
    RED = "red"


class Text(str):
    pass


class Count(int):
    pass


class Ratio(float):
    pass


class WithForm:
    def __json__(self) -> Any:
        return {"own": "form"}


class Broken:
    def __json__(self) -> Any:
        raise RuntimeError("no form today")


@dataclass
class Point:
    x: int


VALUES = [
    None,
    True,
    0,
    -(2**63),
    1.5,
    "text \u2603 \x00",
    [],
    {},
    [1, ["a", {"b": None}]],
    {"__type__": "datetime"},
    {"__type__": "datetime", "__value__": "x", "more": 1},
]

BIG = [10**5000]
"""In a list: pytest shows numbers in the names of its cases."""

MARKED = [
    datetime(2031, 3, 30, 1, 59, 59, 123456),  # noqa: DTZ001 - naive on purpose
    datetime(2031, 3, 30, tzinfo=UTC),
    date(2031, 3, 30),
    time(1, 59),
    Decimal("10.50"),
    UUID(int=5),
    b"plain",
    b"\xff\x00",
    [b"", {"when": [date(2031, 1, 1)]}],
]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_as_they_were(serializer: str, value: Any) -> None:
    encoded = dumps(value, serializer)

    assert loads(encoded.data, encoded.content_type, ALL) == value


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("value", MARKED, ids=repr)
def test_json_marks_types_that_it_does_not_have(serializer: str, value: Any) -> None:
    encoded = dumps(value, serializer)

    assert loads(encoded.data, encoded.content_type, ALL) == value


def test_json_is_written_as_kombu_writes_it() -> None:
    value = {"b": ["\u2603", float("inf")], "a": (1,), 2: WithForm(), "c": Colour.RED}

    encoded = dumps(value, "json")

    assert encoded == (
        JSON,
        "utf-8",
        b'{"b": ["\\u2603", Infinity], "a": [1], "2": {"own": "form"}, "c": "red"}',
    )


@pytest.mark.parametrize("value", [Text("a"), Count(1), Ratio(0.5), Colour.RED])
def test_msgpack_takes_subclasses_of_what_it_knows(value: Any) -> None:
    assert loads(dumps(value, "msgpack").data, MSGPACK, ALL) == value


def recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


VERY_DEEP = deep(100_000)


@pytest.mark.parametrize(
    ("serializer", "value", "reason"),
    [
        ("json", {1, 2}, "json has no form for type set"),
        ("json", timedelta(1), "json has no form for type timedelta"),
        ("json", Point(1), "json has no form for type Point"),
        ("json", {(1, 2): 3}, "keys must be str"),
        ("json", recursive(), "Circular reference"),
        ("json", VERY_DEEP, "nested too deeply"),
        ("json", Broken(), "no form today"),
        ("json", BIG, "Exceeds the limit"),
        ("msgpack", datetime(2031, 3, 30, tzinfo=UTC), "no form for type datetime"),
        ("msgpack", UUID(int=5), "no form for type UUID"),
        ("msgpack", [{"a": {1}}], "no form for type set"),
        ("msgpack", {date(2031, 1, 1): 1}, "no form for type date"),
        ("msgpack", Point(1), "no form for type Point"),
        ("msgpack", Decimal(1), "no form for type Decimal"),
        ("msgpack", 2**64, "can't serialize ints"),
        ("msgpack", recursive(), "nested too deeply"),
        ("msgpack", "\ud800", "surrogates"),
        ("yaml", UUID(int=5), "yaml has no form for type UUID"),
        ("yaml", VERY_DEEP, "nested too deeply"),
        ("pickle", lambda: None, "pickle: "),
        ("pickle", VERY_DEEP, "nested too deeply"),
        ("jsno", 1, "no serializer named 'jsno'; known: json, msgpack, yaml, pickle"),
    ],
)
def test_what_cannot_be_encoded_is_an_error(
    serializer: str, value: Any, reason: str
) -> None:
    with pytest.raises(MessageError, match=reason):
        dumps(value, serializer)


@pytest.mark.parametrize(
    ("content_type", "data", "reason"),
    [
        (JSON, b"", "not JSON: Expecting value at 0"),
        (JSON, b"{", "not JSON: "),
        (JSON, b"\xff", "not json: UnicodeDecodeError"),
        (JSON, b"\xef\xbb\xbf1", "not JSON: "),
        (JSON, b"1" * 5000, "not json: ValueError"),
        (JSON, b"[" * 100_000 + b"]" * 100_000, "nested deeper than 256 levels"),
        (JSON, b'{"a":' * 300 + b"1" + b"}" * 300, "nested deeper than 256 levels"),
        (JSON, b'{"__type__": "zzz", "__value__": 1}', "no type is marked 'zzz'"),
        (JSON, b'{"__type__": [], "__value__": 1}', "no type is marked"),
        (JSON, b'{"__type__": "datetime", "__value__": 1}', "not json: TypeError"),
        (JSON, b'{"__type__": "date", "__value__": "soon"}', "not json: ValueError"),
        (JSON, b'{"__type__": "uuid", "__value__": {"no": 1}}', "not json: TypeError"),
        (JSON, b'{"__type__": "base64", "__value__": "a"}', "not json: Error"),
        (MSGPACK, b"", "not msgpack"),
        (MSGPACK, b"\x91" * 100_000 + b"\x01", "nested deeper than 256 levels"),
        (MSGPACK, b"\xc1", "not msgpack"),
        (YAML, b"[" * 2000, "nested deeper than 256 levels"),
        (YAML, b"!!python/object/apply:os.system ['true']", "not yaml"),
        (YAML, b"2031-99-99", "not yaml: ValueError"),
        (YAML, b"- " * 300 + b"1", "nested deeper than 256 levels"),
        (PICKLE, b"cno_such_module\nname\n.", "not pickle: ModuleNotFoundError"),
        (PICKLE, b"", "not pickle: EOFError"),
        ("text/plain", b"a", "no serializer for content type 'text/plain'"),
        ("", b"a", "no serializer for content type ''"),
    ],
)
def test_what_cannot_be_decoded_is_an_error_that_shows_no_data(
    content_type: str, data: bytes, reason: str
) -> None:
    with pytest.raises(MessageError, match=reason):
        loads(data, content_type, ALL)


def test_only_accepted_content_is_decoded() -> None:
    data = pickle.dumps({"harmless": True})

    with pytest.raises(
        MessageError, match=r"^pickle is refused: accept_content allows json, yaml$"
    ):
        loads(data, PICKLE, content_types(["json", "yaml"]))
    with pytest.raises(MessageError, match="accept_content allows nothing"):
        loads(b"1", JSON, frozenset())


def test_accept_content_takes_names_and_full_types() -> None:
    assert content_types(["json", "application/x-python-serialize"]) == {JSON, PICKLE}
    with pytest.raises(MessageError, match="no serializer named 'jsn'; known: json"):
        content_types(["jsn"])


def test_a_value_within_the_depth_is_taken() -> None:
    value = deep(MAX_DEPTH)

    assert loads(dumps(value, "json").data, JSON, ALL) == value
    with pytest.raises(MessageError, match="nested deeper"):
        loads(dumps(deep(MAX_DEPTH + 1), "json").data, JSON, ALL)


def test_an_alias_that_doubles_with_each_line_costs_nothing() -> None:
    lines = ["a0: &a0 [1, 2]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 100)]

    value = loads("\n".join(lines).encode(), YAML, ALL)

    assert value["a1"] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("kind", "content_type", "by_hand"),
    [
        ("gzip", "application/x-gzip", zlib.compress),
        ("zlib", "application/x-gzip", zlib.compress),
        ("bzip2", "application/x-bz2", bz2.compress),
        ("lzma", "application/x-lzma", lzma.compress),
        ("xz", "application/x-lzma", lzma.compress),
    ],
)
def test_compressed_data_comes_back_within_its_limit(
    kind: str, content_type: str, by_hand: Any
) -> None:
    data = b"y" * 100_000

    packed, named = compress(data, kind)

    assert (packed, named) == (by_hand(data), content_type)
    assert decompress(packed, named) == data
    assert decompress(packed, kind, limit=100_000) == data
    with pytest.raises(MessageError, match="grows beyond 99999 bytes"):
        decompress(packed, kind, limit=99_999)
    with pytest.raises(MessageError, match=r"it ends early|Error"):
        decompress(packed[:-10], kind)
    with pytest.raises(MessageError, match=f"not '{kind}': "):
        decompress(b"rubbish", kind)


def test_an_unknown_compression_is_an_error() -> None:
    with pytest.raises(MessageError, match="no compression named 'rar'; known: gzip"):
        decompress(b"", "rar")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.datetimes() | st.datetimes(timezones=st.just(UTC)) | st.dates() | st.times()
    | st.binary() | st.uuids() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON_VALUES)
def test_json_brings_back_what_it_was_given(value: Any) -> None:
    assert loads(dumps(value, "json").data, JSON, SAFE) == value


@given(JSON_VALUES.filter(lambda value: "__type__" not in repr(value)))
def test_json_is_what_kombu_reads_and_writes(value: Any) -> None:
    data = dumps(value, "json").data

    assert data.decode() == kombu_json.dumps(value)  # type: ignore[no-untyped-call] # kombu has no types
    assert kombu_json.loads(data) == value  # type: ignore[no-untyped-call]


@given(
    st.binary() | st.binary().map(lambda b: b'{"__type__": ' + b),
    st.sampled_from(sorted(SAFE)),
)
def test_any_bytes_give_a_value_or_a_message_error(
    data: bytes, content_type: str
) -> None:
    with contextlib.suppress(MessageError):
        loads(data, content_type, SAFE)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_what_python_writes(value: Any) -> None:
    assert json_text(value) == json.dumps(value)


def test_a_circle_has_no_json() -> None:
    circle: list[object] = []
    circle += [{"in": circle}, circle]

    with pytest.raises(ValueError, match="Circular reference"):
        json_text(circle)


def test_what_has_no_json_is_named() -> None:
    with pytest.raises(MessageError, match="object"):
        json_text([object()])
