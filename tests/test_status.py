"""How a scheduler is, as data; what is wrong, in words; who is told of it, and how."""

import json
import os
import socket
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from beatd.brokers.items import Overview
from beatd.clock import SystemClock
from beatd.config.loading import Config, Wanted, load
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.instant import HOUR, MINUTE, SECOND, Instant, Span
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from beatd.service.clocks import ClockWatch
from beatd.service.facts import Published
from beatd.service.http import LONGEST_REQUEST, Answer, Server
from beatd.service.look import Looker, made_at
from beatd.service.offline import offline_status
from beatd.service.rereading import Taken, taken_from
from beatd.service.site import PATIENCE, Site, document_of
from beatd.service.snapshot import Place, Reporter, queues_of
from beatd.service.sockets import (
    LONGEST_PATH,
    Link,
    TCPListener,
    UnixListener,
    listeners_of,
    passed_by,
)
from beatd.service.status import Status, judged, status_of
from tests.brokers.making import CELERY, outgoing
from tests.fakes import FakeClock, FlakyBroker, entry, scheduler_of
from tests.servers import eventually

MAX_LATE: Span = 10 * SECOND


class Bench:
    """A scheduler and what answers questions about it, without any thread."""

    def __init__(self, clock: FakeClock, broker: FlakyBroker, *names: str) -> None:
        entries = [entry(name, Every(SECOND)) for name in names or ["tick"]]
        self.clock, self.broker = clock, broker
        self.scheduler = scheduler_of(*entries, broker=broker, clock=clock)
        self.published = Published.from_now_on(self.scheduler)
        self.looker = Looker(broker, lambda: ["celery"], clock)
        taken = Taken(entries, [], [], [], [], "UTC", {})
        place = Place("shop", "/none/file", "test", "memory://", MAX_LATE)
        self.clocks = clocks = ClockWatch(broker, clock)
        self.reporter = Reporter(
            place, self.published, self.looker, clocks, clock, taken, clock.now()
        )

    def turn(self, scheduler: Scheduler | None = None) -> None:
        """Have the loop turn once, and the broker looked at."""
        scheduler = scheduler or self.scheduler
        scheduler.tick(self.clock.now())
        self.published.publish(scheduler)
        self.looker.last = self.looker.look()

    def after(self, length: Span) -> None:
        self.clock.go_to(self.clock.now() + length)

    def status(self) -> Status:
        return self.reporter.status()[0]

    def kinds(self) -> list[str]:
        """Return what makes it unhealthy."""
        return [one.kind for one in self.status().problems if one.unhealthy]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bench(clock: FakeClock) -> Bench:
    bench = Bench(clock, FlakyBroker(clock))
    bench.broker.join("w", HOUR, ["celery"])
    return bench


def test_a_leader_is_healthy_and_says_what_it_does(bench: Bench) -> None:
    bench.turn()
    bench.after(SECOND)
    bench.turn()

    status = bench.status()

    assert (status.role, status.state, status.problems) == ("leader", "healthy", [])
    assert status.leader is not None
    assert (status.leader.name, status.leader.term) == ("here", 1)
    assert status.lag is not None
    assert (status.lag.emitted, status.lag.p99) == (1, 0)
    assert status.next is not None
    assert status.next.entry == "tick"
    assert [(one.name, one.length) for one in status.queues] == [("celery", 1)]
    assert [(one.name, [*one.queues]) for one in status.workers] == [("w", ["celery"])]
    assert status.config.digest == bench.scheduler.digest != ""


def test_what_has_not_begun_is_not_ready(bench: Bench) -> None:
    assert bench.kinds() == ["starting"]
    bench.broker.down = True
    bench.turn()
    assert bench.kinds() == ["starting"]

    bench.broker.down = False
    bench.turn()

    assert bench.kinds() == []


def test_a_standby_is_healthy_and_names_the_leader(bench: Bench) -> None:
    other = scheduler_of(
        entry("tick", Every(SECOND)), broker=bench.broker, clock=bench.clock
    )
    other.leadership.holder = "there"
    other.tick(bench.clock.now())

    bench.turn()
    bench.after(3 * SECOND)
    bench.turn()

    status = bench.status()
    assert (status.role, status.healthy) == ("standby", True)
    assert status.leader is not None
    assert (status.leader.name, status.leader.term) == ("there", 1)
    assert status.next is None  # that is the leader's to say


def test_who_waits_for_the_former_leader_of_a_broker_that_lost_all_is_no_standby(
    bench: Bench, clock: FakeClock
) -> None:
    other = scheduler_of(entry("tick", Every(SECOND)), broker=bench.broker, clock=clock)
    other.leadership.holder = "there"
    for _ in range(3):
        other.tick(clock.now())
        bench.turn()
        bench.after(SECOND)
    assert bench.status().role == "standby"

    bench.broker.lose_all()
    for _ in range(2):
        bench.turn()

        status = bench.status()
        assert (status.role, status.leader) == ("neither", None)
        bench.after(SECOND // 2)

    bench.after(MINUTE)
    bench.turn()
    assert bench.status().role == "leader"


def test_a_leader_names_who_stands_by_and_whose_entries_are_others(
    bench: Bench,
) -> None:
    bench.turn()
    for name, at in (("there", "tick"), ("yonder", "tock")):
        other = scheduler_of(
            entry(at, Every(SECOND)), broker=bench.broker, clock=bench.clock
        )
        other.leadership.holder = name
        other.tick(bench.clock.now())
    bench.after(2 * SECOND)
    bench.turn()

    status = bench.status()

    there, yonder = status.standbys
    assert (there.name, there.heard) == ("there", 2)
    assert there.digest == status.config.digest != yonder.digest
    assert status.state == "degraded"
    [problem] = status.problems
    assert problem.text == "yonder stands by with other entries: its log says which"
    assert problem.command.endswith("# on the host of the one that stands by")
    found = samples_of(bench)
    assert (found["beatd_standbys",], found["beatd_standbys_differing",]) == (2, 1)

    for _ in range(10):
        bench.after(2 * SECOND)
        bench.turn()

    assert bench.status().standbys == []


def test_of_many_standbys_with_other_entries_none_is_left_uncounted(
    bench: Bench,
) -> None:
    for number in range(5):
        bench.broker.stand_by(f"host-{number}", "others")
    bench.turn()

    status = bench.status()

    *_, last = status.problems
    assert last.text == "other entries as well: host-3, host-4"
    assert samples_of(bench)["beatd_standbys_differing",] == 5


def test_a_standby_that_leads_by_now_is_none(bench: Bench) -> None:
    other = scheduler_of(
        entry("tick", Every(SECOND)), broker=bench.broker, clock=bench.clock
    )
    other.leadership.holder = "there"
    other.tick(bench.clock.now())
    bench.turn()
    assert [one.name for one in bench.status().standbys] == ["here"]
    other.stop()

    bench.turn()

    status = bench.status()
    assert (status.role, status.standbys) == ("leader", [])


def test_a_standby_with_other_entries_is_degraded(bench: Bench) -> None:
    other = scheduler_of(
        entry("tock", Every(SECOND)), broker=bench.broker, clock=bench.clock
    )
    other.tick(bench.clock.now())
    bench.turn()

    status = bench.status()

    assert (status.state, status.healthy) == ("degraded", True)
    [problem] = status.problems
    assert (problem.kind, problem.command) == ("differs", "beatd check --broker")
    assert "nobody emits 'tick'" in problem.text


def test_a_loop_that_hangs_is_seen_by_who_asks(bench: Bench) -> None:
    bench.turn()
    bench.after(15 * SECOND)
    assert "loop" not in bench.kinds()
    assert answer(bench, "/livez")[0] == "200 OK"

    bench.after(SECOND)

    assert bench.kinds()[0] == "loop"
    words, about = answer(bench, "/livez")
    assert words == "503 Service Unavailable"
    assert about["loop_age"] == 16
    problem = bench.status().problems[0]
    assert "has not turned for 16 s" in problem.text
    assert problem.command.startswith(f"kill -USR1 {bench.published.pid}")


def test_a_slot_that_is_due_for_too_long_is_unhealthy(bench: Bench) -> None:
    bench.turn()
    bench.broker.down = True
    bench.after(SECOND)
    for _ in range(10):
        bench.turn()
        bench.after(SECOND)
    # Due for ten seconds by now, and not for longer.
    assert bench.kinds() == []
    assert [one.kind for one in bench.status().problems] == ["broker"]

    bench.after(SECOND)
    bench.turn()

    assert bench.kinds() == ["overdue"]
    status = bench.status()
    assert status.overdue is not None
    assert status.overdue.entry == "tick"
    assert status.problems[0].text == "tick is due for 11 s, and not emitted"
    assert not status.broker.answers
    assert status.broker.away_since_ts is not None

    bench.broker.down = False
    bench.turn()
    assert bench.kinds() == []
    assert bench.status().broker.away_since_ts is None


def test_an_entry_that_is_refused_is_unhealthy_and_named(bench: Bench) -> None:
    bench.turn()
    bench.broker.closed[CELERY.queue or ""] = "it is closed"
    bench.after(SECOND)
    bench.turn()
    bench.after(SECOND)
    bench.turn()

    problem = bench.status().problems[0]

    assert (problem.kind, problem.unhealthy) == ("refused", True)
    assert "tick is refused: " in problem.text
    assert "it is closed" in problem.text


def test_a_queue_with_messages_that_nobody_takes_is_unhealthy(bench: Bench) -> None:
    bench.broker.leave("w")
    bench.turn()
    assert bench.kinds() == []  # it is empty

    bench.broker.send([outgoing(b"1")])
    bench.turn()

    [problem] = bench.status().problems
    assert (problem.kind, problem.unhealthy) == ("not_taken", True)
    assert problem.text == "1 message lies in queue celery, and nobody takes from it"
    assert problem.command == "beatd worker -Q celery"
    bench.broker.join("w2", MINUTE, ["mail", "celery"])
    bench.turn()
    assert bench.kinds() == []


def test_workers_without_leases_are_asked_where_it_depends_on_them(
    bench: Bench,
) -> None:
    asked: list[Span] = []

    def ask() -> dict[str, list[str]]:
        asked.append(bench.clock.now())
        return {"celery@a": ["celery", "mail"]}

    bench.looker = Looker(bench.broker, lambda: ["celery"], bench.clock, ask)
    bench.reporter.looker = bench.looker
    bench.broker.send([outgoing(b"1")])
    bench.turn()
    assert asked == []  # one with a lease takes from it

    bench.broker.leave("w")
    bench.turn()
    bench.turn()
    assert len(asked) == 1
    assert bench.kinds() == []
    assert [[*one.workers] for one in bench.status().queues] == [["celery@a"]]

    bench.after(15 * SECOND)
    bench.turn()
    assert len(asked) == 2


def test_a_broker_that_does_not_answer_leaves_a_standby_unhealthy(bench: Bench) -> None:
    scheduler_of(
        entry("tick", Every(SECOND)), broker=bench.broker, clock=bench.clock
    ).tick(bench.clock.now())
    bench.turn()
    bench.broker.down = True
    bench.after(3 * SECOND)
    bench.turn()
    assert bench.kinds() == []

    bench.after(MAX_LATE)

    assert "broker" in bench.kinds()


def test_the_age_of_the_oldest_message_is_told_by_its_id() -> None:
    slot = 1_795_439_112_000
    id = f"{slot:012x}"
    made = json.dumps(
        {"properties": {"correlation_id": f"{id[:8]}-{id[8:]}-8abc-8def-0123456789ab"}}
    )

    assert made_at(made.encode()) == slot
    assert made_at(b'{"properties": {"correlation_id": "mine"}}') is None
    assert made_at(b"\xff") is None
    assert made_at(b"") is None


def test_a_snapshot_is_what_its_document_says(bench: Bench) -> None:
    bench.turn()
    status = bench.status()

    document = document_of(status)

    assert status_of(document) == msgspec.json.decode(
        msgspec.json.encode(status), type=Status
    )
    read = json.loads(document)
    assert (read["schema"], read["state"]) == ("beatd.status/1", "healthy")
    assert read["generated"].endswith("+00:00")
    assert read["loop"]["started_ts"] == bench.published.began / SECOND


def test_the_worst_comes_first(bench: Bench) -> None:
    bench.turn()
    status = msgspec.structs.replace(
        bench.status(), differs="nobody emits 'x'", role="none", leader=None
    )

    found = judged(status, MAX_LATE).problems

    assert [one.unhealthy for one in found] == [True, False]


# What is answered -------------------------------------------------------------------


def answer(bench: Bench, path: str, waited: Span = PATIENCE) -> tuple[str, Any]:
    found = Site(bench.reporter).respond(path, waited)
    assert found is not None
    return found.status, json.loads(found.body)


def test_who_asks_waits_for_a_fresh_look_at_the_broker(bench: Bench) -> None:
    bench.turn()
    bench.after(6 * SECOND)
    site = Site(bench.reporter)

    assert site.respond("/status", 0) is None
    assert site.respond("/livez", 0) is not None
    old = site.respond("/status", PATIENCE)
    assert old is not None
    bench.looker.last = bench.looker.look()
    assert site.respond("/status", 0) is not None


def test_readiness_says_what_is_wrong(bench: Bench) -> None:
    words, about = answer(bench, "/readyz")
    assert words == "503 Service Unavailable"
    assert about["problems"][0]["kind"] == "starting"

    bench.turn()

    words, about = answer(bench, "/readyz")
    assert (words, about["healthy"], about["role"]) == ("200 OK", True, "leader")


def samples_of(bench: Bench) -> dict[tuple[str, ...], float]:
    """Return the metrics by name and values of labels, as Prometheus reads them."""
    found = Site(bench.reporter).respond("/metrics", PATIENCE)
    assert found is not None
    assert (found.status, found.kind.partition(";")[0]) == (
        "200 OK",
        "application/openmetrics-text",
    )
    text = found.body.decode()
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # theirs
        for one in family.samples
    }


def test_metrics_say_what_it_does_and_how_late(bench: Bench) -> None:
    bench.turn()
    bench.after(SECOND + 40)
    bench.turn()
    bench.after(3 * SECOND)
    bench.turn()

    found = samples_of(bench)

    assert found["beatd_emitted_total",] == 2
    assert found["beatd_terms_total",] == 1
    assert found["beatd_healthy",] == found["beatd_broker_up",] == 1
    assert (found["beatd_role", "leader"], found["beatd_role", "standby"]) == (1, 0)
    assert found["beatd_lateness_seconds_count",] == 2
    assert found["beatd_lateness_seconds_sum",] == 0.08
    assert found["beatd_lateness_seconds_bucket", "0.032"] == 0
    assert found["beatd_lateness_seconds_bucket", "0.064"] == 2
    assert found["beatd_dropped_total", "tick", "coalesced"] == 2
    assert found["beatd_entries", "all"] == 1
    assert found["beatd_queue_length", "celery"] == 2
    assert found["beatd_queue_workers", "celery"] == 1
    assert found["beatd_loop_age_seconds",] == 0
    assert found["beatd_overdue_seconds",] == 0


def test_alerts_are_counted_and_those_that_reach_nobody_are_a_problem(
    bench: Bench,
) -> None:
    pulse = bench.scheduler.pulse
    pulse.alerts = {"late": 3, "failed": 1}
    pulse.alerts_waiting, pulse.alerts_dropped, pulse.alerts_failed = 2, 5, 1

    found = samples_of(bench)
    assert found["beatd_alerts_total", "late"] == 3
    assert found["beatd_alerts_waiting",] == 2
    assert found["beatd_alerts_dropped_total",] == 5
    assert found["beatd_alerts_failed_total",] == 1
    status, _ = bench.reporter.status()
    texts = [one.text for one in status.problems if one.kind == "alerts"]
    assert texts == [
        "1 alert could not be told: the log says why",
        "5 alerts lost, as too many waited to be told",
    ]
    assert status.alerts is not None
    assert (status.alerts.told, status.alerts.waiting) == (4, 2)


def test_a_clock_that_is_off_is_a_problem_and_no_reason_to_restart(
    bench: Bench,
) -> None:
    bench.turn()
    assert "beatd_clock_offset_seconds" not in {name for name, *_ in samples_of(bench)}
    bench.clocks.look()
    assert (bench.status().state, bench.status().clock_off) == ("healthy", 0)

    bench.clocks.off = -3600 * SECOND

    (problem,) = bench.status().problems
    assert bench.status().state == "degraded"
    assert problem.text.startswith("this host's clock is 3600.0 s behind the broker's:")
    assert "slots are emitted so much too late" in problem.text
    assert samples_of(bench)["beatd_clock_offset_seconds",] == -3600


def test_a_worker_that_died_takes_nothing(bench: Bench) -> None:
    bench.broker.leave("w")
    bench.broker.join("w1", 6 * SECOND, ["celery"])
    bench.broker.send([outgoing(b"1")])
    bench.after(SECOND)
    bench.turn()
    assert bench.kinds() == []

    bench.after(10 * SECOND)
    bench.turn()

    assert bench.kinds() == ["not_taken"]
    texts = [one.text for one in bench.status().problems if one.kind == "worker_lost"]
    assert texts == [
        "not heard of for longer than its lease: w1; it has died or is cut off, and"
        " what it holds is run by others once a worker runs"
    ]
    assert [one.lease_over for one in bench.status().workers] == [True]
    found = samples_of(bench)
    assert found["beatd_workers",] == found["beatd_queue_workers", "celery"] == 0


class OwnClock(FlakyBroker):
    """A broker on a host of its own."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.ahead: Span = 0

    def time(self) -> Instant:
        return super().time() + self.ahead


def test_a_clock_that_is_off_is_said_once_and_when_it_is_right_again(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = OwnClock(clock)
    watch = ClockWatch(broker, clock)
    caplog.set_level("INFO")
    for ahead in (2, 4, 5, 2, 1, -4):
        broker.ahead = ahead * SECOND
        watch.look()

    said = [vars(one)["event"] for one in caplog.records]
    assert said == ["clock.off", "clock.agrees", "clock.off"]
    assert "is 4.0 s behind the broker's" in caplog.messages[0]
    assert "is 4.0 s ahead of the broker's" in caplog.messages[2]


def test_metrics_name_only_entries_in_trouble_and_not_all_of_these(
    clock: FakeClock,
) -> None:
    bench = Bench(clock, FlakyBroker(clock), *(f"e{number}" for number in range(300)))
    bench.turn()
    assert not any("e1" in labels for labels in samples_of(bench))

    bench.broker.closed[CELERY.queue or ""] = "it is closed"
    bench.after(SECOND)
    bench.turn()
    bench.after(SECOND)
    bench.turn()

    found = samples_of(bench)
    named = {labels for labels in found if labels[0] == "beatd_entry_trouble"}
    assert (len(named), found["beatd_entries", "refused"]) == (10, 100)
    assert found["beatd_refused_total",] >= 300


def test_without_their_package_metrics_say_what_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "beatd.service.metrics", None)

    found = Site(bench.reporter).respond("/metrics", 0)

    assert found is not None
    assert found.status == "501 Not Implemented"
    assert b"pip install 'beatd[metrics]'" in found.body


def test_other_paths_are_told_which_there_are(bench: Bench) -> None:
    found = Site(bench.reporter).respond("/healthz", 0)

    assert found is not None
    assert found.status == "404 Not Found"
    assert b"/livez, /readyz, /status, /metrics" in found.body


def test_a_look_is_made_in_a_thread_and_only_when_it_is_asked_for() -> None:
    clock = SystemClock()
    broker = FlakyBroker(FakeClock())
    looker = Looker(broker, lambda: ["celery"], clock)
    looker.start(lambda error: None)
    assert looker.last is None

    assert looker.ask() == (None, False)

    eventually(lambda: looker.ask()[1], "a look")
    looker.leave()


def test_a_fault_in_a_look_is_said_and_the_next_one_is_made() -> None:
    class Faulty(FlakyBroker):
        def overview(self, queues: Collection[str]) -> Overview:
            raise ValueError("odd")

    looker = Looker(Faulty(FakeClock()), lambda: ["celery"], SystemClock())
    crashes: list[BaseException] = []
    looker.start(crashes.append)
    looker.ask()

    eventually(lambda: looker.ask()[1], "a look")

    assert looker.last is not None
    assert looker.last.reason == "a fault of beatd's own: ValueError('odd')"
    looker.leave()
    assert crashes == []


def test_workers_that_may_not_be_asked_are_not_known(bench: Bench) -> None:
    def ask() -> dict[str, list[str]]:
        raise BrokerRefused("no permission")

    bench.reporter.looker = Looker(bench.broker, lambda: ["celery"], bench.clock, ask)
    bench.looker = bench.reporter.looker
    bench.broker.leave("w")
    bench.broker.send([outgoing(b"1")])
    bench.turn()

    assert bench.status().broker.answers
    assert bench.kinds() == ["not_taken"]


# The server -------------------------------------------------------------------------


def respond(path: str, waited: Span) -> Answer | None:
    match path:
        case "/large":
            return Answer("200 OK", b"x" * 5_000_000)
        case "/slow":
            return Answer("200 OK", b"at last") if waited > 100 else None
        case "/bad":
            raise ValueError("a fault of ours")
    return Answer("200 OK", path.encode(), "text/plain")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "file.sock"


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    server = Server([UnixListener(place)], respond, SystemClock())
    crashes: list[BaseException] = []
    server.start(crashes.append)
    eventually(place.exists, "the socket")
    yield server
    server.stop()
    assert crashes == []


def connected(place: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)
    one.connect(str(place))
    return one


def read(one: socket.socket) -> bytes:
    came = b"".join(iter(lambda: one.recv(65536), b""))
    one.close()
    return came


def get(place: Path, path: str, method: str = "GET") -> bytes:
    one = connected(place)
    one.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return read(one)


@pytest.mark.usefixtures("server")
def test_a_question_that_fails_again_and_again_is_said_once_a_minute(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert get(place, "/bad").startswith(b"HTTP/1.1 500 ")

    said = [one for one in caplog.records if vars(one).get("event") == "http.failed"]
    assert [one.exc_info is not None for one in said] == [True]


@pytest.mark.usefixtures("server")
def test_a_question_is_answered_and_the_connection_ends(place: Path) -> None:
    head, _, body = get(place, "/this?x=1").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    assert body == b"/this"
    assert get(place, "/this", "HEAD").endswith(b"\r\n\r\n")
    assert len(get(place, "/large")) > 5_000_000
    assert get(place, "/slow").endswith(b"at last")


@pytest.mark.usefixtures("server")
def test_what_is_no_question_is_refused(place: Path) -> None:
    assert b" 405 " in get(place, "/this", "POST")
    assert b" 400 " in get(place, "this")
    assert b" 500 " in get(place, "/bad")
    for bad in (b"\x16\x03\x01\r\n\r\n", b"GET / SPDY/9\r\n\r\n", b"\xff\xfe\r\n\r\n"):
        one = connected(place)
        one.sendall(bad)
        assert b" 400 " in read(one)
    one = connected(place)
    one.sendall(b"x" * (LONGEST_REQUEST + 1))
    assert b" 431 " in one.recv(4096)
    one.close()


@pytest.mark.usefixtures("server")
def test_who_is_slow_keeps_nobody_waiting(place: Path) -> None:
    slow = [connected(place) for _ in range(20)]
    for one in slow:
        one.sendall(b"GET /th")
    deaf = connected(place)
    deaf.sendall(b"GET /large HTTP/1.1\r\n\r\n")

    assert get(place, "/this").endswith(b"/this")

    slow[0].sendall(b"is HTTP/1.0\r\n\r\n")
    assert read(slow[0]).endswith(b"/this")
    for one in [*slow[1:], deaf]:
        one.close()


@pytest.mark.usefixtures("server")
def test_many_connections_are_bounded_and_the_oldest_gives_way(place: Path) -> None:
    many = [connected(place) for _ in range(64)]
    # The system takes a few more than are accepted at once.
    assert get(place, "/this").endswith(b"/this")
    for one in many:
        one.close()


# Sockets ----------------------------------------------------------------------------


def test_the_socket_is_for_user_and_group_and_goes_with_its_process(
    place: Path,
) -> None:
    listener = UnixListener(place)
    [made] = listener.sockets()

    assert place.stat().st_mode & 0o777 == 0o660
    assert [*listener.sockets()] == [made]
    listener.close()
    assert [*place.parent.iterdir()] == []


def test_a_socket_that_was_left_behind_is_replaced(place: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(place))
    dead.close()

    listener = UnixListener(place)

    assert len(listener.sockets()) == 1
    connected(place).close()
    listener.close()


def test_where_another_one_listens_the_place_is_taken_when_that_one_goes(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = UnixListener(place), UnixListener(place)
    first.sockets()

    assert [*second.sockets()] == []
    assert [*second.sockets()] == []
    assert caplog.text.count("asks the other scheduler with this schedule file") == 1
    first.close()
    assert len(second.sockets()) == 1
    second.close()


def test_a_socket_that_is_taken_away_is_made_again(place: Path) -> None:
    listener = UnixListener(place)
    listener.sockets()
    place.unlink()

    assert len(listener.sockets()) == 1

    connected(place).close()
    listener.close()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_is_no_socket_is_left_as_it_is(
    place: Path, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make(place)
    listener = UnixListener(place)

    assert [*listener.sockets()] == []

    listener.close()
    assert place.exists()
    assert "is no socket, and left as it is" in caplog.text


def test_files_with_the_names_of_those_on_the_way_are_left_as_they_are(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = place.with_name(f".{os.getpid()}.sock")
    theirs.write_text("theirs")
    listener = UnixListener(place)

    assert [*listener.sockets()] == []

    assert theirs.read_text() == "theirs"
    assert "in use" in caplog.text


def test_a_path_that_is_too_long_is_said_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = UnixListener(tmp_path / ("x" * LONGEST_PATH))

    assert [*listener.sockets()] == []

    assert f"has more than {LONGEST_PATH} bytes" in caplog.text
    assert "--schedule-filename names a shorter one" in caplog.text


def test_in_a_runtime_directory_a_link_beside_the_file_leads_there(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    listeners = listeners_of(tmp_path / "file.db", [], [], f"{run}:/other")

    made = [one for listener in listeners for one in listener.sockets()]

    assert len(made) == 1
    assert (run / "beatd.sock").is_socket()
    connected(tmp_path / "file.db.sock").close()
    for listener in reversed(listeners):
        listener.close()
    assert [*run.iterdir()] == []
    assert not (tmp_path / "file.db.sock").is_symlink()


def test_a_link_that_cannot_be_made_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "file.db.sock"
    place.touch()
    link = Link(place, tmp_path / "beatd.sock")

    link.sockets()
    link.sockets()

    words = f"cannot ask this scheduler: {place} is no socket, and left as it is"
    assert caplog.text.count(words) == 1
    assert place.is_file()


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("9540", "127.0.0.1", 9540),
        (":9540", "127.0.0.1", 9540),
        ("localhost:1", "localhost", 1),
        ("0.0.0.0:9540", "0.0.0.0", 9540),
        ("[::1]:9540", "::1", 9540),
    ],
)
def test_addresses_of_http(written: str, host: str, port: int) -> None:
    listener = TCPListener.of(written)

    assert (listener.host, listener.port) == (host, port)


@pytest.mark.parametrize("written", ["", "x", "host:", "host:70000", "::1:80", "a:-1"])
def test_odd_addresses_of_http_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an address as 127\.0\.0\.1:9540"):
        TCPListener.of(written)


def test_an_address_that_cannot_be_had_is_said_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = TCPListener("127.0.0.1", 0)
    [made] = first.sockets()
    second = TCPListener("127.0.0.1", made.getsockname()[1])

    assert [*second.sockets()] == [*second.sockets()] == []
    assert caplog.text.count("cannot listen at 127.0.0.1") == 1
    first.close()
    assert len(second.sockets()) == 1
    second.close()


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "x", "LISTEN_FDS": "x", "LISTEN_FDNAMES": "a"},
    ],
)
def test_sockets_for_other_processes_are_not_taken(told: dict[str, str]) -> None:
    environ = {"A": "b", **told}

    assert passed_by(environ) == []
    assert environ == {"A": "b"}


# Without a scheduler ----------------------------------------------------------------


def config_of(folder: Path, text: str) -> Config:
    path = folder / "conf.py"
    path.write_text(text)
    return load(Wanted(config=str(path)))


HOURLY = """
beat_schedule = {
    "hourly": {"task": "t", "schedule": "0 * * * *"},
    "paused": {"task": "t", "schedule": 1, "enabled": False},
    "odd": {"task": "t", "schedule": "never"},
}
"""


def test_a_leader_elsewhere_is_judged_by_the_ledger(
    tmp_path: Path, clock: FakeClock
) -> None:
    config, broker = config_of(tmp_path, HOURLY), FlakyBroker(clock)
    other = scheduler_of(*config.entries, broker=broker, clock=clock, ttl=24 * HOUR)
    other.leadership.holder = "host-b pid 7"
    other.tick(clock.now())

    status = offline_status(config, None, broker, clock)

    assert (status.role, status.state) == ("none", "degraded")
    assert [one.kind for one in status.problems] == ["bad"]
    assert status.leader is not None
    assert status.leader.name == "host-b pid 7"
    assert status.next is not None
    assert status.next.entry == "hourly"
    entries = status.entries
    assert (entries.total, entries.paused, entries.over) == (3, 1, 0)
    assert status.source == "broker and state file"

    clock.go_to(clock.now() + HOUR + MAX_LATE + 1)
    status = offline_status(config, None, broker, clock)
    assert [one.kind for one in status.problems] == ["overdue", "bad"]
    assert not status.healthy


def test_a_worker_with_a_lease_that_answers_remote_control_is_counted_once(
    bench: Bench,
) -> None:
    bench.broker.join("celery@vm:7:ab12", HOUR, ["celery"])
    bench.turn()
    assert bench.looker.last is not None
    answers = {"celery@vm": ["celery"], "celery@other": ["celery"]}

    look = replace(bench.looker.last, others=answers)

    [queue] = queues_of(look, bench.clock.now())
    assert queue.workers == ["w", "celery@vm:7:ab12", "celery@other"]


TO_REPORTS = """
beat_schedule = {
    "daily": {"task": "t", "schedule": "@daily", "options": {"queue": "reports"}},
    "fan": {"task": "t", "schedule": "@daily", "options": {"exchange": "news"}},
}
"""


def test_a_queue_that_only_an_entry_names_is_looked_at(
    tmp_path: Path, clock: FakeClock
) -> None:
    config, broker = config_of(tmp_path, TO_REPORTS), FlakyBroker(clock)
    broker.send([outgoing(b"left", "reports")])

    status = offline_status(config, None, broker, clock)

    assert {one.name: one.length for one in status.queues} == {
        "reports": 1,
        "celery": 0,
    }
    assert "not_taken" in [one.kind for one in status.problems]
    assert taken_from(config).queue_names == ["celery", "reports"]


def test_a_leader_elsewhere_with_other_entries_is_named(
    tmp_path: Path, clock: FakeClock
) -> None:
    config, broker = config_of(tmp_path, HOURLY), FlakyBroker(clock)
    other = scheduler_of(entry("tick", Every(SECOND)), broker=broker, clock=clock)
    other.tick(clock.now())

    status = offline_status(config, None, broker, clock)

    assert "differs" in [one.kind for one in status.problems]
    assert "nobody emits 'hourly'" in status.differs


def test_nobody_leads_and_the_broker_is_away(tmp_path: Path, clock: FakeClock) -> None:
    config, broker = config_of(tmp_path, HOURLY), FlakyBroker(clock)
    assert [
        one.kind for one in offline_status(config, None, broker, clock).problems
    ] == ["no_scheduler", "bad"]

    class Away(FlakyBroker):
        def ping(self) -> str:
            raise BrokerUnavailable("nobody answers")

    status = offline_status(config, None, Away(clock), clock)

    assert [one.kind for one in status.problems if one.unhealthy] == [
        "no_scheduler",
        "broker",
    ]
    assert (status.source, status.broker.reason) == ("state file", "nobody answers")
