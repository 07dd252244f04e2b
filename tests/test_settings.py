"""Settings: every spelling, every kind of value, and what is said when one is wrong."""

import math
import sys
from dataclasses import fields
from datetime import UTC, timedelta
from pathlib import Path
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.app import defaults

from beatd.config import settings
from beatd.config.settings import (
    Place,
    Settings,
    file_of_url,
    is_secret,
    mask,
    mask_url,
    mentions_secret,
    read,
    safe,
    table,
)
from beatd.config.settings.notes import own
from beatd.config.settings.page import page
from beatd.config.switches import Switch

ROWS = list(table().values())
SCHEDULER = "celery.beat:PersistentScheduler"


def problems(written: dict[str, Any], **kwargs: Any) -> list[str]:
    return [str(problem) for problem in read(written, **kwargs).problems]


def lines(*path: str) -> Place | None:
    """Say that every setting stands in the line that is the length of its name."""
    return Place("conf.py", len(path[0]))


# The table


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_spelling_of_a_setting_is_read(row: settings.Row) -> None:
    values = [
        getattr(read({word: row.default}).settings, row.name) for word in row.spellings
    ]

    assert values == [row.default] * len(values)
    assert len(values) >= 2


def test_no_two_settings_share_a_spelling() -> None:
    spelled = [word for row in ROWS for word in row.spellings]

    assert len(spelled) == len(set(spelled))


def test_a_setting_of_our_own_may_have_an_option() -> None:
    switch = Switch(("--queue-limit",), "Runs of one queue at the same time.")

    note = own(1, "Runs of one queue.", switch=switch).metadata["note"]

    assert (note.own, note.switch) == (True, switch)


def test_a_default_is_what_reading_it_gives() -> None:
    fresh = Settings()
    written = {row.name: row.default for row in ROWS}

    result = read(written)

    assert result.problems == []
    for line in fields(Settings):
        assert getattr(result.settings, line.name) == getattr(fresh, line.name)


OTHER_STORES = (
    *("arangodb_", "azureblockblob_", "cassandra_", "cosmosdbsql_", "couchbase_"),
    *("elasticsearch_", "gcs_", "mongodb_", "s3_"),
)
"""Result back ends of which beatd does not know even the settings."""


def test_the_table_holds_every_setting_of_celery_with_its_old_name() -> None:
    theirs = {
        name: defaults._TO_OLD_KEY[name]
        for name in defaults.SETTING_KEYS
        if not name.startswith(OTHER_STORES)
    }

    assert {name: settings.spellings().get(old) for name, old in theirs.items()} == {
        name: name for name in theirs
    }


def test_the_page_of_the_documentation_is_current() -> None:
    written = Path(__file__).parent.parent / "docs" / "settings.md"

    assert written.read_text() == page(), "python -m beatd.config.settings > docs/..."


# Values


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ({"timezone": "Europe/Berlin"}, "timezone", "Europe/Berlin"),
        ({"timezone": ZoneInfo("Asia/Tokyo")}, "timezone", "Asia/Tokyo"),
        ({"timezone": UTC}, "timezone", "UTC"),
        ({"result_expires": timedelta(hours=2)}, "result_expires", 7200),
        ({"result_expires": None}, "result_expires", None),
        ({"accept_content": ["json", "yaml"]}, "accept_content", ("json", "yaml")),
        ({"include": "shop.tasks"}, "include", ("shop.tasks",)),
        ({"broker_url": "redis"}, "broker_url", ("redis://",)),
        (
            {"broker_url": "redis://a:1;redis://b:2"},
            "broker_url",
            ("redis://a:1", "redis://b:2"),
        ),
        ({"broker_url": ["redis://a"]}, "broker_url", ("redis://a",)),
        ({"worker_concurrency": "auto"}, "worker_concurrency", "auto"),
        ({"worker_pool": "processes"}, "worker_pool", "prefork"),
        (
            {"broker_use_ssl": {"ssl_ca_certs": "/ca"}},
            "broker_use_ssl",
            {"ssl_ca_certs": "/ca"},
        ),
        ({"task_acks_late": 0}, "task_acks_late", False),
        (
            {"result_backend_max_retries": math.inf},
            "result_backend_max_retries",
            math.inf,
        ),
        (
            {"worker_max_tasks_per_child": sys.maxsize},
            "worker_max_tasks_per_child",
            2**31 - 1,
        ),
        (
            {"result_backend_max_retries": sys.maxsize},
            "result_backend_max_retries",
            math.inf,
        ),
        (
            {"CELERYBEAT_SCHEDULER": "celery.beat.PersistentScheduler"},
            "beat_scheduler",
            "celery.beat.PersistentScheduler",
        ),
    ],
)
def test_a_value_is_read_as_beatd_uses_it(
    written: dict[str, Any], name: str, value: object
) -> None:
    result = read(written)

    assert result.problems == []
    assert getattr(result.settings, name) == value


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"timezone": "Europe/Pariss"},
        "timezone: no zone named 'Europe/Pariss'; did you mean 'Europe/Paris'?",
    ),
    (
        {"CELERY_TIMEZONE": 1},
        "CELERY_TIMEZONE: expected the name of a time zone or None, got 1",
    ),
    (
        {"worker_concurrency": -1},
        "worker_concurrency: expected a whole number from 0 up or 'auto' or None,"
        " got -1",
    ),
    (
        {"worker_concurrency": "4"},
        "worker_concurrency: expected a whole number from 0 up or 'auto' or None,"
        " got '4'",
    ),
    (
        {"CELERYD_MAX_TASKS_PER_CHILD": True},
        "CELERYD_MAX_TASKS_PER_CHILD: expected a whole number from 1 up or None,"
        " got True",
    ),
    (
        {"task_time_limit": 0},
        "task_time_limit: expected more than 0 seconds or None, got 0",
    ),
    (
        {"result_expires": float("nan")},
        "result_expires: expected seconds (a number or a timedelta) or None, got nan",
    ),
    (
        {"result_expires": timedelta(-1)},
        "result_expires: expected seconds (a number or a timedelta) or None, got"
        " datetime.timedelta(days=-1)",
    ),
    (
        {"accept_content": ["json", 5]},
        "accept_content: expected a list of texts, got a list",
    ),
    (
        {"beat_schedule": []},
        "beat_schedule: expected a dict of entries by name, got a list",
    ),
    (
        {"broker_transport_options": "fanout"},
        "broker_transport_options: expected a dict, got 'fanout'",
    ),
    (
        {"beat_overlap": "queue"},
        "beat_overlap: expected 'allow', 'skip' or 'queue_one', got 'queue'",
    ),
    (
        {"task_ignore_result": "no"},
        "task_ignore_result: expected True or False, got 'no'",
    ),
    (
        {"worker_pool": "thread"},
        "worker_pool: no pool named 'thread'; did you mean 'threads'?",
    ),
    (
        {"task_serializer": "jsn"},
        "task_serializer: no serializer named 'jsn'; did you mean 'json'?",
    ),
    (
        {"broker_url": "localhost:6379"},
        "broker_url: 'localhost:6379' has no scheme; write redis://localhost:6379",
    ),
    (
        {"broker_url": "redsi://:secret@host"},
        "broker_url: no broker for the scheme 'redsi'; did you mean 'redis'?",
    ),
    (
        {"broker_url": "http://host"},
        "broker_url: no broker for the scheme 'http'; beatd knows redis, rediss,"
        " redis+socket, unix, sentinel, amqp, amqps, pyamqp, sqlite, memory",
    ),
    (
        {"broker_url": "redis://:secret@host:port/0"},
        "broker_url: the port in 'redis://:***@host:port/0' is not a number up to"
        " 65535",
    ),
    (
        {"broker_password": 12345},
        "broker_password: expected text or None, got a secret of type int",
    ),
    (
        {"CELERYBEAT_SCHEDULER": "redbeat.RedBeatScheduler"},
        "CELERYBEAT_SCHEDULER: beatd is itself the scheduler, not"
        " 'redbeat.RedBeatScheduler'; remove it: with a redis:// broker beatd keeps its"
        " ledger in Redis and any number of schedulers may run; entries that were added"
        " to RedBeat at run time go into beat_schedule, see beatd import redbeat"
        " --help; or leave it, and start with --scheduler beatd",
    ),
    (
        {"beat_scheduler": "django_celery_beat.schedulers:DatabaseScheduler"},
        "beat_scheduler: beatd is itself the scheduler, not"
        " 'django_celery_beat.schedulers:DatabaseScheduler'; entries in Django's"
        " database are not read: they go into beat_schedule, see beatd import"
        " django-celery-beat --help; or leave it, and start with --scheduler beatd",
    ),
    (
        {"beat_scheduler": "shop.beat:Mine"},
        "beat_scheduler: beatd is itself the scheduler, not 'shop.beat:Mine'; remove"
        " this setting; or leave it, and start with --scheduler beatd",
    ),
    (
        {"beat_shedule": {}},
        "unknown setting 'beat_shedule'; did you mean 'beat_schedule'?",
    ),
    (
        {"CELERYBEAT_SCHEDUL": {}},
        "unknown setting 'CELERYBEAT_SCHEDUL'; did you mean 'CELERYBEAT_SCHEDULE'?",
    ),
]


@pytest.mark.parametrize(("written", "message"), WRONG)
def test_a_wrong_setting_is_named_with_what_was_expected(
    written: dict[str, Any], message: str
) -> None:
    (problem,) = read(written).problems

    assert str(problem) == message
    assert not problem.warning


def test_all_problems_are_found_at_once_and_the_rest_is_read() -> None:
    written = {word: value for wrong, _ in WRONG for word, value in wrong.items()}

    result = read({**written, "CELERY_TASK_TIME_LIMIT": 20})

    assert len(result.problems) >= 15
    assert result.settings.task_time_limit == 20


# Spellings together


def test_spellings_may_be_mixed() -> None:
    result = read(
        {"timezone": "UTC", "CELERYD_CONCURRENCY": 3, "CELERY_TASK_TIME_LIMIT": 20}
    )

    assert result.problems == []
    assert result.settings.timezone == "UTC"
    assert result.settings.worker_concurrency == 3
    assert result.settings.task_time_limit == 20


def test_two_spellings_that_say_the_same_are_fine() -> None:
    assert problems({"timezone": "UTC", "CELERY_TIMEZONE": "UTC"}) == []


def test_two_spellings_that_contradict_each_other_are_named_with_their_lines() -> None:
    written = {"timezone": "UTC", "CELERY_TIMEZONE": "Europe/Berlin"}

    assert problems(written, locate=lines) == [
        "conf.py:15: timezone = 'UTC' (conf.py:8) contradicts CELERY_TIMEZONE ="
        " 'Europe/Berlin' (conf.py:15); both spell one setting: keep one of them"
    ]


def test_a_contradiction_does_not_show_secrets() -> None:
    (problem,) = problems(
        {"BROKER_URL": "redis://:one@host", "broker_url": "redis://:two@host"}
    )

    assert "one" not in problem.replace("one setting", "").replace("keep one", "")
    assert "two" not in problem


def test_schedules_of_two_spellings_are_put_together() -> None:
    result = read(
        {"CELERYBEAT_SCHEDULE": {"a": {"task": "x"}}, "beat_schedule": {"b": {}}}
    )

    assert result.problems == []
    assert result.settings.beat_schedule == {"a": {"task": "x"}, "b": {}}


def test_one_entry_in_two_schedules_is_a_contradiction() -> None:
    written = {
        "CELERYBEAT_SCHEDULE": {"a": {"task": "x"}},
        "beat_schedule": {"a": {"task": "y"}},
    }

    assert problems(written, locate=lines) == [
        "conf.py:13: entry 'a' in CELERYBEAT_SCHEDULE (conf.py:19) contradicts the one"
        " in beat_schedule (conf.py:13); keep one of them, or give them different names"
    ]


# Names that are none


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("timezon", "did you mean 'timezone'?"),
        ("CELRY_TIMEZONE", "did you mean 'CELERY_TIMEZONE'?"),
        ("task_queue_names", "did you mean 'task_queues'?"),
        (
            "CELERY_SEND_TASK_ERROR_EMAILS_TO",
            "beatd has no such setting, it changes nothing",
        ),
    ],
)
def test_a_name_that_may_be_meant_as_a_setting_is_warned_about(
    name: str, hint: str
) -> None:
    (problem,) = read({name: "x"}).problems

    assert problem.message == f"unknown setting {name!r}"
    assert problem.hint == hint
    assert problem.warning


@pytest.mark.parametrize(
    "name", ["redbeat_redis_url", "REDBEAT_REDIS_URL", "CELERY_REDBEAT_REDIS_URL"]
)
def test_what_an_import_reads_is_no_unknown_setting(name: str) -> None:
    assert problems({name: "redis://redbeat/1"}) == []


@pytest.mark.parametrize("name", ["every_minute", "HOST", "tasks", "DEBUG", "minutes"])
def test_helpers_in_a_config_module_are_left_alone(name: str) -> None:
    assert problems({name: 1}) == []


def test_settings_without_effect_are_listed_as_they_were_written() -> None:
    result = read({"CELERYD_AGENT": None, "worker_enable_gossip": False})

    assert result.problems == []
    assert result.unused == ["CELERYD_AGENT", "worker_enable_gossip"]


# Precedence


def test_the_environment_wins_over_the_config() -> None:
    environ = {
        "CELERY_BROKER_URL": "redis://env",
        "CELERY_BROKER_READ_URL": "redis://read",
        "CELERY_BROKER_WRITE_URL": "redis://write",
        "CELERY_RESULT_BACKEND": "redis://results",
    }

    chosen = read({"BROKER_URL": "redis://conf"}, environ=environ).settings

    assert chosen.broker_url == ("redis://env",)
    assert chosen.read_urls == ("redis://read",)
    assert chosen.write_urls == ("redis://write",)
    assert chosen.result_url == "redis://results"


def test_the_command_line_wins_over_the_environment() -> None:
    chosen = read(
        {"broker_url": "redis://conf"},
        environ={"CELERY_BROKER_URL": "redis://env"},
        command_line={"broker_url": "redis://line"},
    ).settings

    assert chosen.broker_url == ("redis://line",)


def test_an_empty_variable_says_nothing() -> None:
    environ = {"CELERY_BROKER_URL": ""}

    assert read({"broker_url": "redis://conf"}, environ=environ).settings.broker_url


def test_a_wrong_variable_is_named() -> None:
    assert problems({}, environ={"CELERY_BROKER_URL": "host"}) == [
        "broker_url (CELERY_BROKER_URL): 'host' has no scheme; write redis://host"
    ]


# What is made from more than one setting


@pytest.mark.parametrize(
    ("written", "urls"),
    [
        ({}, ("sqlite:///broker.db",)),
        (
            {"beat_schedule_filename": "/var/lib/beatd/schedule.db"},
            ("sqlite:////var/lib/beatd/broker.db",),
        ),
        (
            {"beat_schedule_filename": "/srv/shop?#1 50%41/schedule.db"},
            ("sqlite:////srv/shop%3F%231 50%2541/broker.db",),
        ),
        ({"broker_transport": "redis"}, ("redis://localhost/",)),
        (
            {
                "BROKER_TRANSPORT": "redis",
                "BROKER_HOST": "example.net",
                "BROKER_PORT": 6380,
                "BROKER_USER": "anna",
                "BROKER_PASSWORD": "p@ss/word",
                "BROKER_VHOST": 3,
            },
            ("redis://anna:p%40ss%2Fword@example.net:6380/3",),
        ),
        ({"BROKER_HOST": "mq", "BROKER_VHOST": "/shop"}, ("amqp://mq/shop",)),
        (
            {
                "BROKER_URL": "redis://a;rediss://b:7/1?ssl_cert_reqs=none;unix:///s",
                "BROKER_PORT": 6380,
                "BROKER_PASSWORD": "p@ss",
                "BROKER_VHOST": 3,
            },
            (
                "redis://:p%40ss@a:6380/3",
                "rediss://:p%40ss@b:7/1?ssl_cert_reqs=none",
                "unix:///s",
            ),
        ),
        (
            {"broker_url": "redis://me:it@[::1]:7/", "broker_password": "other"},
            ("redis://me:it@[::1]:7/",),
        ),
    ],
)
def test_an_address_is_put_together_from_its_parts(
    written: dict[str, Any], urls: tuple[str, ...]
) -> None:
    assert read(written).settings.broker_urls == urls


@pytest.mark.parametrize("folder", ["/srv/50%41", "/srv/shop?", "/srv/#1", "a b/é"])
def test_the_files_lie_beside_the_schedule_file_whatever_its_folder_is_called(
    folder: str,
) -> None:
    found = read({"beat_schedule_filename": f"{folder}/schedule.db"}).settings

    assert file_of_url(found.broker_urls[0]) == Path(folder, "broker.db")
    assert file_of_url(found.result_url or "") == Path(folder, "results.db")


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ({}, "sqlite:///results.db"),
        ({"broker_url": "redis://h"}, None),
        ({"result_backend": "disabled"}, None),
        ({"result_backend": "redis://h/1"}, "redis://h/1"),
        (
            {
                "result_backend": "redis",
                "redis_port": 7000,
                "redis_db": 2,
                "redis_password": "x",
            },
            "redis://:x@localhost:7000/2",
        ),
    ],
)
def test_the_address_of_the_result_backend(
    written: dict[str, Any], url: str | None
) -> None:
    assert read(written).settings.result_url == url


@pytest.mark.parametrize(
    ("expires", "ttl"), [(60, 60_000), (0, None), (None, None), (0.5, 500)]
)
def test_how_long_a_result_is_kept(expires: float | None, ttl: int | None) -> None:
    assert read({"result_expires": expires}).settings.result_ttl == ttl


def test_without_a_timezone_the_zone_is_utc() -> None:
    assert Settings().zone == ZoneInfo("UTC")
    assert Settings(timezone="Asia/Tokyo").zone == ZoneInfo("Asia/Tokyo")


def test_modules_are_imported_once_and_in_order() -> None:
    chosen = read({"imports": ["b", "a"], "include": ["a", "c"]}).settings

    assert chosen.modules == ("b", "a", "c")


# Secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://anna:secret@host", "redis://anna:***@host"),
        ("redis://anna:se/cr@et@host", "redis://anna:***@host"),
        ("amqp://a:secret@h;amqp://b:secret@i", "amqp://a:***@h;amqp://b:***@i"),
        ("redis://host/0?password=secret&x=1", "redis://host/0?password=***&x=1"),
        ("rediss://h?ssl_password=secret", "rediss://h?ssl_password=***"),
        ("anna:secret@host:6379", "anna:***@host:6379"),
        ("redis//anna:secret@host/0", "redis//anna:***@host/0"),
        ("redis/anna:secret@host/0", "redis/anna:***@host/0"),
        ("schemes" * 9 + "://anna:secret@host", "schemes" * 9 + "://anna:***@host"),
        ("lost redis://:secret@host: refused", "lost redis://:***@host: refused"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("sqlite:////var/lib/beatd/broker.db", "sqlite:////var/lib/beatd/broker.db"),
        ("lost redis://:sec ret@host/0: no", "lost redis://:***@host/0: no"),
        ("lost redis://:a@b:c/d@host/0: no", "lost redis://:***@host/0: no"),
        ("redis://h?pwd=secret&db=1", "redis://h?pwd=***&db=1"),
        ("redis://h?pass=a;b&credential=c", "redis://h?pass=***&credential=***"),
        ("sqs://h?access_key=secret", "sqs://h?access_key=***"),
        ("dial(password='a b', port=1)", "dial(password=***, port=1)"),
        ("KeyError({'api_key': 'a b', 'n': 1})", "KeyError({'api_key': ***, 'n': 1})"),
        ("{'credentials': {'a': 'b', 'c': 'd'}}", "{'credentials': ***"),
        ("broker_password: expected text", "broker_password: expected text"),
        ("compass=north bypass: no", "compass=north bypass: no"),
        ("db_password = 'a b'", "db_password = ***"),
        ("max_tokens=5 token_count=7 token=9", "max_tokens=5 token_count=7 token=***"),
    ],
)
def test_masked_addresses_hold_no_password(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("redis://:sec ret@host/0", "redis://:***@host/0"),
        ("redis://:sec;ret@host/0", "redis://:***@host/0"),
        ("redis://:sec@ret@host/0", "redis://:***@host/0"),
        ("redis://:sec/ret@host/0", "redis://:***@host/0"),
        ("redis://:sec?ret@host/0", "redis://:***@host/0"),
        ("redis://:sec#ret@host/0", "redis://:***@host/0"),
        ("redis://:sec[ret@host/0", "redis://:***@host/0"),
        ("redis://:secret", "redis://:***"),
        ("redis://:sec?re=t@host/0", "redis://***"),
        ("redis://host/0?password=sec@ret", "redis://***"),
        ("redis://host/0?password=sec#ret", "redis://host/0?password=***#***"),
        ("redis://h/0?pwd=secret&x=1", "redis://h/0?pwd=***&x=1"),
        ("ret@host:6379", "***@host:6379"),
        (
            "sentinel://:secret@h:1/0;sentinel://:secret@i:1/0",
            "sentinel://:***@h:1/0;sentinel://:***@i:1/0",
        ),
        ("db+postgresql://u:secret@h/d", "db+postgresql://u:***@h/d"),
        ("sqlite:///data/me@here.db", "sqlite:///data/me@here.db"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        (
            "redis+socket:///s.sock?virtual_host=1",
            "redis+socket:///s.sock?virtual_host=1",
        ),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, masked: str) -> None:
    assert mask_url(address) == masked


@pytest.mark.parametrize("name", ["broker_url", "broker_read_url", "result_backend"])
@pytest.mark.parametrize("character", "/?#[")
def test_a_password_that_has_to_be_encoded_is_told_so_and_not_shown(
    name: str, character: str
) -> None:
    (problem,) = problems({name: f"redis://anna:hush{character}word@host:6379/0"})

    assert "password has a character that has to be encoded" in problem
    assert "/ as %2F" in problem
    assert "hush" not in problem
    assert "word@" not in problem


def test_a_password_with_the_character_between_addresses_is_not_shown() -> None:
    (problem,) = problems({"broker_url": "redis://:hush;word@host:6379/0"})

    assert "; as %3B" in problem
    assert "hush" not in problem
    assert "word@" not in problem


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "PASSWORD",
            "db_password2",
            "redispassword",
            "passwd",
            "Passwort",
        ),
        *(
            "Passwort",
            "pwd",
            "userpwd",
            "pass",
            "db_pass",
            "dbpass",
            "smtp-pass",
            "PASS",
        ),
        *("passphrase", "secret", "secrets", "client_secret", "clientSecret"),
        *("token", "tokens", "auth_token", "authtoken", "accessToken", "token_id"),
        *("credential", "credentials", "aws_credentials", "credential_provider"),
        *("api_key", "apiKey", "APIKEY", "APIKey", "x-api-key", "access_key"),
        *("aws_secret_access_key", "privatekey", "private_keys", "account_password"),
    ],
)
def test_the_parts_of_a_name_tell_that_it_is_a_secrets(name: str) -> None:
    assert is_secret(name)
    assert mentions_secret(f'    max=5, compass="n", "{name}": "hush",')


@pytest.mark.parametrize(
    "name",
    [
        *("compass", "bypass", "bypass_cache", "passenger", "passes", "overpass"),
        *("max_tokens", "maxTokens", "token_count", "tokens_per_minute", "tokenizer"),
        *("token_ttl", "password_length", "secretary", "key", "keys", "routing_key"),
        *("monkey", "api", "access", "private", "public_key", "keyword", ""),
    ],
)
def test_a_name_that_only_sounds_like_a_secrets_is_none(name: str) -> None:
    assert not is_secret(name)
    assert safe({name: 5}) == f"{{{name!r}: 5}}"


@pytest.mark.parametrize(
    "piece", ["x", "x.y-", "passw", "a:", "x://a:", "'", "(a,", "'pass': '", "pwd="]
)
def test_no_text_takes_long_to_mask(piece: str) -> None:
    began = process_time()
    mask(f"say {piece * 20_000}")

    assert process_time() - began < 5


def test_values_are_written_without_their_secrets_however_deep() -> None:
    value = {
        "to": [{"api_key": "hush", "at": ("redis://:hu sh@host",)}],
        "db_pass": 12345,
        "token": None,
        "login": {"credentials": {"name": "hush"}},
    }

    assert safe(value) == (
        "{'to': [{'api_key': ***, 'at': ('redis://:***@host',)}], 'db_pass': ***,"
        " 'token': None, 'login': {'credentials': {'name': ***}}}"
    )


def test_settings_do_not_show_secrets_when_printed() -> None:
    assert "secret" not in repr(Settings(broker_url=("redis://:secret@host",)))
