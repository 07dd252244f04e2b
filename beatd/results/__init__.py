"""Result backends, chosen by their URL: only `connect` knows them all."""

from typing import Any
from urllib.parse import urlsplit

from beatd.config.settings import Settings, file_of_url, mask_url
from beatd.errors import ConfigError
from beatd.instant import Span, span_of
from beatd.results.base import Lifetime, ResultBackend
from beatd.results.chords import ChordTimes
from beatd.results.encoding import Encoding

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel")


def connect(settings: Settings) -> ResultBackend:
    """Return the backend of the settings; its first request connects to Redis.

    Without a backend, reading raises ResultUnavailable. The path in
    `sqlite:///relative.db` is relative, the one in `sqlite:////var/lib/x.db` is not.

    Raises ConfigError when beatd has no backend for the URL.
    """
    url = settings.result_url
    if url is None:
        from beatd.results.disabled import NoResults

        return NoResults()
    encoding, lifetime = encoding_of(settings), lifetime_of(settings)
    if urlsplit(url).scheme in REDIS_SCHEMES:
        from beatd.results.redis import RedisResults

        return RedisResults(
            url,
            encoding=encoding,
            lifetime=lifetime,
            chord_times=chord_times_of(settings),
            options=_redis_options(settings),
            tls=settings.redis_backend_use_ssl or False,
        )
    if path := file_of_url(url):
        from beatd.results.sqlite import SQLiteResults

        return SQLiteResults(path, encoding=encoding, lifetime=lifetime)
    raise ConfigError(
        "result_backend",
        [
            f"{mask_url(url)!r}: beatd keeps results in redis://, rediss://,"
            " redis+socket://, unix://, sentinel:// and sqlite://"
        ],
    )


def encoding_of(settings: Settings) -> Encoding:
    """Return the encoding of results by these settings."""
    return Encoding(
        settings.result_serializer,
        settings.result_compression,
        tuple(settings.result_accept_content or settings.accept_content),
    )


def lifetime_of(settings: Settings) -> Lifetime:
    """Return how long results are kept; failures have a setting of their own."""
    failure = settings.result_failure_expires
    of_all = _span(settings.result_expires)
    return Lifetime(of_all, of_all if failure is None else _span(failure))


def chord_times_of(settings: Settings) -> ChordTimes:
    """Return how long parts of chords are kept: as results, or by an own setting."""
    results = int(settings.result_expires or 0)
    own = settings.result_chord_expires
    parts = results if own is None else int(own)
    # A shape is read as a result, too: not kept for less.
    shape = max(parts, results) if parts and results else 0
    join = settings.result_chord_join_timeout or 5
    return ChordTimes(parts, shape, claim=max(5, int(2 * join)))


def _span(seconds: float | None) -> Span | None:
    return span_of(seconds) if seconds else None


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        "max_connections": settings.redis_max_connections,
        "socket_timeout": settings.redis_socket_timeout,
        "socket_connect_timeout": settings.redis_socket_connect_timeout,
        **settings.result_backend_transport_options,
    }
