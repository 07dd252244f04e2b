"""The values of all settings, and what is made from more than one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from zoneinfo import ZoneInfo

from beatd.config.settings.file_urls import url_of_file
from beatd.config.settings.local_zone import local_zone
from beatd.config.settings.rows import Rows
from beatd.config.settings.secrets import addresses_in
from beatd.instant import Span, span_of


# Adds no field to `Rows`; without it, attributes that are no fields could be set.
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Settings(Rows):
    """Every setting, read and checked. Lengths of time are seconds, as in Celery.

    It has no repr: addresses hold passwords.
    """

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone in which schedules are read and times shown.

        As in Celery that is local time where no zone is set and `enable_utc` is off.
        """
        local = None if self.enable_utc else local_zone()
        return ZoneInfo(self.timezone or local or "UTC")

    @property
    def write_urls(self) -> tuple[str, ...]:
        """Addresses to publish to, in the order to try them."""
        return self._completed(self.broker_write_url) or self.broker_urls

    @property
    def read_urls(self) -> tuple[str, ...]:
        """Addresses to consume from, in the order to try them."""
        return self._completed(self.broker_read_url) or self.broker_urls

    @property
    def broker_urls(self) -> tuple[str, ...]:
        """The broker's addresses, also in parts; by default a file of our own."""
        if self.broker_url:
            return self._completed(self.broker_url)
        if self.is_embedded:
            return (self._beside("broker.db"),)
        return (
            _assemble(
                self.broker_transport or "amqp",
                self.broker_host,
                self.broker_port,
                self.broker_user,
                self.broker_password,
                self.broker_vhost,
            ),
        )

    def _completed(self, urls: Sequence[str] | None) -> tuple[str, ...]:
        """Return addresses, completed by the parts that they lack, as Celery does."""
        parts = (
            self.broker_port,
            self.broker_user,
            self.broker_password,
            self.broker_vhost,
        )
        if not any(parts):
            return tuple(urls or ())
        return tuple(
            ";".join(_completed(one, *parts) for one in addresses_in(url))
            for url in urls or ()
        )

    @property
    def is_embedded(self) -> bool:
        """Whether no broker is named: everything lies beside the schedule file."""
        return not (self.broker_url or self.broker_transport or self.broker_host)

    @property
    def result_url(self) -> str | None:
        """The result backend's address, also in parts; None when results are off.

        They are off by default, as in Celery, unless beatd runs on its own files.
        """
        if self.result_backend is None and self.is_embedded:
            return self._beside("results.db")
        if self.result_backend in (None, "", "disabled"):
            return None
        if self.result_backend == "redis":
            return _assemble(
                "redis",
                self.redis_host,
                self.redis_port,
                self.redis_username,
                self.redis_password,
                self.redis_db,
            )
        return self.result_backend

    @property
    def result_ttl(self) -> Span | None:
        """How long a result is kept; None for ever."""
        return span_of(self.result_expires) if self.result_expires else None

    def _beside(self, name: str) -> str:
        folder = Path(self.beat_schedule_filename).parent
        return url_of_file(folder / name)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules to import at start, in order, each once."""
        return tuple(dict.fromkeys((*self.imports, *self.include)))


def _assemble(
    scheme: str,
    host: str | None,
    port: int | None,
    user: str | None,
    password: str | None,
    path: str | int | None,
) -> str:
    """Return an address made of its parts."""
    login = quote(user or "", safe="")
    if password:
        login += ":" + quote(password, safe="")
    at = f"{login}@" if login else ""
    where = f"{host or 'localhost'}{f':{port}' if port else ''}"
    return f"{scheme}://{at}{where}/{'' if path is None else str(path).lstrip('/')}"


def _completed(
    url: str,
    port: int | None,
    user: str | None,
    password: str | None,
    path: str | int | None,
) -> str:
    """Return a server's address, completed by those parts that it does not have."""
    own = urlsplit(url)
    known = own.scheme.startswith(("redis", "amqp", "sentinel"))
    if not known or "+" in own.scheme:
        return url  # a file, or a socket
    host = f"[{own.hostname}]" if ":" in (own.hostname or "") else own.hostname
    made = _assemble(
        own.scheme,
        host,
        own.port or port,
        unquote(own.username or "") or user,
        unquote(own.password or "") or password,
        own.path.strip("/") or path,
    )
    return f"{made}?{own.query}" if own.query else made
