"""Any bytes may lie in a queue: the worker lives, and what lies behind them runs."""

import base64
import bz2
import json
import logging
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatd.brokers.items import Outgoing
from beatd.brokers.redis import RedisBroker
from beatd.routing import Route
from tests.servers import Server
from tests.worker.bench import Bench

SECRET = "s3cret argument"

LEVELS = 100_000


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Callable[[], Bench]:
    """Make a worker; at each call another one, before an empty broker."""
    if request.param == "memory":
        return lambda: prepared(Bench())
    server: Server = request.getfixturevalue("server")

    def on_redis() -> Bench:
        with server.client() as client:
            client.flushall()
        return prepared(Bench(broker=RedisBroker(server.url(), namespace="test")))

    return on_redis


def prepared(bench: Bench) -> Bench:
    @bench.app.task(name="proj.echo")
    def echo(*args: Any, **kwargs: Any) -> str:
        return "ran"

    return bench


class Log(logging.Handler):
    """What was logged while the block ran."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def __enter__(self) -> "Log":
        logger = logging.getLogger("beatd")
        self._level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("beatd")
        logger.setLevel(self._level)
        logger.removeHandler(self)


def valid() -> dict[str, Any]:
    """Return a message as a Celery client sends it."""
    body = json.dumps([[SECRET], {"key": SECRET}, {}])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": "proj.echo",
            "id": "4ee7bd83-38ea-4a8a-a4c1-1b1a1d4e8a2b",
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": "4ee7bd83-38ea-4a8a-a4c1-1b1a1d4e8a2b",
            "parent_id": None,
            "argsrepr": f"('{SECRET}',)",
            "kwargsrepr": f"{{'key': '{SECRET}'}}",
            "origin": "gen1@host",
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "compression": None,
            "beatd_entry": None,
            "beatd_slot": None,
        },
        "properties": {
            "correlation_id": "4ee7bd83-38ea-4a8a-a4c1-1b1a1d4e8a2b",
            "reply_to": "7d0f7b1e",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "c0ffee",
        },
    }


def judge(bench: Bench, *messages: bytes) -> list[str]:
    """Put these before a good message; give the reasons for which they were set aside.

    The good one runs, nothing is left in the queue, no line of the log is more than one
    line or shows an argument, and there is one line for each that was set aside.
    """
    route = Route("celery", routing_key="celery")
    bench.broker.send([Outgoing(route, message) for message in messages])
    behind = bench.app.send_task("proj.echo")
    with Log() as log:
        bench.run()

    assert bench.results.metas[behind.id].status == "SUCCESS"
    assert bench.left() == 0
    aside = [line for line in log.lines if "set aside" in line]
    reasons = [one.reason for one in bench.broker.dead_letters()]
    bench.broker.close()
    assert len(aside) == len(reasons), log.lines
    for line in log.lines:
        assert SECRET not in line
        assert "could not run" not in line, line
        assert line.isprintable() or line.startswith("proj.echo["), ascii(line)
        assert len(line) < 5000
    for reason in reasons:
        assert reason
        assert reason.isprintable()
    return reasons


# A table ----------------------------------------------------------------------------


def changed(name: str, value: Any, part: str = "headers") -> bytes:
    message = valid()
    (message[part] if part else message)[name] = value
    return json.dumps(message).encode()


def with_body(data: bytes, **headers: Any) -> bytes:
    message = valid()
    message["headers"] |= headers
    message["body"] = base64.b64encode(data).decode()
    return json.dumps(message).encode()


WRONG: list[list[int]] = [[]]
"""What no field may be."""

TYPED = [name for name in valid()["headers"] if name != "lang"]
GOOD = json.dumps(valid()).encode()
BODY = base64.b64decode(valid()["body"])

BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not a message: not JSON (Expecting value at 0)"),
    "garbage": (b"\xff\xfe garbage", "not a message: not UTF-8"),
    "garbage in a name": (GOOD.replace(b"lang", b"l\xffng"), "not UTF-8"),
    "a NUL byte": (b"\0" + GOOD, "not a message: not JSON"),
    "half of it": (GOOD[: len(GOOD) // 2], "not a message: not JSON"),
    "all but its end": (GOOD[:-1], "not a message: not JSON"),
    "no object": (b"[]", "message: expected object, got array"),
    "no body": (b'{"properties": {}}', "message: object missing required field body"),
    "no headers": (changed("headers", None, part=""), "no task"),
    **{
        f"{name} of a wrong type": (changed(name, WRONG), f"message.headers.{name}")
        for name in TYPED
    },
    **{
        f"{name} of a wrong type": (changed(name, WRONG, part="properties"), name)
        for name in ("correlation_id", "reply_to", "delivery_info", "priority")
    },
    **{
        f"{name} of {value}": (changed(name, value), f"headers.{name}: expected str")
        for name in ("eta", "expires")
        for value in (-1, 1e308, float("nan"), float("inf"))
    },
    **{
        f"{name} {text}": (changed(name, text), f"{name}: ")
        for name in ("eta", "expires")
        for text in ("-1", "NaN", "1e999", "0001-01-01T00:00:00+23:59")
    },
    "negative retries": (changed("retries", -1), "retries: expected a whole"),
    "huge retries": (changed("retries", 10**30), "retries: "),
    "NaN for a time limit": (changed("timelimit", [float("nan"), None]), "timelimit"),
    "a NUL in a name": (changed("task", "proj.\0"), "cannot be shown: 'proj.\\x00'"),
    "a line in an id": (changed("id", "1\nERROR 2"), "shown: '1\\nERROR 2'"),
    "half a character": (changed("shadow", "\ud800"), "headers.shadow: characters"),
    "half of one in an entry": (
        changed("beatd_entry", "\udfff"),
        "beatd_entry: characters",
    ),
    "half of one in a name": (changed("\ud800", 1), "names with characters"),
    "a name of a million": (changed("task", "x" * 10**6), "task: longer than 1000"),
    "an id of a million": (changed("id", "x" * 10**6), "id: longer than 1000"),
    "deep": (b"[" * LEVELS, "nested too deeply"),
    "deep headers": (
        GOOD.replace(b'"lang": "py"', b'"lang": ' + b"[" * LEVELS + b"]" * LEVELS),
        "nested",
    ),
    "a deep body": (with_body(b"[" * LEVELS + b"]" * LEVELS), "nested deeper"),
    "a body of a number": (with_body(b"7"), "body: expected [args, kwargs, embed]"),
    "a body that is cut": (with_body(BODY[:-3]), "not JSON"),
    "a body not in base64": (changed("body", "=", part=""), "not"),
    "args of a wrong type": (with_body(b"[7, {}, {}]"), "args: expected a list"),
    "kwargs of a wrong type": (with_body(b"[[], [], {}]"), "kwargs: expected"),
    "embed of a wrong type": (with_body(b"[[], {}, 7]"), "embed: expected"),
    "a chain of numbers": (with_body(b'[[], {}, {"chain": [7]}]'), "embed.chain"),
    "not compressed": (with_body(BODY, compression="gzip"), "not 'gzip': error"),
    "half compressed": (
        with_body(zlib.compress(BODY)[:-6], compression="gzip"),
        "it ends early",
    ),
    "compressed by nobody": (with_body(BODY, compression="rot13"), "no compression"),
    "a refused serializer": (
        changed("content-type", "application/x-python-serialize", part=""),
        "pickle is refused: accept_content allows json",
    ),
    "an unknown serializer": (
        changed("content-type", "text/x-\n", part=""),
        "no serializer for content type 'text/x-\\n'",
    ),
    "an unknown task": (changed("task", "proj.nobody"), "proj.nobody"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_has_its_reason(bench: Callable[[], Bench], name: str) -> None:
    raw, expected = BAD[name]

    [reason] = judge(bench(), raw)

    assert expected in reason


def test_headers_that_are_only_strange_do_no_harm(bench: Callable[[], Bench]) -> None:
    strange = [
        changed("unknown", ["\ud800", float("nan"), 10**400]),
        changed("shadow", "evil\n\x1b[2J" + "x" * 10**6),
        changed("stamps", {"a": WRONG}),
        changed("timelimit", [1e9, 1e9]),
        changed("eta", "9999-12-31T23:59:59+00:00"),
        changed("expires", "9999-12-31T23:59:59"),
        changed("routing_key", "\0" * 1000, part="properties"),
        changed("priority", 10**18, part="properties"),
    ]

    assert judge(bench(), *strange) == []


# Anything ---------------------------------------------------------------------------

TEXTS = ["", "\0", "a\0b", "\ud800", "\x1b[2J\n", "ü", "x" * 2000, "0", "-1", "NaN"]
MOMENTS = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "2026-02-30T00:00:00",
    "2026-01-01T00:00:00",
    "2999-01-01T00:00:00+00:00",
    "20260101T000000Z",
    "-2026-01-01T00:00:00",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1e308, 1e9, float("nan"), float("inf")]

leaves = st.sampled_from([None, True, False, *TEXTS, *MOMENTS, *NUMBERS])
names = st.sampled_from(
    ["task", "args", "eta", "expires", "timelimit", "chord", *TEXTS]
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=4,
)
signatures = st.fixed_dictionaries(
    {"task": leaves | st.just("proj.echo"), "args": values, "kwargs": values},
    optional={"options": values, "immutable": leaves, "subtask_type": leaves},
)
embeds = st.dictionaries(
    st.sampled_from(["callbacks", "errbacks", "chain", "chord"]),
    values | signatures | st.lists(signatures, max_size=2),
    max_size=2,
)
bodies = (
    values
    | st.tuples(values, values, values)
    | st.tuples(st.just([SECRET]), st.just({}), embeds)
)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "bz2": bz2.compress,
}


def packed(body: Any, how: str) -> dict[str, Any]:
    """Return the parts of a message that carry `body`."""
    data = json.dumps(body).encode()
    if how == "one":  # protocol 1 has everything in the body
        message = {"task": "proj.echo", "id": "id-1", "args": [SECRET], "kwargs": {}}
        parts = body if isinstance(body, dict) else {"eta": body}
        inner = json.dumps(message | parts)
        return {"body": inner, "headers": {}, "properties": {}}
    compress = COMPRESS.get(how, bytes)
    return {"body": base64.b64encode(compress(data)).decode()}


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Draw a message that is almost right, or not at all."""
    message = valid()
    if draw(st.booleans()):
        message |= packed(
            draw(bodies), draw(st.sampled_from(["", "zlib", "bz2", "one"]))
        )
    for _ in range(draw(st.integers(0, 3))):
        part: dict[str, Any] = message
        place = draw(st.sampled_from(["", "headers", "headers", "properties", "info"]))
        if place == "info":
            part = message.get("properties") or {}
            place = "delivery_info"
        if isinstance(part, dict) and isinstance(part.get(place), dict):
            part = part[place]
        if isinstance(part, dict):
            name = draw(st.sampled_from([*part, "unknown"]))
            part[name] = draw(values)
    if draw(st.booleans()) and isinstance(message.get("headers"), dict):
        kinds = ["gzip", "bzip2", "lzma", "none", None]
        message["headers"]["compression"] = draw(st.sampled_from(kinds))
    raw = json.dumps(message).encode()
    match draw(st.integers(0, 9)):
        case 0:
            return raw[: draw(st.integers(0, len(raw)))]
        case 1:
            at = draw(st.integers(0, len(raw) - 1))
            return raw[:at] + draw(st.binary(min_size=1, max_size=3)) + raw[at + 1 :]
        case 2:
            return draw(st.binary(max_size=50))
    return raw


@settings(
    max_examples=150,
    database=None,
    suppress_health_check=[*HealthCheck],
    report_multiple_bugs=False,
)
@given(batch=st.lists(messages(), min_size=1, max_size=3))
def test_no_message_ends_the_worker_or_holds_up_the_queue(
    bench: Callable[[], Bench], batch: list[bytes]
) -> None:
    judge(bench(), *batch)
