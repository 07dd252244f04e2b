"""Addresses and options of Redis: what each of them does to the connections."""

import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from beatd import Beatd
from beatd.brokers import connect
from beatd.brokers.base import Broker
from beatd.brokers.redis import RedisBroker
from beatd.brokers.redis.connection import Address
from beatd.errors import BrokerUnavailable, ConfigError
from beatd.instant import SECOND
from tests.brokers.making import outgoing
from tests.servers import PATIENCE, Server, eventually
from tests.tls import make_certificate, tls

LONG = int(PATIENCE) * SECOND


def broker(url: str, **options: Any) -> RedisBroker:
    return RedisBroker(url, namespace="test", options=options)


# Options


@pytest.mark.parametrize(
    ("query", "options", "arguments"),
    [
        ("", {}, {"socket_timeout": 3, "socket_connect_timeout": 3}),
        ("", {"socket_timeout": 5}, {"socket_timeout": 5, "socket_connect_timeout": 3}),
        ("", {"socket_timeout": None}, {"socket_timeout": 3}),
        ("", {"socket_connect_timeout": 0}, {"socket_connect_timeout": 3}),
        ("?socket_timeout=7", {"socket_timeout": 5}, {"socket_timeout": 7}),
        ("?socket_keepalive=False", {}, {"socket_keepalive": False}),
        ("?health_check_interval=9", {}, {"health_check_interval": 9}),
        ("?client_name=me", {}, {"client_name": "me"}),
    ],
)
def test_options_come_from_the_url_or_from_the_settings(
    query: str, options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    address = Address(f"redis://h/1{query}", options, False)

    assert arguments.items() <= address.pool.connection_kwargs.items()
    assert address.db == 1


@pytest.mark.parametrize("url", ["redis://:hush", "redis://hush:hush/0"])
def test_a_port_that_may_be_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Address(url, {}, False)

    assert "the port is not a number" in str(raised.value)
    assert "hush" not in str(raised.value).replace("redis://hush:***", "")


def test_keep_alive_is_on_with_the_options_given(server: Server) -> None:
    options = {socket.TCP_KEEPIDLE: 17}

    assert _kept_alive(server)[0] == 1
    assert _kept_alive(server, socket_keepalive=False)[0] == 0
    assert _kept_alive(server, socket_keepalive_options=options) == (1, 17)


def _kept_alive(server: Server, **options: Any) -> tuple[int, int]:
    connection = Address(server.url(), options, False).connect()
    try:
        return (
            connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        )
    finally:
        connection.disconnect()


def test_every_connection_has_the_client_s_name(server: Server) -> None:
    named = broker(server.url(), client_name="shop")
    named.send([outgoing(b"1")])
    assert named.await_message(["celery"], LONG)

    assert _connections(server, "shop") == 3  # requests, and two that wait
    named.close()


def test_a_pool_has_no_more_connections_than_it_may(server: Server) -> None:
    bounded = broker(server.url(), client_name="bounded", max_connections=2)

    _at_the_same_time(8, lambda: bounded.leader())

    assert _connections(server, "bounded") == 2
    bounded.close()


def test_no_bound_means_any_number(server: Server) -> None:
    unbounded = broker(server.url(), max_connections=0)

    assert unbounded.leader() is None
    unbounded.close()


def test_connections_are_checked_as_often_as_asked(
    server: Server,
) -> None:
    with server.client() as client:
        checked = broker(server.url(), health_check_interval=0.000001)
        client.config_resetstat()
        for _ in range(5):
            checked.leader()
        calls = client.info("commandstats")["cmdstat_ping"]["calls"]

    assert calls >= 5
    checked.close()


@pytest.mark.parametrize(
    ("limit", "connections"), [({"broker_pool_limit": 2}, 2), ({}, 10)]
)
def test_publishers_have_no_more_connections_than_the_pool_limit(
    server: Server, limit: dict[str, int], connections: int
) -> None:
    app = Beatd("shop", broker=server.url(), set_as_current=False)
    app.conf.update(limit, broker_transport_options={"client_name": "publisher"})

    _at_the_same_time(40, lambda: app.send_task("work"))

    assert 0 < _connections(server, "publisher") <= connections
    app.close()


def test_who_gets_no_connection_is_told_after_the_time_to_wait_for_one(
    server: Server,
) -> None:
    bounded = broker(server.url(), max_connections=1, timeout=0.01)
    with bounded._server.answering(), ThreadPoolExecutor() as threads:
        taken = bounded._server.present.pool.get_connection()
        waiting = threads.submit(bounded.leader)
        with pytest.raises(BrokerUnavailable, match="No connection available"):
            waiting.result(PATIENCE)
        bounded._server.present.pool.release(taken)

    assert bounded.leader() is None
    bounded.close()


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("redis://h/mine", {}, "expected the number of a database, got 'mine'"),
        ("redis://h?socket_timeout=soon", {}, "socket_timeout: cannot be 'soon'"),
        ("redis://h", {"max_connections": "many"}, "max_connections: cannot be 'many'"),
        ("redis://h", {"socket_keepalive_options": 1}, "cannot be 1"),
        ("rediss://h?ssl_cert_reqs=maybe", {}, "expected one of none, optional, requi"),
        ("rediss://h?ssl_ca_cert=/ca", {}, "did you mean 'ssl_ca_certs'?"),
        ("redis://h", {"priority_steps": 3}, "priority_steps: expected a list of num"),
        ("redis://h", {"priority_steps": "03"}, "priority_steps: expected a list of "),
        ("sqlite:///x.db", {"priority_steps": ["a"]}, "priority_steps: expected a lis"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(
    url: str, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
        connect(url, namespace="test", options=options)


def test_priority_steps_count_in_sqlite_too(tmp_path: Path) -> None:
    made = connect(
        f"sqlite:///{tmp_path / 'b.db'}",
        namespace="test",
        options={"priority_steps": [0, 5]},
    )
    assert isinstance(made, Broker)
    made.send([outgoing(b"6", priority=6), outgoing(b"4", priority=4)])
    made.join("w", LONG)

    assert [one.message for one in made.take("w", ["celery"], 2, 1)] == [b"4", b"6"]
    made.send([outgoing(b"9", priority=9), outgoing(b"5", priority=5)])
    assert [one.message for one in made.take("w", ["celery"], 2, 2)] == [b"9", b"5"]
    made.close()


# Users


@pytest.mark.parametrize("password", ["p@ss/w:rd", "100%#1?", "a b+c"])
def test_a_user_s_name_and_password_may_have_any_signs(
    server: Server, password: str
) -> None:
    name = "me@shop/x"
    with server.client() as client:
        rights = ["on", f">{password}", "~*", "&*", "+@all"]
        client.execute_command("ACL", "SETUSER", name, *rights)
        login = f"{quote(name, safe='')}:{quote(password, safe='')}"
        user = broker(server.url(user=login), client_name="user")

        user.send([outgoing(b"1")])

        assert client.llen("celery") == 1
        assert {one["user"] for one in _clients(client, "user")} == {name}
        client.execute_command("ACL", "DELUSER", name)
    user.close()


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if shutil.which("openssl") is None and "CI" not in os.environ:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    return {name: str(make_certificate(folder, name)) for name in ("server", "client")}


@pytest.fixture
def port(server: Server, certificates: dict[str, str]) -> Iterator[int]:
    """A port at which the server speaks TLS."""
    with tls(server.port, Path(certificates["server"])) as port:
        yield port


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("rediss://localhost:{port}?ssl_ca_certs={server}", False),
        ("rediss://localhost:{port}", {"ssl_ca_certs": "{server}"}),
        ("redis://localhost:{port}", {"ca_certs": "{server}"}),
        (
            "redis://localhost:{port}",
            {"ssl_ca_certs": "{server}", "ssl_cert_reqs": ssl.CERT_REQUIRED},
        ),
        # Where the name is not that of the certificate, or nobody knows who signed it:
        ("rediss://127.0.0.1:{port}?ssl_cert_reqs=none", False),
        ("rediss://127.0.0.1:{port}?ssl_cert_reqs=CERT_NONE", False),
        ("rediss://127.0.0.1:{port}?ssl_cert_reqs=None", True),
        ("redis://127.0.0.1:{port}", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("redis://127.0.0.1:{port}", {"ssl_cert_reqs": 0}),
        ("redis://127.0.0.1:{port}", {"ssl_cert_reqs": None}),
        ("redis://127.0.0.1:{port}", {"ssl_cert_reqs": "CERT_NONE"}),
        (
            "rediss://127.0.0.1:{port}?ssl_ca_certs={server}&ssl_check_hostname=false",
            False,
        ),
    ],
)
def test_tls_carries_requests_and_news(
    port: int, certificates: dict[str, str], url: str, options: Any
) -> None:
    where = {"port": port, **certificates}
    if isinstance(options, dict):
        options = {
            name: value.format(**where) if isinstance(value, str) else value
            for name, value in options.items()
        }
    secure = connect(url.format(**where), namespace="test", tls=options)
    assert isinstance(secure, Broker)
    with ThreadPoolExecutor() as threads:
        assert secure.await_message(["celery"], 1) is False
        waiting = threads.submit(secure.await_message, ["celery"], LONG)
        secure.send([outgoing(b"x" * 100_000)])
        assert waiting.result(PATIENCE) is True
    secure.close()


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("rediss://localhost:{port}", False, "CERTIFICATE_VERIFY_FAILED"),
        ("redis://localhost:{port}", True, "CERTIFICATE_VERIFY_FAILED"),
        ("rediss://127.0.0.1:{port}?ssl_ca_certs={server}", False, "mismatch"),
        ("redis://localhost:{port}", {}, "(?i)connection"),
    ],
)
def test_a_certificate_that_nobody_vouches_for_is_refused(
    port: int, certificates: dict[str, str], url: str, options: Any, expected: str
) -> None:
    url = url.format(port=port, **certificates)
    secure = connect(url, namespace="test", tls=options)

    with pytest.raises(BrokerUnavailable, match=expected):
        secure.ping()
    secure.close()


def test_a_client_shows_its_certificate(
    server: Server, certificates: dict[str, str]
) -> None:
    mine = certificates["client"]
    shown = {"ssl_certfile": mine, "ssl_keyfile": mine, "ssl_cert_reqs": "none"}
    with tls(server.port, Path(certificates["server"]), client=Path(mine)) as port:
        url = f"redis://localhost:{port}"
        known = connect(url, namespace="test", tls=shown)
        unknown = connect(url, namespace="test", tls={"ssl_cert_reqs": "none"})

        assert known.ping()
        with pytest.raises(BrokerUnavailable):
            unknown.ping()
        known.close()
        unknown.close()


def _at_the_same_time(number: int, act: Any) -> None:
    ready = threading.Barrier(number)

    def together() -> None:
        ready.wait(PATIENCE)
        act()

    with ThreadPoolExecutor(number) as threads:
        for one in [threads.submit(together) for _ in range(number)]:
            one.result(PATIENCE)


def _clients(client: Any, name: str) -> list[dict[str, str]]:
    return [one for one in client.client_list() if one["name"] == name]


def _connections(server: Server, name: str) -> int:
    with server.client() as client:
        return len(eventually(lambda: _clients(client, name)))


@pytest.mark.parametrize(
    ("query", "checks"),
    [("", True), ("?ssl_cert_reqs=required", True), ("?ssl_cert_reqs=none", None)],
)
def test_host_names_are_checked_whatever_redis_py_does_by_default(
    query: str, checks: bool | None
) -> None:
    address = Address(f"rediss://127.0.0.1:1{query}", {}, False)

    assert address.pool.connection_kwargs.get("ssl_check_hostname") is checks
