"""Servers behind sentinels: who is asked, who is left, and what is said."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.utils.url import _parse_url as parts_of
from redis.backoff import NoBackoff
from redis.retry import Retry

from beatd.brokers.items import Emitted, Outcome
from beatd.brokers.redis import RedisBroker
from beatd.brokers.redis.connection import Address
from beatd.brokers.redis.sentinel import (
    FRESH,
    NoMaster,
    Place,
    SentinelRefused,
    Sentinels,
)
from beatd.config.settings import read
from beatd.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    ResultUnavailable,
)
from beatd.instant import MINUTE
from beatd.results import connect as connect_results
from beatd.results.base import Meta, State
from beatd.worker.commands.shapes import broker_of
from tests.brokers.making import emission, lead, messages, outgoing, take_all
from tests.fakes import FakeClock
from tests.sentinels import NAME, Sentinel
from tests.servers import Server, eventually
from tests.tls import make_certificate, tls

OPTIONS: dict[str, Any] = {"master_name": NAME}
CONNECTION: Any = vars(kombu)["Connection"]  # it has no types
ONCE: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
SECRET = "h:u@s/h"
ENCODED = "h%3Au%40s%2Fh"


def place(server: Server | Sentinel) -> Place:
    return Place("127.0.0.1", server.port)


def url(*sentinels: Sentinel, login: str = "") -> str:
    return ";".join(f"sentinel://{login}127.0.0.1:{one.port}" for one in sentinels)


def broker(url: str, **options: Any) -> RedisBroker:
    return RedisBroker(url, namespace="test", options={**OPTIONS, **options})


def point(sentinel: Sentinel, server: Server) -> None:
    """Have a sentinel say that another server is the master now."""
    with sentinel.client() as client:
        client.execute_command("SENTINEL", "REMOVE", NAME)
        client.execute_command(
            *("SENTINEL", "MONITOR", NAME, "127.0.0.1", server.port, 1)
        )


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two servers that know nothing of each other."""
    quick: dict[str, object] = {"repl-diskless-sync-delay": 0}
    with Server(**quick) as first, Server(**quick) as second:
        yield first, second


@pytest.fixture
def pair(servers: tuple[Server, Server]) -> tuple[Server, Server]:
    for server in servers:
        with server.client() as client:
            client.replicaof("NO", "ONE")
            client.flushall()
    return servers


@pytest.fixture
def sentinel(pair: tuple[Server, Server]) -> Iterator[Sentinel]:
    """One that says that the first of the two is the master."""
    with Sentinel(pair[0].port) as made:
        yield made


def lying_at(server: Server) -> list[bytes]:
    with server.client() as client:
        found: list[bytes] = client.lrange("celery", 0, -1)
    return found[::-1]


# Addresses


@pytest.mark.parametrize(
    "written",
    [
        "sentinel://h1:26379",
        "sentinel://h1",
        "sentinel://h1:1/2;sentinel://h2:2",
        "sentinel://h1:1/2;sentinel://h2:2/3;sentinel://h3",
        f"sentinel://:{ENCODED}@h1:1/7;sentinel://:{ENCODED}@h2:2/7",
        f"sentinel://me:{ENCODED}@h1:1;sentinel://h2:2/",
    ],
)
def test_an_address_means_what_it_means_to_kombu_and_celery(written: str) -> None:
    [url] = read({"broker_url": written}).settings.write_urls
    address = Address(url, OPTIONS, False)
    ours = address.pool.connection_kwargs

    theirs = CONNECTION(written)
    alternates = [parts_of(one) for one in theirs.alt or [written]]
    assert list(ours["sentinels"].places) == [
        (one.hostname, one.port or 26379) for one in alternates
    ]
    assert ours["db"] == int(theirs.virtual_host.strip("/") or 0)
    assert ours.get("username") == theirs.userid
    assert ours.get("password") == theirs.password
    app = Celery(backend=written, set_as_current=False)
    app.conf.result_backend_transport_options = OPTIONS
    params = app.backend.connparams
    assert ours["db"] == params["db"]
    assert ours.get("password") == params.get("password")
    assert [one.host for one in ours["sentinels"].places] == [
        one["host"] for one in params["hosts"]
    ]


def test_a_list_of_sentinels_is_one_address() -> None:
    listed = ["sentinel://h1:1/2", "sentinel://h2"]

    settings = read({"broker_url": listed}).settings

    assert settings.write_urls == ("sentinel://h1:1/2;sentinel://h2",)


def test_what_addresses_of_sentinels_lack_comes_from_settings_in_parts() -> None:
    written = {"broker_url": "sentinel://a;sentinel://b", "broker_password": SECRET}

    [url] = read(written).settings.write_urls

    assert url == f"sentinel://:{ENCODED}@a/;sentinel://:{ENCODED}@b/"


def test_sentinels_and_servers_do_not_mix() -> None:
    [problem] = read({"broker_url": "sentinel://a;redis://b"}).problems

    assert "only be sentinels" in str(problem)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "set 'master_name' in broker_transport_options"),
        ({"master_name": 5}, "set 'master_name'"),
        ({**OPTIONS, "sentinel_kwargs": "x"}, "sentinel_kwargs: expected a dict"),
        (
            {**OPTIONS, "sentinel_kwargs": {"pasword": SECRET}},
            "no option 'pasword'; did you mean 'password'",
        ),
        ({**OPTIONS, "min_other_sentinels": "x"}, "min_other_sentinels"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        Address(f"sentinel://:{ENCODED}@h", options, False)

    assert words in str(raised.value)
    assert SECRET not in str(raised.value)
    assert ENCODED not in str(raised.value)


def test_sentinels_have_logins_tls_and_time_outs_of_their_own() -> None:
    given = {"password": "theirs", "ssl": True, "ssl_cert_reqs": "CERT_NONE"}

    address = Address("sentinel://:ours@h", {**OPTIONS, "sentinel_kwargs": given}, {})

    [(_, client)] = address.pool.connection_kwargs["sentinels"]._clients
    kwargs = client.get_connection_kwargs()
    assert kwargs["password"] == "theirs"
    assert kwargs["ssl_cert_reqs"] == 0
    assert 0 < kwargs["socket_timeout"] <= 1
    assert 0 < kwargs["socket_connect_timeout"] <= 1
    assert address.pool.connection_kwargs["password"] == "ours"


def test_inspect_tells_of_sentinels_as_kombu_does() -> None:
    written = f"sentinel://:{ENCODED}@h1:1/2;sentinel://:{ENCODED}@h2"
    settings = read({"broker_url": written, "broker_transport_options": OPTIONS})

    ours = broker_of(settings.settings)

    theirs = CONNECTION(written).info()
    for name in ("hostname", "port", "virtual_host", "transport"):
        assert ours[name] == theirs[name]
    assert ours["alternates"] == ["sentinel://:***@h2"]


# Who is asked, and who is left


def test_messages_go_to_whichever_server_is_the_master(
    pair: tuple[Server, Server], sentinel: Sentinel, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    with closing(broker(url(sentinel))) as ours, caplog.at_level(logging.WARNING):
        ours.send([outgoing(b"1")])
        point(sentinel, second)

        def goes_to_the_second() -> bool:
            ours.send([outgoing(b"2")])
            return bool(lying_at(second))

        # The first one still takes everything: only the sentinel knows.
        eventually(goes_to_the_second)
        went_to_the_first = lying_at(first)
        ours.send([outgoing(b"3")])

    assert lying_at(second) == [b"2", b"3"]
    assert lying_at(first) == went_to_the_first
    [line] = [one.getMessage() for one in caplog.records]
    assert f"{place(second)} now, no longer {place(first)}" in line


def test_a_first_answer_is_believed_for_a_second(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    first, second = pair
    clock = FakeClock()
    sentinels = Sentinels([place(sentinel)], NAME, ONCE, clock=clock)
    found = [sentinels.find()]
    point(sentinel, second)
    clock.passed += FRESH - 1
    found.append(sentinels.find())
    clock.passed += 1
    found.append(sentinels.find())
    point(sentinel, first)
    sentinels.doubt()
    found.append(sentinels.find())
    point(sentinel, second)
    sentinels.ask_again()
    found.append(sentinels.find())

    assert found == [*map(place, (first, first, second, first, second))]
    sentinels.close()


def test_a_new_term_begins_with_a_question_to_the_sentinels(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    _, second = pair
    with closing(broker(url(sentinel))) as ours:
        ours.ping()
        eventually(lambda: _lead_before(ours, sentinel, second))

        assert ours.leader() is None  # nobody leads at the second one


def _lead_before(ours: RedisBroker, sentinel: Sentinel, second: Server) -> bool:
    """Take the lead, and have another server be the master at that moment."""
    lead(ours)
    point(sentinel, second)
    return True


def test_while_no_sentinel_answers_the_master_is_believed_until_it_fails(
    pair: tuple[Server, Server], sentinel: Sentinel, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    sentinels = Sentinels([place(sentinel)], NAME, ONCE, clock=clock)
    master = sentinels.find()
    sentinel.kill()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.passed += MINUTE
            assert sentinels.find() == master
    sentinels.doubt()

    with pytest.raises(NoMaster, match="does not answer"):
        sentinels.find()
    assert len(caplog.records) == 1
    sentinels.close()


def test_a_sentinel_that_is_away_is_passed_over(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    with Sentinel(pair[0].port) as away, closing(broker(url(away, sentinel))) as ours:
        away.kill()

        ours.send([outgoing(b"1")])

    assert lying_at(pair[0]) == [b"1"]


def test_a_replica_that_a_sentinel_takes_for_the_master_is_not_used(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    first, second = pair
    with Sentinel(second.port) as late, closing(broker(url(late, sentinel))) as ours:
        with second.client() as client:
            client.replicaof("127.0.0.1", first.port)
            eventually(lambda: client.execute_command("ROLE")[3] == b"connected")

        with pytest.raises(BrokerUnavailable, match="is no master"):
            ours.leader()
        ours.send([outgoing(b"1")])

    assert lying_at(first) == [b"1"]


def test_a_master_that_became_a_replica_is_left_at_once(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    first, second = pair
    with closing(broker(url(sentinel))) as ours:
        ours.send([outgoing(b"1")])
        with first.client() as client:
            client.replicaof("127.0.0.1", second.port)
            point(sentinel, second)
            with pytest.raises(BrokerRefused, match="read-only"):
                ours.send([outgoing(b"2")])

            ours.send([outgoing(b"2")])

    assert lying_at(second) == [b"2"]


def test_who_waits_for_messages_hears_of_those_at_the_new_master(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    _, second = pair
    with closing(broker(url(sentinel))) as ours:
        assert not ours.await_message(["celery"], 0)
        point(sentinel, second)
        ours._server.ask_again()
        ours.leader()
        with second.client() as client:
            client.lpush("celery", b"1")

        assert ours.await_message(["celery"], MINUTE)
        ours.join("w", MINUTE)
        assert messages(take_all(ours, "w", ["celery"])) == [b"1"]


def test_sentinels_and_their_master_are_spoken_to_by_tls(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path, "server")
    with ExitStack() as stack:
        master = stack.enter_context(tls(pair[0].port, certificate))
        # It speaks no TLS itself, and does not find out within this test.
        sentinel = stack.enter_context(Sentinel(master))
        there = stack.enter_context(tls(sentinel.port, certificate))
        of_ours = {"ssl_ca_certs": str(certificate)}
        ours = RedisBroker(
            f"sentinel://localhost:{there}",
            namespace="test",
            options={**OPTIONS, "sentinel_kwargs": {"ssl": True, **of_ours}},
            # It names the master by a number, of which the certificate knows nothing.
            tls={**of_ours, "ssl_check_hostname": False},
        )
        stack.enter_context(closing(ours))

        ours.send([outgoing(b"1")])

        strict = broker(f"sentinel://localhost:{there}", sentinel_kwargs={"ssl": True})
        assert "certificate verify failed" in words_of(strict)[1]

    assert lying_at(pair[0]) == [b"1"]


# What is said


def words_of(ours: RedisBroker) -> tuple[type, str]:
    with closing(ours), pytest.raises(BrokerUnavailable) as raised:
        ours.ping()
    assert SECRET not in str(raised.value)
    assert ENCODED not in str(raised.value)
    return type(raised.value), str(raised.value)


def test_an_unknown_name_is_told_with_the_names_that_there_are(
    sentinel: Sentinel,
) -> None:
    kind, words = words_of(broker(url(sentinel), master_name="other"))

    assert kind is BrokerRefused
    assert f"'other': {place(sentinel)} knows no master of that name" in words
    assert repr(NAME) in words


def test_sentinels_that_do_not_answer_are_named(sentinel: Sentinel) -> None:
    sentinel.kill()

    kind, words = words_of(broker(url(sentinel, login=f":{ENCODED}@")))

    assert kind is BrokerUnavailable
    assert f"{place(sentinel)} does not answer" in words


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "wants a password: put it into sentinel_kwargs"),
        ({"password": SECRET}, "correct sentinel_kwargs"),
    ],
)
def test_the_password_of_a_sentinel_is_not_that_of_a_server(
    pair: tuple[Server, Server], given: dict[str, str], words: str
) -> None:
    with Sentinel(pair[0].port, requirepass="theirs") as guarded:
        right = {"password": "theirs"}
        with closing(broker(url(guarded), sentinel_kwargs=right)) as ours:
            ours.ping()
        wrong = broker(url(guarded, login=":theirs@"), sentinel_kwargs=given)

        kind, said = words_of(wrong)

    assert kind is BrokerRefused
    assert f"{place(guarded)} " in said
    assert words in said


def test_sentinels_and_servers_have_a_password_each(
    pair: tuple[Server, Server],
) -> None:
    with (
        Sentinel(pair[0].port, requirepass="theirs") as guarded,
        pair[0].configured("requirepass", SECRET),
        closing(
            broker(
                url(guarded, login=f":{ENCODED}@"),
                sentinel_kwargs={"password": "theirs"},
            )
        ) as ours,
    ):
        ours.send([outgoing(b"1")])

    assert lying_at(pair[0]) == [b"1"]


def test_the_password_of_a_server_is_named_as_that(sentinel: Sentinel) -> None:
    _, words = words_of(broker(url(sentinel, login=f":{ENCODED}@")))

    assert "correct broker_url" in words
    assert "sentinel_kwargs" not in words


def test_a_server_that_is_no_sentinel_is_told_from_one(
    pair: tuple[Server, Server],
) -> None:
    _, words = words_of(broker(f"sentinel://127.0.0.1:{pair[0].port}"))

    assert "is no sentinel, but a server" in words


def test_a_sentinel_that_knows_too_few_others_is_not_believed(
    sentinel: Sentinel,
) -> None:
    _, words = words_of(broker(url(sentinel), min_other_sentinels=1))

    assert "knows 0 other sentinels, and min_other_sentinels is 1" in words


def test_errors_that_only_a_change_of_settings_ends_are_refusals(
    sentinel: Sentinel,
) -> None:
    sentinels = Sentinels([place(sentinel)], "other", ONCE)

    with pytest.raises(SentinelRefused):
        sentinels.find()
    sentinels.close()


def test_a_sentinel_is_no_server(sentinel: Sentinel) -> None:
    ours = RedisBroker(f"redis://127.0.0.1:{sentinel.port}", namespace="test")

    with closing(ours), pytest.raises(ConfigError, match="write sentinel://"):
        ours.leader()


def test_a_fail_over_that_would_lose_or_hang_is_a_risk(sentinel: Sentinel) -> None:
    with closing(broker(url(sentinel))) as ours:
        risks = " ".join(ours.risks())

    assert "min-replicas-to-write is 0" in risks
    assert "1 sentinel in all" in risks


# Beside Celery


def test_what_kombu_sends_by_sentinels_is_taken(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    with CONNECTION(url(sentinel), transport_options=OPTIONS) as theirs:
        theirs.SimpleQueue("celery").put({"x": 1})

    with closing(broker(url(sentinel))) as ours:
        ours.join("w", MINUTE)
        [delivery] = take_all(ours, "w", ["celery"])

    assert b'"body"' in delivery.message


def test_results_are_kept_at_the_master(
    pair: tuple[Server, Server], sentinel: Sentinel
) -> None:
    first, second = pair
    written = {
        "result_backend": url(sentinel, login=""),
        "result_backend_transport_options": OPTIONS,
    }
    backend = connect_results(read(written).settings)
    backend.store([Meta("1", State.SUCCESS, 5)])
    with first.client() as client:
        client.replicaof("127.0.0.1", second.port)
        point(sentinel, second)
        with pytest.raises(ResultUnavailable, match="read-only"):
            backend.store([Meta("2", State.SUCCESS, 6)])
    backend.store([Meta("2", State.SUCCESS, 6)])

    theirs = Celery(backend=url(sentinel), set_as_current=False)
    theirs.conf.result_backend_transport_options = OPTIONS
    assert theirs.AsyncResult("2").result == 6
    backend.close()


# Replicas that have to acknowledge


def test_an_emission_that_no_replica_has_is_sent_again_and_queued_once(
    pair: tuple[Server, Server],
) -> None:
    first, second = pair
    ours = RedisBroker(first.url(), namespace="test", min_replicas=1)
    term = lead(ours)
    assert any("beat_min_replicas is 1" in risk for risk in ours.risks())
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="0 replicas acknowledged"):
            ours.emit(term, [emission("a")], MINUTE)
    with second.client() as client:
        client.replicaof("127.0.0.1", first.port)
        eventually(lambda: client.execute_command("ROLE")[3] == b"connected")

        def emitted() -> list[Emitted]:
            with suppress(BrokerUnavailable):  # a busy replica takes its time
                return ours.emit(term, [emission("a"), emission("b")], MINUTE)
            return []

        assert eventually(emitted)[0] is Outcome.KNOWN
        assert client.llen("celery") == 2
    assert not any("beat_min_replicas" in risk for risk in ours.risks())
    ours.close()


def test_only_who_asks_for_replicas_waits_for_them(pair: tuple[Server, Server]) -> None:
    first, _ = pair
    ours = RedisBroker(first.url(), namespace="test")
    term = lead(ours)
    with first.client() as client:
        client.config_resetstat()
        ours.emit(term, [emission("a")], MINUTE)
        calls = {
            name.removeprefix("cmdstat_"): row["calls"]
            for name, row in client.info("commandstats").items()
        }

    asked = {"evalsha": 1, "eval": 1, "wait": 0, "role": 0, "info": 0}
    assert {name: calls.get(name, 0) for name in asked} in (
        asked,
        {**asked, "eval": 0},
    )
    ours.close()


# A cluster


def test_a_cluster_is_refused_at_the_start_with_what_to_set() -> None:
    with Server(**{"cluster-enabled": "yes"}) as server, ExitStack() as stack:
        plain = RedisBroker(server.url(), namespace="test")
        stack.enter_context(closing(plain))
        with pytest.raises(ConfigError, match=r"'global_keyprefix': '\{beatd\}'"):
            plain.acquire("me", MINUTE, 0)
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok")
        tagged = RedisBroker(
            server.url(), namespace="test", options={"global_keyprefix": "{beatd}"}
        )
        stack.enter_context(closing(tagged))

        outcomes = tagged.emit(lead(tagged), [emission("a")], MINUTE)

        assert outcomes == [Outcome.QUEUED]
        tagged.join("w", MINUTE)
        assert len(take_all(tagged, "w", ["celery"])) == 1
