"""A request to an address that a task makes: bounded in time and size."""

import base64
import http.client
import socket
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import msgspec

from beatd.clock import Clock, SystemClock
from beatd.config.builtin_tasks import REQUEST_TIMEOUT, address
from beatd.config.settings import Unfit, mask, mask_url
from beatd.errors import RequestFailed
from beatd.instant import SECOND, span_of
from beatd.pools.limits import time_limit
from beatd.version import __version__

KEPT = 64 * 1024
"""Bytes of the answer's body that are read and kept."""

LETTERS = 500
"""How much of the body an error shows."""

MOST_REDIRECTS = 5

_CHUNK = 1 << 14


class WebRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, as the arguments of `beatd.http` say it."""

    url: str
    method: str | None = None
    headers: Mapping[str, str] = {}
    body: str | None = None
    json: Any = None
    timeout: float = REQUEST_TIMEOUT
    expected_status: Sequence[int] = ()
    """Empty: any from 200 to 299."""

    @property
    def content(self) -> bytes | None:
        """The body to send."""
        if self.json is not None:
            return msgspec.json.encode(self.json)
        return None if self.body is None else self.body.encode()

    @property
    def verb(self) -> str:
        """The method: without one it is GET, or POST if there is a body."""
        return self.method or ("GET" if self.content is None else "POST")

    def expects(self, status: int) -> bool:
        """Return whether an answer with this status is well."""
        return status in (self.expected_status or range(200, 300))


def send(request: WebRequest, clock: Clock | None = None) -> dict[str, Any]:
    """Make the request; return its status and the beginning of the answer's body.

    Raises RequestFailed.
    """
    return _Exchange(request, clock or SystemClock()).result()


class _Line(http.client.HTTPConnection):
    """A connection that can be cut from another thread."""

    _open: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self._open = self.sock  # urllib forgets it once the answer has begun

    def cut(self) -> None:
        """Have whoever reads or writes it get an error, or an end, now."""
        if self._open is not None:
            # Not the method of a socket with TLS, which is for its own thread.
            with suppress(OSError):
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)


class _SafeLine(_Line, http.client.HTTPSConnection):
    """The same with TLS."""


class _Opener(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections, and shows them before they are used."""

    def __init__(self, show: Callable[[_Line], object]) -> None:
        super().__init__()
        self._show = show

    def http_open(self, request: urllib.request.Request) -> Any:
        return self._answer(_Line, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self._answer(_SafeLine, request)

    def _answer(self, kind: type[_Line], request: urllib.request.Request) -> Any:
        def opened(host: str, **options: Any) -> _Line:
            line = kind(host, **options)
            self._show(line)
            return line

        return self.do_open(opened, request)


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Returns each answer as it is: redirects and errors are looked at here."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


class _Exchange:
    """One request and its answer, by way of some redirects."""

    def __init__(self, request: WebRequest, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._method, self._content = request.verb, request.content
        self._deadline = clock.elapsed() + span_of(request.timeout)
        self._is_late = False
        self._line: _Line | None = None

    def result(self) -> dict[str, Any]:
        """Return what the task returns."""
        try:
            with time_limit(self._request.timeout, self._cut):
                return self._follow(self._request.url)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if self._is_late or isinstance(reason, TimeoutError):
                text = f"no whole answer within {self._request.timeout:g} s"
            else:
                text = mask(str(reason) or type(reason).__name__)
            raise self._failed(text) from None

    def _cut(self) -> None:
        self._is_late = True
        if self._line:
            self._line.cut()

    def _follow(self, url: str) -> dict[str, Any]:
        for _ in range(MOST_REDIRECTS + 1):
            with self._answer(url) as answer:
                target = self._target(url, answer)
                if target is None:
                    return self._read(url, answer)
            url = target
            if answer.status not in (307, 308) and self._method != "HEAD":
                self._method, self._content = "GET", None
        raise self._failed(f"more than {MOST_REDIRECTS} redirects")

    def _answer(self, url: str) -> Any:
        """Return the answer of this address, whatever its status."""
        parts = urlsplit(url)
        headers = self._headers(parts)
        plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        left = (self._deadline - self._clock.elapsed()) / SECOND
        if left <= 0:
            raise TimeoutError
        request = urllib.request.Request(
            plain, self._content, headers, method=self._method
        )
        opener = urllib.request.build_opener(_AnyStatus, _Opener(self._take_line))
        return opener.open(request, timeout=left)

    def _take_line(self, line: _Line) -> None:
        self._line = line

    def _headers(self, parts: SplitResult) -> dict[str, str]:
        """Return the headers: the user's go before those that are made here."""
        made = {"User-Agent": f"beatd/{__version__}"}
        if self._content is not None:
            is_json = self._request.json is not None
            kind = "application/json" if is_json else "text/plain; charset=utf-8"
            made["Content-Type"] = kind
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(login.encode()).decode()
            made["Authorization"] = f"Basic {encoded}"
        own = {name.title(): value for name, value in self._request.headers.items()}
        return {**made, **own}

    def _target(self, url: str, answer: Any) -> str | None:
        """Return where an answer redirects to; None if it is the answer itself."""
        written = answer.headers.get("Location")
        if answer.status not in _REDIRECTS or written is None:
            return None
        if answer.status in self._request.expected_status:
            return None
        try:
            target = address(urljoin(url, written))
        except Unfit as error:
            raise self._failed(f"it redirects, and beatd {error.reason}") from None
        before, after = urlsplit(url), urlsplit(target)
        if not _is_same_place(before, after):
            if self._has_more_than_an_address:
                raise self._failed(
                    f"it redirects to {mask_url(target)}: headers, a login and a body"
                    " are not taken to another place; name that address"
                )
        elif after.username is None and before.username is not None:
            login = before.netloc.rpartition("@")[0]
            target = urlunsplit(after._replace(netloc=f"{login}@{after.netloc}"))
        return target

    @property
    def _has_more_than_an_address(self) -> bool:
        request = self._request
        login = urlsplit(request.url).username is not None
        return login or bool(request.headers) or request.content is not None

    def _read(self, url: str, answer: Any) -> dict[str, Any]:
        body = b""
        while len(body) <= KEPT and (part := answer.read(_CHUNK)):
            body += part
        if self._is_late:
            raise TimeoutError  # what was cut looks like an end
        text = body[:KEPT].decode(_charset(answer), errors="replace")
        if not self._request.expects(answer.status):
            shown = mask(text[:LETTERS].strip())
            told = f"; it begins:\n  {shown}" if shown else ""
            raise self._failed(
                f"status {answer.status}, expected {self._expected}{told}"
            )
        return {
            "status": answer.status,
            "url": mask_url(url),
            "content_type": answer.headers.get("Content-Type"),
            "body": text,
            "is_whole": len(body) <= KEPT,
        }

    @property
    def _expected(self) -> str:
        return " or ".join(map(str, self._request.expected_status)) or "200 to 299"

    def _failed(self, text: str) -> RequestFailed:
        request = self._request
        return RequestFailed(f"{request.verb} {mask_url(request.url)}: {text}")


def _is_same_place(one: SplitResult, other: SplitResult) -> bool:
    """Return whether both lead to the same server; from HTTP to HTTPS does."""
    if one.hostname != other.hostname:
        return False
    ports = (one.port or _PORTS[one.scheme], other.port or _PORTS[other.scheme])
    if one.scheme == other.scheme:
        return ports[0] == ports[1]
    return one.scheme == "http" and ports == (80, 443)


def _charset(answer: Any) -> str:
    name = answer.headers.get_content_charset() or "utf-8"
    try:
        b"".decode(name)
    except LookupError:
        return "utf-8"
    return str(name)


_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
