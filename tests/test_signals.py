"""Who is told of what happens, and what comes of it when they raise."""

import logging
from typing import Any

import pytest

import beatd
from beatd.signals import Signal
from beatd.tasks import Task

ADD: Task[..., Any] = Task(lambda x, y: x + y, name="shop.add")
PAY: Task[..., Any] = Task(lambda: None, name="shop.pay")


@pytest.fixture
def signal() -> Signal:
    return Signal("task_prerun")


class Ear:
    """A receiver that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def __call__(self, **heard: Any) -> None:
        self.heard.append(heard)


def test_a_receiver_gets_the_sender_the_signal_and_what_happened(
    signal: Signal,
) -> None:
    ear = Ear()
    signal.connect(ear)

    signal.send(ADD, task_id="an-id")

    assert ear.heard == [{"signal": signal, "sender": ADD, "task_id": "an-id"}]


def test_connect_is_a_decorator_with_and_without_arguments(signal: Signal) -> None:
    heard: list[str] = []

    @signal.connect
    def plain(**_: Any) -> None:
        heard.append("plain")

    @signal.connect(sender=ADD, weak=True)
    def picky(**_: Any) -> None:
        heard.append("picky")

    assert callable(plain)
    assert callable(picky)
    signal.send(ADD)
    assert heard == ["plain", "picky"]


@pytest.mark.parametrize("wanted", [ADD, "shop.add"], ids=["task", "name"])
def test_a_receiver_may_want_one_sender_only(signal: Signal, wanted: Any) -> None:
    ear = Ear()
    signal.connect(ear, sender=wanted)

    signal.send(PAY)
    signal.send(None)
    signal.send(ADD)

    assert [one["sender"] for one in ear.heard] == [ADD]


def test_a_receiver_that_raises_is_logged_and_keeps_nobody_from_hearing(
    signal: Signal, caplog: pytest.LogCaptureFixture
) -> None:
    ear = Ear()

    @signal.connect
    def bad(**_: Any) -> None:
        raise ValueError("no")

    signal.connect(ear)
    with caplog.at_level(logging.ERROR):
        signal.send(ADD)

    assert len(ear.heard) == 1
    (record,) = caplog.records
    assert record.__dict__["event"] == "signal.failed"
    assert "bad" in record.message
    assert "task_prerun" in record.message


def test_a_function_that_nobody_else_holds_stays_connected(signal: Signal) -> None:
    heard: list[Any] = []
    signal.connect(lambda sender, **_: heard.append(sender), weak=True)

    signal.send(ADD)

    assert heard == [ADD]


def test_a_receiver_is_connected_once(signal: Signal) -> None:
    ear, other = Ear(), Ear()
    signal.connect(ear)
    signal.connect(ear)
    signal.connect(ear, dispatch_uid="mine")
    signal.connect(other, dispatch_uid="mine")

    signal.send(ADD)

    assert (len(ear.heard), len(other.heard)) == (1, 1)


def test_who_disconnects_hears_no_more(signal: Signal) -> None:
    ear = Ear()
    signal.connect(ear, sender=ADD)

    assert signal.disconnect(ear) is False
    assert signal.disconnect(ear, sender=ADD) is True

    signal.send(ADD)
    assert ear.heard == []


def test_signals_are_found_without_an_import_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(beatd, "signals")  # as it is before anybody imports them

    assert beatd.signals.task_prerun.name == "task_prerun"
