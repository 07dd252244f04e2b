import base64
import contextlib
import json
import re
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import example, given
from hypothesis import strategies as st

from beatd.errors import MessageError
from beatd.instant import HOUR, SECOND
from beatd.message import (
    Call,
    Limits,
    MessageFormat,
    Template,
    named_in,
    read_body,
    read_envelope,
    retried,
    retry_of,
    template,
)
from beatd.message.codec import compress, content_types
from beatd.message.represent import bounded_repr
from beatd.message.shape import form_of
from beatd.routing import Route, Router
from tests.wire.vectors import EVERYTHING, NOON

QUEUE = Route("celery", "", "celery")
FORMAT = MessageFormat(origin="gen7@host", reply_to="answers")
BERLIN = ZoneInfo("Europe/Berlin")
SIGNATURE = {
    "task": "t.next",
    "args": ["own"],
    "kwargs": {"k": 1},
    "options": {"queue": "low"},
    "subtask_type": None,
    "immutable": False,
}


def made(*args: Any, format: MessageFormat = FORMAT, **named: Any) -> Template:
    return template(format, QUEUE, "t.add", *args, **named)


def raw_of(one: Template, **named: Any) -> bytes:
    return one.complete(**{"id": "an-id", "tag": "a-tag", "now": NOON, **named})


def headers_of(raw: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = json.loads(raw)["headers"]
    return headers


def read(raw: bytes, limits: Limits = EVERYTHING) -> Call:
    return read_body(read_envelope(raw, limits), limits)


# -- out


def test_a_slot_s_message_says_which_slot_of_which_entry_it_is() -> None:
    one = made([2, 3], entry='nightly "report"', zone=BERLIN)

    raw = raw_of(one, slot=NOON)

    assert list(headers_of(raw).items())[-3:] == [
        ("beatd_entry", 'nightly "report"'),
        ("beatd_slot", "2026-11-23T13:00:00+01:00"),
        ("celery_beat_task", True),
    ]
    envelope = read_envelope(raw)
    assert envelope.beatd_entry == 'nightly "report"'
    assert envelope.beatd_slot == "2026-11-23T13:00:00+01:00"


def test_a_call_carries_nothing_of_a_schedule() -> None:
    headers = headers_of(raw_of(made([2, 3])))

    assert not headers.keys() & {"beatd_entry", "beatd_slot", "celery_beat_task"}


def test_what_differs_from_message_to_message_is_filled_in() -> None:
    one = made([2, 3], entry="report")

    first = json.loads(raw_of(one, id="1", tag="x", slot=NOON))
    second = json.loads(raw_of(one, id="2", tag="y", slot=NOON + SECOND))

    assert first["headers"]["id"] == first["headers"]["root_id"] == "1"
    assert first["properties"]["correlation_id"] == "1"
    assert second["headers"]["id"] == second["headers"]["root_id"] == "2"
    assert first["properties"]["delivery_tag"] == "x"
    assert second["headers"]["beatd_slot"] == "2026-11-23T12:00:01+00:00"


def test_ids_from_options_stay_the_same() -> None:
    one = made(None, None, {"task_id": "mine", "root_id": "root", "parent_id": "p"})

    envelope = read_envelope(raw_of(one, id="another"))

    assert one.task_id == "mine"
    assert (envelope.id, envelope.correlation_id) == ("mine", "mine")
    assert (envelope.root_id, envelope.parent_id) == ("root", "p")


def test_countdown_and_expires_count_from_the_moment_of_sending() -> None:
    format = MessageFormat(zone=BERLIN)
    one = made(None, None, {"countdown": 90, "expires": 0.5}, format=format)

    headers = headers_of(raw_of(one))
    later = headers_of(raw_of(one, now=NOON + HOUR))

    assert headers["eta"] == "2026-11-23T13:01:30+01:00"
    assert headers["expires"] == "2026-11-23T13:00:00.500000+01:00"
    assert later["eta"] == "2026-11-23T14:01:30+01:00"
    assert json.loads(raw_of(one))["properties"]["expiration"] == "500"


def test_an_expiry_at_the_next_slot_goes_before_the_options() -> None:
    for options in ({}, {"expires": 5}):
        raw = raw_of(made(None, None, options), expires=NOON + HOUR)

        assert headers_of(raw)["expires"] == "2026-11-23T13:00:00+00:00"
        assert json.loads(raw)["properties"]["expiration"] == "3600000"
        assert read_envelope(raw).expires == NOON + HOUR


def test_an_expiry_that_has_passed_leaves_no_time() -> None:
    past = datetime(2026, 11, 23, 11, tzinfo=UTC)

    raw = raw_of(made(None, None, {"expires": past}))

    assert json.loads(raw)["properties"]["expiration"] == "0"


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("protocol", [1, 2])
def test_a_task_that_asks_for_it_is_given_its_slot(
    serializer: str, protocol: int
) -> None:
    format = MessageFormat(serializer=serializer, protocol=protocol)
    one = made(
        [1],
        {"unit": "mm"},
        format=format,
        entry="report",
        zone=BERLIN,
        slot_argument="slot",
    )

    call = read(raw_of(one, slot=NOON))

    assert call.args == [1]
    assert call.kwargs == {"unit": "mm", "slot": "2026-11-23T13:00:00+01:00"}
    if protocol == 2:
        assert call.envelope.kwargsrepr == (
            "{'unit': 'mm', 'slot': '2026-11-23T13:00:00+01:00'}"
        )


def test_what_hides_arguments_hides_the_slot_as_well() -> None:
    one = made(None, {"a": 1}, {"kwargsrepr": "{...}"}, slot_argument="slot")

    assert read_envelope(raw_of(one, slot=NOON)).kwargsrepr == "{...}"


def test_protocol_1_has_times_and_id_in_its_body() -> None:
    format = MessageFormat(protocol=1)
    options = {"countdown": 90, "expires": 120, "headers": {"x": 1}}

    raw = raw_of(made([2], None, options, format=format, entry="report"), slot=NOON)

    call = read(raw)
    assert list(headers_of(raw)) == [
        "x", "beatd_entry", "beatd_slot", "celery_beat_task",
    ]  # fmt: skip
    assert call.envelope.id == "an-id"
    assert call.envelope.eta == NOON + 90 * SECOND
    assert call.envelope.expires == NOON + 120 * SECOND
    assert call.envelope.beatd_entry == "report"


def test_protocol_1_without_headers_of_its_caller_is_well_formed() -> None:
    format = MessageFormat(protocol=1, compression="gzip")

    with_entry = raw_of(made([2], format=format, entry="report"), slot=NOON)
    without = raw_of(made([2], format=format))

    assert read(with_entry).args == read(without).args == [2]
    assert headers_of(without) == {"compression": "application/x-gzip"}


def test_percent_signs_are_only_text() -> None:
    options = {"headers": {"100%s": "%d%%"}, "shadow": "%s", "app_id": "%(x)s"}

    raw = raw_of(made(["%s"], {"%s": "%"}, options, entry="%s %d"), slot=NOON)

    call = read(raw)
    assert (call.args, call.kwargs) == (["%s"], {"%s": "%"})
    assert call.envelope.custom_headers["100%s"] == "%d%%"
    assert call.envelope.shadow == "%s"
    assert call.envelope.beatd_entry == "%s %d"
    assert json.loads(raw)["properties"]["app_id"] == "%(x)s"


def test_signatures_are_sent_with_all_their_parts() -> None:
    short = {"task": "t.next", "args": ["own"], "options": None}
    options = {"link": short, "chain": [short], "chord": short}

    call = read(raw_of(made(options=options)))

    full = {**SIGNATURE, "kwargs": {}, "options": {}}
    assert call.callbacks == call.chain == [full]
    assert call.chord == full


def test_equal_options_are_not_mistaken_for_each_other() -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    same = noon.astimezone(timezone(timedelta(hours=3)))

    etas = [
        headers_of(raw_of(made(None, None, {"eta": e})))["eta"] for e in (noon, same)
    ]

    assert etas == ["2030-01-01T12:00:00+00:00", "2030-01-01T15:00:00+03:00"]
    made(None, None, {"retries": 1})
    with pytest.raises(MessageError, match="expected an integer, got True"):
        made(None, None, {"retries": True})


def test_the_caller_s_headers_do_not_touch_the_scheduler_s_own() -> None:
    options = {"headers": {"beatd_slot": "x", "compression": "rar", "mine": 1}}

    raw = raw_of(made(None, None, options, entry="report"), slot=NOON)

    assert raw.count(b"beatd_slot") == 1
    assert b"rar" not in raw
    assert read_envelope(raw).custom_headers["mine"] == 1


def test_templates_of_one_kind_share_what_they_have_in_common() -> None:
    made([0], entry="warm")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        templates = [made([n], entry="report") for n in range(1000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(templates) == 1000
    assert (after - before) / 1000 < 400


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("countdown", "5", "a number of seconds, got '5'"),
        ("countdown", True, "a number of seconds, got True"),
        ("countdown", float("nan"), "a number of seconds, got nan"),
        ("countdown", float("inf"), "a number of seconds, got inf"),
        ("countdown", 1e300, "a number of seconds, got 1e+300"),
        ("eta", 5, "a datetime or ISO 8601 text, got 5"),
        ("eta", "soon", "a datetime or ISO 8601 text, got 'soon'"),
        ("expires", "next week", "seconds, a datetime or ISO 8601 text"),
        ("expires", [1], "seconds, a datetime or ISO 8601 text"),
        ("task_id", 5, "text, got 5"),
        ("retries", 1.5, "an integer, got 1.5"),
        ("priority", "high", "an integer, got 'high'"),
        ("time_limit", -1, "seconds, zero or more, got -1"),
        ("soft_time_limit", "10", "seconds, zero or more, got '10'"),
        ("ignore_result", 1, "True or False, got 1"),
        ("headers", ["a"], "a dict with text as names, got ['a']"),
        ("headers", {1: 2}, "a dict with text as names, got {1: 2}"),
        ("link", "t.next", "a signature or a list of them, got 't.next'"),
        ("link_error", [{"task": 5}], "a signature or a list of them"),
        ("chain", SIGNATURE, "a list of signatures"),
        ("chord", [SIGNATURE], "a signature, got"),
        ("stamped_headers", "abc", "a list of names, got 'abc'"),
        ("delivery_mode", 3, "1, 2, 'transient' or 'persistent', got 3"),
        ("serializer", 1, "text, got 1"),
    ],
)
def test_an_option_of_the_wrong_type_is_named(
    name: str, value: Any, expected: str
) -> None:
    reason = re.escape(f"options[{name!r}]: expected {expected}")

    with pytest.raises(MessageError, match=f"^{reason}"):
        made(None, None, {name: value})


class Broken:
    def __json__(self) -> Any:
        raise RuntimeError("no form today")


@pytest.mark.parametrize(
    ("args", "kwargs", "options", "reason"),
    [
        ("23", None, {}, "args: expected a list or tuple, got str"),
        ([], [1], {}, "kwargs: expected a dict, got list"),
        ([], {1: 2}, {}, "kwargs: expected text as names, got int"),
        ([1, {2}], None, {}, "args[1]: json has no form for type set"),
        ([{"a": [1, {2}]}], None, {}, "args[0]['a'][1]: json has no form for type"),
        ([], {"when": timedelta(1)}, {}, "kwargs['when']: json has no form for type t"),
        ([Broken()], None, {}, "args[0]: json: no form today"),
        ([{(1, 2): 3}], None, {}, "args[0]: json: keys must be str"),
        ([{2}], None, {"serializer": "msgpack"}, "args[0]: msgpack has no form for"),
        ([{2}], None, {"compression": "gzip"}, "args[0]: json has no form for type s"),
        ([], None, {"serializer": "xml"}, "no serializer named 'xml'; known: json"),
        ([], None, {"compression": "rar"}, "no compression named 'rar'"),
        ([], None, {"headers": {"x": {1}}}, "options['headers']['x']: json has no fo"),
        ([], None, {"app_id": {1}}, "options['app_id']: json has no form for type s"),
        ([], None, {"link": {"task": "t", "args": [{1}]}}, "options['link']: json has"),
        ([], None, {"stamped_headers": ["x"]}, "options['stamped_headers']: no option"),
        ([], None, {5: 1}, "options: expected text as names, got int"),
    ],
)
def test_what_cannot_be_sent_is_named(
    args: Any, kwargs: Any, options: Any, reason: str
) -> None:
    with pytest.raises(MessageError, match=f"^{re.escape(reason)}"):
        made(args, kwargs, options)


def test_a_bad_argument_is_found_when_the_body_is_built_for_each_slot() -> None:
    with pytest.raises(MessageError, match=r"^args\[0\]: json has no form"):
        made([{1}], slot_argument="slot")


def test_a_body_that_is_no_text_needs_base64() -> None:
    format = MessageFormat(body_encoding="utf-8", serializer="msgpack")

    with pytest.raises(MessageError, match="body_encoding utf-8: the body is not text"):
        made([b"\xff"], format=format)


# -- in

GOOD: dict[str, Any] = json.loads(
    raw_of(made([2], {"k": 1}, {"expires": 60, "time_limit": 9}))
)


def changed(path: str, value: Any) -> bytes:
    """Return the good message with one part replaced, or left out (...)."""
    message = json.loads(json.dumps(GOOD))
    inner = message
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[name]
    inner[last] = value
    if value is ...:
        del inner[last]
    return json.dumps(message).encode()


def encoded(body: Any) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a message: not JSON"),
        (b"\xff\xfe", "not a message: not UTF-8"),
        (b"PING", "not a message: not JSON (Expecting value at 0)"),
        (b"[]", "message: expected object, got array"),
        (b"3", "message: expected object, got int"),
        (b"{}", "message: object missing required field body"),
        (b"[" * 100_000, "not a message: "),
        (b"1" * 5000, "not a message: not JSON"),
        (changed("body", 5), "message.body: expected str, got int"),
        (changed("body", "a"), "body: not base64"),
        (changed("body", "\u00e9"), "body: not base64"),
        (changed("body", encoded(5)), "body: expected [args, kwargs, embed]"),
        (changed("body", encoded([1, 2])), "body: expected [args, kwargs, embed]"),
        (changed("body", encoded([1, {}, None])), "args: expected a list, got int"),
        (changed("body", encoded([[], 1, None])), "kwargs: expected an object"),
        (changed("body", encoded([[], {}, 1])), "embed: expected an object, got int"),
        (
            changed("body", encoded([[], {}, {"callbacks": [{}]}])),
            "embed.callbacks: expected a list of signatures",
        ),
        (
            changed("body", encoded([[], {}, {"chain": {"task": "t"}}])),
            "embed.chain: expected a list of signatures",
        ),
        (
            changed("body", encoded([[], {}, {"chord": {"task": 5}}])),
            "embed.chord: expected a signature",
        ),
        (
            changed("body", base64.b64encode(b"[" * 100_000).decode()),
            "nested deeper than 256 levels",
        ),
        (changed("content-type", ...), "no serializer for content type ''"),
        (changed("content-type", "text/x"), "no serializer for content type 'text/x'"),
        (changed("properties", ...), "missing required field properties"),
        (changed("properties", None), "message.properties: expected object, got nu"),
        (changed("properties.priority", "5"), "message.properties.priority: expected"),
        (changed("properties.delivery_info", 5), "message.properties.delivery_info: e"),
        (changed("headers", 5), "message.headers: expected object or null, got int"),
        (changed("headers", {}), "no task: neither in the headers nor in the body"),
        (changed("headers.task", 5), "message.headers.task: expected str or null, got"),
        (changed("headers.task", ""), "no task"),
        (changed("headers.task", "t" * 1_000_000), "task: longer than 1000 characters"),
        (changed("headers.task", "a\0b"), "task: characters that cannot be shown"),
        (changed("headers.task", "a\nb"), "task: characters that cannot be shown"),
        (
            changed("headers.id", "\ud800"),
            "id: characters that cannot be shown: '\\ud8",
        ),
        (changed("headers.id", None), "no id"),
        (changed("headers.root_id", "\ud800"), "root_id: characters that cannot be"),
        (changed("headers.group", 5), "message.headers.group: expected str or null"),
        (changed("headers.retries", -1), "retries: expected a whole number, 0 or more"),
        (changed("headers.retries", 10**30), "retries: expected at most 2147483647"),
        (changed("headers.retries", 1.5), "message.headers.retries: expected int or"),
        (changed("headers.eta", 1e300), "message.headers.eta: expected str or null"),
        (changed("headers.eta", float("nan")), "message.headers.eta: expected str or"),
        (changed("headers.eta", "soon"), "eta: not ISO 8601: 'soon'"),
        (changed("headers.expires", "+10000-01-01"), "expires: not ISO 8601"),
        (changed("headers.timelimit", [1]), "message.headers.timelimit: expected arra"),
        (
            changed("headers.timelimit", [-1, None]),
            "timelimit: expected a number of seconds, 0 or more",
        ),
        (
            changed("headers.timelimit", [None, 1e300]),
            "timelimit: expected at most 3155760000 seconds",
        ),
        (
            changed("headers.timelimit", [None, float("nan")]),
            "timelimit: expected a number of seconds, 0 or more, got nan",
        ),
        (changed("headers.stamps", 5), "message.headers.stamps: expected object"),
        (changed("headers.compression", "rar"), "no compression named 'rar'"),
        (changed("headers.compression", "gzip"), "not 'gzip': error"),
    ],
    ids=lambda value: None if isinstance(value, str) else "raw",
)
def test_a_malformed_message_is_refused_with_a_short_reason(
    raw: bytes, reason: str
) -> None:
    with pytest.raises(MessageError, match=re.escape(reason)) as refused:
        read(raw)

    assert len(str(refused.value)) < 200
    assert str(refused.value).isascii()


def test_headers_that_lie_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]

    with pytest.raises(MessageError, match="nested deeper than 256 levels"):
        read_envelope(changed("headers.x-deep", deep))


def test_a_body_may_not_grow_beyond_its_limit() -> None:
    packed, _ = compress(b" " * 1_000_000, "gzip")
    message = json.loads(changed("body", base64.b64encode(packed).decode()))
    message["headers"]["compression"] = "gzip"

    with pytest.raises(MessageError, match="grows beyond 1000 bytes"):
        read(json.dumps(message).encode(), Limits(size=1000))


def test_content_that_is_not_accepted_is_not_decoded() -> None:
    raw = raw_of(made([1], None, {"serializer": "pickle"}))

    envelope = read_envelope(raw)

    assert envelope.task == "t.add"
    with pytest.raises(MessageError, match="pickle is refused: accept_content allows"):
        read_body(envelope)


def test_the_least_that_a_worker_needs_is_enough() -> None:
    raw = json.dumps(
        {
            "body": encoded([[2], {}, None]),
            "content-type": "application/json",
            "headers": {"task": "t.add", "id": "1"},
            "properties": {"body_encoding": "base64", "delivery_tag": "x"},
        }
    ).encode()

    call = read(raw)

    assert (call.envelope.task, call.args, call.callbacks) == ("t.add", [2], None)


def test_headers_of_a_hybrid_go_before_its_body() -> None:
    body = {"task": "old", "id": "0", "args": [1], "kwargs": {}, "retries": 3,
            "eta": "2031-01-01T00:00:00", "taskset": "g"}  # fmt: skip
    message = json.loads(changed("headers", {"task": "new", "id": "1", "mine": 5}))
    message["body"] = encoded(body)

    call = read(json.dumps(message).encode())

    assert (call.envelope.task, call.envelope.id) == ("new", "1")
    assert (call.envelope.retries, call.envelope.group) == (3, "g")
    assert call.envelope.eta is not None
    assert call.envelope.custom_headers == {"mine": 5}
    assert call.args == [1]


def test_headers_may_hold_what_only_python_s_json_takes() -> None:
    raw = changed("headers.x-ratio", float("inf"))

    assert read_envelope(raw).custom_headers["x-ratio"] == float("inf")


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("2026-11-23T12:00:00", 0),  # naive is UTC, in whatever zone it is read
        ("2026-11-23T12:00:00Z", 0),
        ("2026-11-23T12:00:00.000999+00:00", 0),
        ("2026-11-23T12:00:00-01:00", 1),
        ("20261123T130000Z", 1),
        ("2026-11-23", -12),
    ],
)
def test_times_are_read_as_celery_s_worker_does(text: str, hours: int) -> None:
    assert read_envelope(changed("headers.eta", text)).eta == NOON + hours * HOUR


@given(st.binary())
@example(b'{"body": "", "properties": {}, "headers": {"task": "t", "id": "i"}}')
def test_any_bytes_give_a_message_error_or_an_envelope(raw: bytes) -> None:
    with contextlib.suppress(MessageError):
        read(raw)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
PATHS = [
    *GOOD,
    *(f"headers.{name}" for name in GOOD["headers"]),
    "headers.compression",
    "headers.beatd_slot",
    *(f"properties.{name}" for name in GOOD["properties"]),
]


@given(st.sampled_from(PATHS), ANYTHING)
def test_any_value_in_any_place_gives_a_message_error_or_a_call(
    path: str, value: Any
) -> None:
    with contextlib.suppress(MessageError):
        read(changed(path, value))


@given(ANYTHING)
def test_any_body_gives_a_message_error_or_a_call(body: Any) -> None:
    for shaped in (body, [body, body, body], {"task": "t", "id": "i", "args": body}):
        with contextlib.suppress(MessageError):
            read(changed("body", encoded(shaped)))
        with contextlib.suppress(MessageError):
            message = json.loads(changed("body", encoded(shaped)))
            message["headers"] = {}
            read(json.dumps(message).encode())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.datetimes() | st.binary() | st.uuids() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(VALUES), st.dictionaries(st.text(), VALUES), st.sampled_from([1, 2]))
def test_what_is_sent_is_what_is_read(
    args: list[Any], kwargs: dict[str, Any], protocol: int
) -> None:
    raw = raw_of(made(args, kwargs, format=MessageFormat(protocol=protocol)))

    call = read(raw)

    assert (call.args, call.kwargs) == (args, kwargs)


# -- from what came in to what goes out


def again(sending: Any) -> Call:
    route = Router().route(sending.task, sending.options)
    one = template(
        FORMAT, route, sending.task, sending.args, sending.kwargs, sending.options
    )
    return read(raw_of(one, id="drawn"))


def test_a_retry_keeps_all_but_its_count_and_its_parent() -> None:
    options = {
        "task_id": "mine", "root_id": "root", "parent_id": "p", "group_id": "g",
        "group_index": 2, "time_limit": 9, "soft_time_limit": 5, "shadow": "s",
        "headers": {"x": 1}, "link": SIGNATURE, "chain": [SIGNATURE],
        "chord": SIGNATURE,
        "expires": "2031-01-01T00:00:00+01:00", "ignore_result": True,
        "stamped_headers": ["tenant"], "tenant": 5, "retries": 1,
    }  # fmt: skip
    route = Route("low", "", "low", priority=4)
    one = template(FORMAT, route, "t", [1], {"k": 2}, options, entry="e", zone=BERLIN)
    first = read(raw_of(one, slot=NOON))

    second = again(retry_of(first, eta=NOON + HOUR))

    after, before = second.envelope, first.envelope
    assert (after.retries, after.parent_id, after.eta) == (2, "mine", NOON + HOUR)
    assert (after.routing_key, after.priority) == ("low", 4)
    for name in (
        "task", "id", "root_id", "group", "group_index", "time_limit", "shadow",
        "soft_time_limit", "custom_headers", "expires_text", "ignore_result", "stamps",
        "beatd_entry", "beatd_slot", "origin", "reply_to",
    ):  # fmt: skip
        assert getattr(after, name) == getattr(before, name), name
    assert second[1:] == first[1:]


OLD_BODY = {"task": "t.old", "id": "0", "args": [1], "kwargs": {}, "retries": 3}
OLD = {**GOOD, "headers": {}, "body": encoded(OLD_BODY)}


@pytest.mark.parametrize(
    "raw",
    [raw_of(made([1], {"k": 2})), json.dumps(OLD).encode()],
    ids=["protocol 2", "protocol 1"],
)
def test_a_message_can_be_retried_without_a_look_into_its_body(raw: bytes) -> None:
    first = read(raw)
    second = read(retried(first.envelope, NOON + HOUR))

    after, before = second.envelope, first.envelope
    assert (after.retries, after.parent_id) == (before.retries + 1, before.id)
    assert after.eta == NOON + HOUR
    for name in ("task", "id", "root_id", "routing_key", "priority", "origin", "body"):
        assert getattr(after, name) == getattr(before, name), name
    assert second[1:] == first[1:]
    assert read(retried(after)).envelope.eta is None


def test_a_retry_may_have_other_arguments_and_options() -> None:
    first = read(raw_of(made([1], {"k": 2})))

    sending = retry_of(
        first, args=[5], kwargs={}, options={"queue": "slow", "ignore_result": False}
    )

    second = again(sending)
    assert (second.args, second.kwargs) == ([5], {})
    assert second.envelope.routing_key == "slow"
    assert second.envelope.ignore_result is False
    assert second.envelope.eta is None


def test_a_retry_goes_back_through_the_exchange_it_came_by() -> None:
    route = Route("", "media", "media.video", "topic")
    first = read(raw_of(template(FORMAT, route, "t")))

    options = retry_of(first).options

    assert (options["exchange"], options["routing_key"]) == ("media", "media.video")
    assert "queue" not in options


# -- what logs show


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "size", "shown"),
    [
        ((), 9, "()"),
        ((1,), 99, "(1,)"),
        ({"a": {"b": {"c": {"d": 1}}}}, 99, "{'a': {'b': {'c': {...}}}}"),
        ([[[[]]]], 99, "[[[[...]]]]"),
        (["x" * 20], 10, "['xxxxxxxxx...']"),
        ([1, 2, 3, 4, 5], 5, "[1, 2..., ...]"),
        ({"it's"}, 99, "{'it\\'s'}"),
        (frozenset([1]), 99, "frozenset({1})"),
        (set(), 99, "set()"),
        ([b"ab", b"\xff"], 99, "[b'ab', b'ff']"),
        ([Decimal("1.5"), True, None], 99, "[Decimal('1.5'), True, None]"),
        ([Loud()], 99, "[<Loud: RuntimeError>]"),
        ([10**5000], 99, "[<int: ValueError>]"),
        ((1, 10**5000), 99, "(1, <int: ValueError>)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_are_shown_within_bounds(value: Any, size: int, shown: str) -> None:
    assert bounded_repr(value, size, 3) == shown


def test_what_holds_itself_is_shown_within_bounds() -> None:
    value: list[Any] = [1]
    value.append(value)

    assert bounded_repr(value, 1024, 3) == "[1, [1, [1, [...]]]]"
    assert len(bounded_repr(value, 50, 0)) < 200


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.uuids() | st.decimals() | st.datetimes(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers() | st.tuples(st.text()), inner)
    | st.sets(st.integers()) | st.frozensets(st.text()),
)  # fmt: skip


@given(PLAIN, st.integers(1, 60), st.integers(1, 4))
def test_arguments_are_shown_as_celery_shows_them(
    value: Any, size: int, levels: int
) -> None:
    assert bounded_repr(value, size, levels) == saferepr(value, size, levels)


def test_accepting_all_is_what_the_vectors_need() -> None:
    assert EVERYTHING.accept == content_types(["json", "msgpack", "yaml", "pickle"])


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"headers": {"task": "a.b", "id": "1"}, "body": 5}', ("a.b", "1")),
        (b'{"headers": {"task":"a.b","id":"1"', ("a.b", "1")),
        (rb'{"body": "{\"id\": \"2\"}", "headers": {"id": "1"}}', ("", "1")),
        (b'"id": "1", "id": "2"', ("", "1")),
        (b'"id": ""', ("", "")),
        (b'"id": 5', ("", "")),
        (b'"id": "a\nb"', ("", "")),
        (b'"id": "\xff\xfe"', ("", "\ufffd\ufffd")),
        (b'"id": "' + b"x" * 1001 + b'"', ("", "")),
        (b'"id": "' * 100_000, ("", "")),
        (b"", ("", "")),
    ],
)
def test_a_message_that_cannot_be_read_may_name_its_run(
    raw: bytes, found: tuple[str, str]
) -> None:
    assert named_in(raw) == found


def test_what_one_slots_messages_share_is_put_together_once() -> None:
    entries = [made((n,), entry=f"e{n}", options={"expires": 60}) for n in range(20)]
    form_of.cache_clear()

    for one in entries:
        one.made(id="an-id", now=NOON, slot=NOON, expires=None)

    assert form_of.cache_info().misses == 1
