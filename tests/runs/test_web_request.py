"""Requests that `beatd.http` makes, to servers in this process."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from beatd.errors import RequestFailed
from beatd.runs.web_request import KEPT, WebRequest, send
from tests.tls import make_certificate, tls


class Handler(BaseHTTPRequestHandler):
    server: "Site"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        status, headers, content = self.server.answers.get(
            self.path, (404, {}, b"none")
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Site(ThreadingHTTPServer):
    """A server with these answers by path; `seen` has what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str, dict[str, str], str]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have read enough."""

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Site() as made:
        threading.Thread(target=made.serve_forever, args=(0.05,)).start()
        yield made
        made.shutdown()


@pytest.fixture
def other(site: Site) -> Iterator[Site]:
    with Site() as made:
        threading.Thread(target=made.serve_forever, args=(0.05,)).start()
        yield made
        made.shutdown()


def failure(request: WebRequest) -> str:
    with pytest.raises(RequestFailed) as raised:
        send(request)
    return str(raised.value)


def test_the_answer_is_the_result(site: Site) -> None:
    kind = "text/plain; charset=latin-1"
    site.answers["/?day=1"] = (201, {"Content-Type": kind}, b"caf\xe9")

    assert send(WebRequest(url=site.url("/?day=1"))) == {
        "status": 201,
        "url": site.url("/?day=1"),
        "content_type": kind,
        "body": "café",
        "is_whole": True,
    }
    assert site.seen[0][0] == "GET"


def test_method_headers_and_body_are_those_asked_for(site: Site) -> None:
    site.answers["/"] = (200, {}, b"")

    send(WebRequest(url=site.url("/"), json={"a": "é"}))
    send(WebRequest(url=site.url("/"), body="plain é", method="PUT"))
    send(WebRequest(url=site.url("/"), body="<a/>", headers={"content-type": "x/xml"}))

    (one, two, three) = site.seen
    assert (one[0], json.loads(one[3])) == ("POST", {"a": "é"})
    assert one[2]["Content-Type"] == "application/json"
    assert (two[0], two[3]) == ("PUT", "plain é")
    assert (three[0], three[2]["Content-Type"]) == ("POST", "x/xml")


def test_a_login_is_sent_and_not_shown(site: Site) -> None:
    site.answers["/"] = (200, {}, b"")
    url = site.url("/", "bob:pa%40ss@")

    result = send(WebRequest(url=url))

    assert site.seen[0][2]["Authorization"] == "Basic Ym9iOnBhQHNz"
    assert result["url"] == site.url("/", "bob:***@")
    assert failure(WebRequest(url=url, expected_status=[204])) == (
        f"GET {site.url('/', 'bob:***@')}: status 200, expected 204"
    )


def test_other_statuses_fail_and_show_the_body(site: Site) -> None:
    site.answers["/"] = (500, {}, b"out of order, token=abc")

    assert "status 404" in failure(WebRequest(url=site.url("/other")))
    assert failure(WebRequest(url=site.url("/"))) == (
        f"GET {site.url('/')}: status 500, expected 200 to 299; it begins:\n"
        "  out of order, token=***"
    )
    assert send(WebRequest(url=site.url("/"), expected_status=[500]))["status"] == 500


def test_no_more_of_a_body_is_read_than_is_kept(site: Site) -> None:
    site.answers["/"] = (200, {}, b"x" * 10_000_000)

    result = send(WebRequest(url=site.url("/")))

    assert (len(result["body"]), result["is_whole"]) == (KEPT, False)


# Redirects


def test_a_redirect_within_the_server_takes_login_and_headers_along(site: Site) -> None:
    site.answers["/"] = (302, {"Location": "/new"}, b"")
    site.answers["/new"] = (200, {}, b"here")
    request = WebRequest(
        url=site.url("/", "bob:secret@"), json=1, headers={"X-Key": "abc"}
    )

    result = send(request)

    assert (result["body"], result["url"]) == ("here", site.url("/new", "bob:***@"))
    method, _, headers, body = site.seen[1]
    assert (method, body, headers["X-Key"]) == ("GET", "", "abc")
    assert headers["Authorization"] == site.seen[0][2]["Authorization"]


def test_a_redirect_that_keeps_the_method_sends_the_body_again(site: Site) -> None:
    site.answers["/"] = (307, {"Location": "/new"}, b"")
    site.answers["/new"] = (200, {}, b"")

    send(WebRequest(url=site.url("/"), body="again"))

    assert [(one[0], one[3]) for one in site.seen] == [("POST", "again")] * 2


@pytest.mark.parametrize(
    "more", [{"headers": {"X-Key": "abc"}}, {"body": "text"}, {"login": "bob:secret@"}]
)
def test_nothing_is_taken_along_to_another_server(
    site: Site, other: Site, more: dict[str, Any]
) -> None:
    site.answers["/"] = (307, {"Location": other.url("/?token=x")}, b"")
    url = site.url("/", more.pop("login", ""))

    text = failure(WebRequest(url=url, **more))

    assert "it redirects to" in text
    assert "name that address" in text
    assert "secret" not in text
    assert "token=x" not in text
    assert other.seen == []


def test_an_address_alone_may_lead_to_another_server(site: Site, other: Site) -> None:
    site.answers["/"] = (302, {"Location": other.url("/there")}, b"")
    other.answers["/there"] = (200, {}, b"there")

    assert send(WebRequest(url=site.url("/")))["body"] == "there"


def test_a_redirect_may_be_what_is_expected(site: Site) -> None:
    site.answers["/"] = (302, {"Location": "/new"}, b"")

    assert send(WebRequest(url=site.url("/"), expected_status=[302]))["status"] == 302
    assert len(site.seen) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/"])
def test_a_redirect_leads_to_no_other_kind_of_address(site: Site, target: str) -> None:
    site.answers["/"] = (302, {"Location": target}, b"")

    assert "expected an http:// or https:// address" in failure(
        WebRequest(url=site.url("/"))
    )


def test_redirects_end(site: Site) -> None:
    site.answers["/"] = (302, {"Location": "/"}, b"")

    assert failure(WebRequest(url=site.url("/"))).endswith("more than 5 redirects")
    assert len(site.seen) == 6


# Servers that do not answer


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def test_nobody_waits_longer_than_the_timeout(silent: socket.socket) -> None:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"

    text = failure(WebRequest(url=url, timeout=0.3))

    assert text == f"GET {url}: no whole answer within 0.3 s"


def test_an_answer_that_drips_is_cut_off(silent: socket.socket) -> None:
    over = threading.Event()

    def drip() -> None:
        line, _ = silent.accept()
        with line:
            line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.1):
                line.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    try:
        text = failure(WebRequest(url=url, timeout=0.5))
    finally:
        over.set()
        thread.join()

    assert text == f"GET {url}: no whole answer within 0.5 s"


def test_nobody_there_is_said(silent: socket.socket) -> None:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    silent.close()

    assert "Connection refused" in failure(WebRequest(url=url))


def test_what_is_no_http_is_said(silent: socket.socket) -> None:
    def greet() -> None:
        line, _ = silent.accept()
        with line:
            line.recv(1024)
            line.sendall(b"220 smtp\r\n")

    thread = threading.Thread(target=greet)
    thread.start()
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"

    assert "220 smtp" in failure(WebRequest(url=url))
    thread.join()


def test_a_server_is_asked_over_tls_only_if_its_certificate_is_good(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None and "CI" not in os.environ:
        pytest.skip("there is no openssl to make certificates with")
    site.answers["/"] = (200, {}, b"fine")
    certificate = make_certificate(tmp_path, "server")

    with tls(site.server_port, certificate) as port:
        url = f"https://localhost:{port}/"
        with pytest.raises(RequestFailed, match="certificate verify failed"):
            send(WebRequest(url=url))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        answer = send(WebRequest(url=url))

    assert answer["body"] == "fine"
    assert [path for _, path, _, _ in site.seen] == ["/"]
