"""Who is told: dead-man's switches, commands and functions, beside all else."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from beatd.alerts.courier import MOST_WAITING, RESTS, SLOW, Courier, Parcel
from beatd.alerts.event import ENDED, FAILING, STARTED, Event
from beatd.alerts.ways import MOST_ABANDONED, Limited, NotTold
from beatd.clock import SystemClock
from beatd.config.settings import AlertKind
from beatd.instant import MINUTE, SECOND, Span
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.pulse import Pulse
from beatd.schedules.interval import Every
from tests.alerts.making import UTC, FakeResults, desk_of, live, rules
from tests.commands import gone
from tests.fakes import NOON, FakeClock, FlakyBroker, entry, scheduler_of
from tests.servers import eventually

SECRET = "7c1f0a5e-secret"


class Site:
    """A server of dead-man's switches; `hold` is waited for before each answer."""

    def __init__(self) -> None:
        self.heard: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                site.heard.put((self.path, body.decode()))
                site.hold.wait()
                self.send_response(site.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def paths(self) -> list[str]:
        """Return what was called since the last time."""
        found = []
        while not self.heard.empty():
            found.append(self.heard.get()[0].replace(SECRET, "S"))
        return found

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def event(kind: str = AlertKind.FAILED, name: str = "tick", at: int = NOON) -> Event:
    return Event(str(kind), name, at, f"it {kind}", NOON, "id-1", 3, "why")


def courier(
    clock: FakeClock | None = None, timeout: Span = 5 * SECOND, **written: Any
) -> Courier:
    return Courier(
        rules(**written), "shop", UTC, timeout, clock or FakeClock(), Pulse()
    )


def deliver(found: Courier) -> None:
    """Deliver until nothing waits, whatever time that takes."""
    clock = found._clock
    assert isinstance(clock, FakeClock)
    while (rest := found.turn()) is not None:
        clock.go_to(clock.now() + rest)


# Pings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (STARTED, ["/S/start"]),
        (ENDED, ["/S"]),
        (FAILING, ["/S/fail"]),
        (AlertKind.FAILED, ["/S/fail"]),
        (AlertKind.MISSED, ["/S/fail"]),
        (AlertKind.NOT_TAKEN, ["/S/fail"]),
        (AlertKind.TOO_LONG, ["/S/fail"]),
        (AlertKind.PAUSED, ["/S/fail"]),
        (AlertKind.LATE, []),
        (AlertKind.RECOVERED, []),
    ],
)
def test_a_dead_mans_switch_is_called_as_these_services_take_it(
    site: Site, kind: str, path: list[str]
) -> None:
    found = courier(ping=site.url)
    found.put(event(kind))
    deliver(found)

    assert site.paths() == path


def test_a_ping_says_what_happened(site: Site) -> None:
    found = courier(ping=site.url)
    found.put(event())
    deliver(found)

    assert site.heard.get()[1] == "tick: it failed"


def test_a_query_stays_behind_the_path(site: Site) -> None:
    found = courier(ping=f"{site.url}?create=1")
    found.put(event())
    deliver(found)

    assert site.paths() == ["/S/fail?create=1"]


def test_addresses_of_other_services_are_called_as_they_are_written(
    site: Site,
) -> None:
    found = courier(ping={"ok": f"{site.url}?status=up", "fail": f"{site.url}?s=down"})
    for kind in (STARTED, ENDED, AlertKind.FAILED):
        found.put(event(kind))
    deliver(found)

    assert site.paths() == ["/S?status=up", "/S?s=down"]


def test_a_ping_that_fails_is_tried_again_in_order_and_then_given_up(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    found = courier(ping=site.url)
    site.status = 500
    found.put(event())
    found.put(event(ENDED))
    assert found.turn() == RESTS[0]
    site.status = 200
    deliver(found)
    assert site.paths() == ["/S/fail", "/S/fail", "/S"]

    site.status = 404
    found.put(event())
    deliver(found)
    assert site.paths() == ["/S/fail"] * (1 + len(RESTS))
    assert found._pulse.alerts_failed == 1
    assert "could not be told by fail, after 6 tries" in caplog.text
    assert "status 404" in caplog.text
    assert "http://127.0.0.1" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/{}", "http://nowhere.invalid/{}", "https://127.0.0.1:1"]
)
def test_no_error_shows_the_address(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    found = courier(ping=url.format(SECRET))
    found.put(event())
    deliver(found)

    assert "alert.untold" in [getattr(one, "event", "") for one in caplog.records]
    assert SECRET not in caplog.text


# Commands ----------------------------------------------------------------------------

WRITES = """
import json, os, sys
told = json.load(sys.stdin)
own = {key: value for key, value in os.environ.items() if key.startswith("BEATD_")}
open(sys.argv[1], "w").write(json.dumps([told, own]))
"""


def test_a_command_gets_the_event_on_its_input_and_in_variables(tmp_path: Path) -> None:
    path = tmp_path / "told"
    found = courier(command=[sys.executable, "-c", WRITES, str(path)])
    found.put(event())
    deliver(found)

    told, own = json.loads(path.read_text())
    assert told == {
        "schema": "beatd.alert/1",
        "kind": "failed",
        "entry": "tick",
        "text": "tick: it failed",
        "at": "2027-01-15T12:00:00+00:00",
        "at_ts": NOON / SECOND,
        "slot": "2027-01-15T12:00:00+00:00",
        "slot_ts": NOON / SECOND,
        "task_id": "id-1",
        "number": 3,
        "reason": "why",
        "namespace": "shop",
    }
    assert own["BEATD_ALERT"] == "failed"
    assert own["BEATD_ENTRY"] == "tick"
    assert own["BEATD_TEXT"] == "tick: it failed"
    assert own["BEATD_SLOT"] == told["slot"]
    assert own["BEATD_NUMBER"] == "3"


def test_a_command_is_told_of_alerts_only() -> None:
    found = courier(command=["false"])
    for kind in (STARTED, ENDED, FAILING):
        found.put(event(kind))

    assert found.waiting(9) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "no-such-program: it cannot be started: No such file"),
        (["sh", "-c", "echo no luck; exit 3"], "sh: it ended with status 3: no luck"),
        (["sh", "-c", "kill -9 $$"], "sh: it ended with signal 9"),
    ],
)
def test_a_command_that_fails_is_said_with_what_it_printed(
    command: list[str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = courier(command=command)
    found.put(event())
    deliver(found)

    assert words in caplog.text


def test_a_command_is_tried_again_while_no_file_can_be_made_for_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    found = courier(command=["true"])

    with pytest.raises(NotTold, match="true: what it prints cannot be kept: No such"):
        found.deliver(Parcel("command", event()))


def test_what_a_command_prints_fills_no_disk() -> None:
    blocks = "$(stat -L -c %b /proc/self/fd/2)"  # of the file that has its output
    script = (
        "head -c 20000000 /dev/zero;"
        f" until [ {blocks} -lt 2000 ]; do sleep 0.1; done; echo the end; exit 1"
    )
    found = courier(timeout=30 * SECOND, command=["sh", "-c", script])

    with pytest.raises(NotTold, match=r"it ended with status 1: .*the end"):
        found.deliver(Parcel("command", event()))


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {path}; echo $$ >> {path}; wait"
    for timeout in (SECOND, 10 * SECOND, MINUTE):  # it may be long in starting
        found = courier(timeout=timeout, command=["sh", "-c", script])
        with pytest.raises(NotTold, match="it was killed"):
            found.deliver(Parcel("command", event()))
        if path.exists() and len(path.read_text().split()) == 2:
            break

    child, shell = map(int, path.read_text().split())
    assert gone(shell)
    eventually(lambda: gone(child), "the end of what it started")


# Functions ---------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    (tmp_path / "on_call.py").write_text(
        "import threading\n"
        "heard, hold = [], threading.Event()\n"
        "def page(alert): heard.append(alert)\n"
        "def fails(alert): raise ValueError('password=x ' + alert['kind'])\n"
        "def leaves(alert): raise SystemExit(3)\n"
        "class Odd(Exception):\n"
        "    def __str__(self): raise ValueError\n"
        "def odd(alert): raise Odd\n"
        "def hangs(alert): heard.append(alert); hold.wait()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import on_call  # type: ignore[import-not-found]  # written above

    yield vars(on_call)
    on_call.hold.set()
    del sys.modules["on_call"]


def test_a_function_gets_the_event_as_a_dict(module: Mapping[str, Any]) -> None:
    found = courier(function="on_call.page")
    found.put(event())
    deliver(found)

    [told] = module["heard"]
    assert (told["kind"], told["entry"], told["number"]) == ("failed", "tick", 3)


def test_a_function_that_raises_is_said_without_secrets(
    module: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    found = courier(function="on_call:fails")
    found.put(event())
    deliver(found)

    assert "on_call.fails: it raised ValueError: password=***" in caplog.text


@pytest.mark.parametrize(
    ("name", "words"), [("leaves", "SystemExit: 3"), ("odd", "Odd: no reason given")]
)
def test_a_function_that_raises_anything_keeps_nobody_from_being_told(
    site: Site,
    module: Mapping[str, Any],
    name: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = courier(function=f"on_call.{name}", ping=site.url)
    found.put(event())
    deliver(found)

    assert f"on_call.{name}: it raised {words}" in caplog.text
    assert site.paths() == ["/S/fail"]


@pytest.mark.parametrize("name", ["on_call.nobody", "no_module.f", "on_call.heard"])
def test_a_function_that_is_not_there_is_said(
    name: str, module: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    found = courier(function=name)
    found.put(event())
    deliver(found)

    assert f"{name}: it " in caplog.text


def test_functions_that_hang_are_abandoned_up_to_a_number(
    module: Mapping[str, Any],
) -> None:
    limited = Limited()
    for _ in range(MOST_ABANDONED):
        with pytest.raises(NotTold, match="it is abandoned"):
            limited.call(lambda: module["hangs"]({}), 1)

    with pytest.raises(NotTold, match="8 earlier calls hang"):
        limited.call(lambda: None, MINUTE)
    module["hold"].set()
    for thread in limited._abandoned:
        thread.join()
    limited.call(lambda: None, MINUTE)


# Never in the way --------------------------------------------------------------------


def test_more_than_may_wait_are_dropped_counted_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = courier(command=["true"])
    for number in range(10_000):
        found.put(event(at=NOON + number))

    assert found._pulse.alerts_dropped == 10_000 - MOST_WAITING
    assert found._pulse.alerts_waiting == MOST_WAITING
    assert len(found.waiting(MOST_WAITING + 1)) == MOST_WAITING
    assert caplog.text.count("as 1000 wait to be told already") == 1


def test_a_target_that_fails_holds_up_no_other(site: Site) -> None:
    found = courier(command=["false"], ping=site.url)
    for number in range(3):
        found.put(event(at=NOON + number))
    found.turn()
    found.turn()
    found.turn()

    assert site.paths() == ["/S/fail"] * 3
    assert [one.way for one in found.waiting(9)] == ["command"] * 3


def test_many_targets_that_hang_at_one_host_hold_up_no_other(
    site: Site, tmp_path: Path
) -> None:
    """By the clock of the machine: one of them is tried a turn, and all that do not."""
    site.hold.clear()
    told = tmp_path / "told"
    clock, timeout = SystemClock(), SLOW + SECOND // 5
    rule = rules(ping=site.url, command=["touch", str(told)])
    found = Courier(rule, "shop", UTC, timeout, clock, Pulse())
    for number in range(20):
        found.put(event(ENDED, f"entry-{number}"))
    found.put(event(AlertKind.FAILED))
    found.turn()

    assert told.exists()
    assert site.paths() == ["/S"]

    found.turn()

    assert site.paths() == ["/S"]
    assert [one.event.entry for one in found.waiting(99) if one.tries] == [
        "entry-0",
        "entry-1",
    ]


def test_a_target_that_hangs_delays_no_emission(site: Site) -> None:
    """By the clock of the machine: the loop does not wait for what hangs."""
    site.hold.clear()
    clock = FakeClock(NOON + 1)
    broker = FlakyBroker(clock)
    scheduler: Scheduler = scheduler_of(
        entry("tick", Every(SECOND)), broker=broker, clock=clock
    )
    results = FakeResults()
    desk = desk_of(scheduler, rules(ping=site.url), results)
    crashed: list[BaseException] = []
    desk.courier.start(crashed.append)
    try:
        real, longest = SystemClock(), 0
        live(scheduler, desk, NOON + 20 * SECOND)
        assert site.heard.get(timeout=60)[0] == f"/{SECRET}/start"  # it hangs now
        while clock.now() < NOON + 3 * MINUTE:
            before = real.elapsed()
            scheduler.tick(clock.now())
            longest = max(longest, real.elapsed() - before)
            clock.go_to(clock.now() + SECOND)
        assert longest < 5 * SECOND  # the time-out of a ping is 10 s
        assert len(broker.slots()) > 170
        assert site.heard.empty()
        assert crashed == []
    finally:
        desk.courier.leave()
        site.hold.set()


def test_a_courier_delivers_in_its_thread(site: Site) -> None:
    found = Courier(
        rules(ping=site.url), "shop", UTC, 5 * SECOND, SystemClock(), Pulse()
    )
    crashed: list[BaseException] = []
    found.start(crashed.append)
    try:
        for kind in (STARTED, ENDED):
            found.put(event(kind))
            assert site.heard.get(timeout=60)[1] == f"tick: it {kind}"
    finally:
        found.leave()
    assert crashed == []
