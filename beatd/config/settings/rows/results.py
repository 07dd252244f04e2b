"""Settings of results, and of Redis as the place that keeps them."""
# ruff: noqa: RUF009  (each row of the table is made by a function)

import math
from dataclasses import dataclass

from beatd.config import switches
from beatd.config.settings.kinds import (
    Count,
    Flag,
    Index,
    Number,
    Options,
    Positive,
    Seconds,
    Serializer,
    SomeSeconds,
    Text,
    Texts,
    Url,
)
from beatd.config.settings.notes import works


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ResultRows:
    """Settings of results, and of Redis as the place that keeps them."""

    result_backend: Url | None = works(
        None,
        "Where states and results are kept; unset means nowhere. The environment's"
        " `CELERY_RESULT_BACKEND` wins.",
        differs="`redis://`, `rediss://`, `redis+socket://`, `sentinel://` and"
        " `sqlite://`. Without"
        " a broker too, unset means an SQLite file beside the schedule file.",
        switch=switches.RESULT_BACKEND,
    )
    result_expires: Seconds | None = works(
        86400,
        "Seconds, or a timedelta, for which a result is kept; 0 or None: for ever.",
        old="CELERY_TASK_RESULT_EXPIRES",
        differs="After it the state of an id that beatd made reads EXPIRED.",
    )
    result_failure_expires: Seconds | None = works(
        None, "The same for failures; unset means `result_expires`."
    )
    result_serializer: Serializer = works("json", "How results are encoded.")
    result_accept_content: Texts | None = works(
        None,
        "Content types of results that are decoded; unset means `accept_content`.",
        old="RESULT_ACCEPT_CONTENT",
    )
    result_compression: Text | None = works(None, "How results are compressed.")
    result_extended: Flag = works(
        False, "Keep name, arguments, worker, retries and queue with each result."
    )
    result_backend_transport_options: Options = works(
        {},
        "Options of the result backend: `global_keyprefix`, `result_chord_ordered`, and"
        " those of connections in `broker_transport_options`.",
    )
    result_cache_max: Index = works(
        -1,
        "Results of successful runs that a client remembers; 0: all, -1: none.",
        old="CELERY_MAX_CACHED_RESULTS",
    )
    result_chord_expires: Seconds | None = works(
        None, "How long the state of a chord is kept; unset: as long as results."
    )
    result_chord_join_timeout: Seconds | None = works(
        3.0,
        "A worker alone may send a chord's body for twice as many seconds, five at"
        " least.",
        differs="beatd waits for no parts: the last one finds all others there.",
    )
    result_backend_always_retry: Flag = works(
        False,
        "Ask for a result again when no answer came.",
        differs="Of clients; workers always try again, for ever.",
    )
    result_backend_max_retries: Number = works(
        math.inf, "How often.", differs="Of clients."
    )
    result_backend_base_sleep_between_retries_ms: Count = works(
        10, "First pause between tries, in milliseconds, of clients and of workers."
    )
    result_backend_max_sleep_between_retries_ms: Count = works(
        1000,
        "Longest pause between them.",
        differs="1000 and not 10000 by default: results that wait are stored as soon as"
        " the backend is back.",
    )
    redis_max_connections: Positive | None = works(
        None,
        "Most connections to the result backend. The broker's limit is"
        " `broker_transport_options['max_connections']`.",
    )
    redis_socket_timeout: SomeSeconds | None = works(
        3.0,
        "Seconds for one read or write of the result backend.",
        differs="3 and not 120 by default: a dead connection is found in time.",
    )
    redis_socket_connect_timeout: SomeSeconds | None = works(
        None, "Seconds for connecting to it."
    )
    redis_backend_use_ssl: Flag | Options | None = works(
        None, "Options of TLS for the result backend."
    )
    redis_host: Text | None = works(None, "A part of its address, when that is no URL.")
    redis_port: Count | None = works(None, "A part of its address.")
    redis_db: Count | None = works(None, "A part of its address.")
    redis_username: Text | None = works(None, "A part of its address.")
    redis_password: Text | None = works(None, "A part of its address.")
