"""Rules of alerts: how they are written, and which of them holds for an entry."""

from datetime import timedelta
from typing import Any

import pytest

from beatd.config.alert_rules import AlertRule, AlertRules
from beatd.config.loading import ConfigReport, examine_source
from beatd.config.settings import ALL_ALERTS, AlertKind, Ping
from beatd.config.source import Source
from beatd.instant import HOUR, SECOND
from beatd.worker.commands.shapes import settings_of

SECRET = "7c1f0a5e-secret"


def examined(entry: dict[str, Any] | None = None, **settings: Any) -> ConfigReport:
    """Return what is read of a config with the entries `tick` and `report-a`."""
    tick = {"task": "t", "schedule": 60, **(entry or {})}
    schedule = {"tick": tick, "report-a": {"task": "t", "schedule": 60}}
    results = "redis://localhost"
    written = {"beat_schedule": schedule, "result_backend": results, **settings}
    return examine_source(Source("conf", written))


def rules_in(entry: dict[str, Any] | None = None, **settings: Any) -> AlertRules:
    report = examined(entry, **settings)
    assert report.config is not None
    assert report.problems == []
    return report.config.alerts


def test_a_config_without_rules_has_none() -> None:
    rules = rules_in()

    assert not rules
    assert rules.of("tick") is None


def test_a_rule_without_keys_tells_all_to_the_log() -> None:
    rule = rules_in(beat_alerts={"*": {}}).of("tick")

    assert rule == AlertRule(ALL_ALERTS, 10 * SECOND, 1)
    assert rule is not None
    assert rule.ways == ["log"]


def test_later_globs_win_key_by_key_and_the_entry_wins_over_them() -> None:
    rules = rules_in(
        {"alerts": {"max_late": 3, "on": "late"}},
        beat_alerts={
            "*": {"failures": 2, "max_late": 1, "command": ["page"]},
            "t*": {"max_late": 2, "max_run": timedelta(hours=1)},
            "nobody": {"failures": 9},
        },
        beat_max_late=7,
    )

    assert rules.of("tick") == AlertRule(
        frozenset({AlertKind.LATE}),
        max_late=3 * SECOND,
        failures=2,
        max_run=HOUR,
        command=("page",),
    )
    other = rules.of("report-a")
    assert other is not None
    assert (other.max_late, other.kinds) == (SECOND, ALL_ALERTS)


def test_entries_that_match_the_same_globs_share_one_rule() -> None:
    rules = rules_in(beat_alerts={"*": {"failures": 2}, "report-*": {"failures": 3}})

    assert rules.of("report-a") is rules.of("report-b")
    assert rules.of("tick") is rules.of("tock")
    assert rules.of("tick") != rules.of("report-a")


def test_false_switches_off_what_was_said_before_it() -> None:
    rules = rules_in(
        {"alerts": False},
        beat_alerts={"*": {"failures": 2}, "report-*": False, "report-a": {}},
    )

    assert rules.of("tick") is None
    again = rules.of("report-a")
    assert again is not None
    assert again.failures == 1


def test_beat_max_late_is_the_default_of_max_late() -> None:
    rule = rules_in(beat_max_late=30, beat_alerts={"*": {}}).of("tick")

    assert rule is not None
    assert rule.max_late == 30 * SECOND


def test_an_entry_may_be_paused_without_alerts_of_other_kinds() -> None:
    rules = rules_in({"pause_after_failures": 3}, beat_pause_after_failures=5)

    tick, other = rules.of("tick"), rules.of("report-a")
    assert tick is not None
    assert other is not None
    assert (tick.pause_after, other.pause_after) == (3, 5)
    assert tick.kinds == other.kinds == {AlertKind.PAUSED}


def test_rules_may_have_entries_paused() -> None:
    written = {"*": {"pause_after_failures": 4}, "report-*": False}
    rules = rules_in(beat_alerts=written)

    tick = rules.of("tick")
    assert tick is not None
    assert (tick.pause_after, tick.kinds) == (4, ALL_ALERTS)
    assert rules.of("report-a") is None


@pytest.mark.parametrize(
    ("url", "start", "fail"),
    [
        ("https://h.io/u", "https://h.io/u/start", "https://h.io/u/fail"),
        ("https://h.io/u/", "https://h.io/u/start", "https://h.io/u/fail"),
        ("https://h.io/u?x=1", "https://h.io/u/start?x=1", "https://h.io/u/fail?x=1"),
    ],
)
def test_an_address_is_that_of_a_dead_mans_switch(
    url: str, start: str, fail: str
) -> None:
    rule = rules_in({"alerts": {"ping": url}}).of("tick")

    assert rule is not None
    assert rule.ping == Ping(start, url, fail)
    assert rule.ways == ["log", "ping https://h.io/***"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"on": ["late", "failled"]}, "on: no kind of alert named 'failled'"),
        ({"on": 3}, "on: expected a list of kinds"),
        ({"pings": 1}, "unknown key 'pings'; did you mean 'ping'?"),
        ({"max_wait": 0}, "max_wait: expected more than 0 seconds"),
        ({"max_late": "soon"}, "max_late: expected seconds"),
        ({"failures": 0}, "failures: expected a whole number from 1 up"),
        ({"ping": "hc-ping.com/x"}, "ping: expected an http:// or https:// address"),
        ({"ping": "ftp://x/y"}, "ping: expected an http:// or https:// address"),
        ({"ping": "https://a:b@x/y"}, "ping: a login in the address is not sent"),
        ({"ping": {"okay": "https://x/y"}}, "ping: unknown key 'okay'"),
        ({"ping": {}}, "ping: expected an address for start, ok or fail"),
        ({"ping": 3}, "ping: expected an address, or a dict of start, ok and fail"),
        ({"command": "mail ops"}, "command: expected a list of the program and its"),
        ({"command": []}, "command: expected a list of the program and its"),
        ({"command": ["a", 3]}, "command: expected a list of texts"),
        ({"function": "page"}, "function: expected the dotted name of a function"),
        ({"function": "a.b()"}, "function: expected the dotted name of a function"),
        ({"log": "no"}, "log: expected True or False"),
        ([], "expected a dict of what is told, or False"),
        (True, "expected a dict of what is told, or False"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(written: object, words: str) -> None:
    [problem] = examined({"alerts": written}).problems
    assert f"entry 'tick': alerts: {words}" in str(problem)

    [problem] = examined(beat_alerts={"t*": written}).problems
    assert f"beat_alerts: ['t*']: {words}" in str(problem)


def test_alerts_need_the_history() -> None:
    [problem] = examined(beat_alerts={"*": {}}, beat_history_per_entry=0).problems

    assert "alerts need the history" in str(problem)


def test_without_results_it_is_warned_that_nobody_tells_of_failures() -> None:
    server: dict[str, Any] = {"broker_url": "redis://localhost", "result_backend": None}
    report = examined(beat_alerts={"*": {}}, **server)

    [problem] = report.problems
    assert "without a result_backend nobody tells how runs end" in str(problem)
    assert problem.warning
    assert report.errors == []


def test_a_rule_says_what_is_told_and_to_whom() -> None:
    rule = rules_in(
        beat_alerts={
            "*": {
                "max_late": 30,
                "failures": 3,
                "max_wait": 60,
                "max_run": 3600,
                "pause_after_failures": 5,
                "command": ["/usr/bin/page", "ops"],
                "function": "ops:page",
                "log": False,
            }
        }
    ).of("tick")

    assert rule is not None
    assert rule.told == [
        "late by more than 30 s",
        "missed",
        "failed 3 times in a row",
        "recovered",
        "not taken for 60 s",
        "goes on for 3600 s",
        "paused after 5 failures",
    ]
    assert rule.ways == ["command /usr/bin/page", "function ops.page"]


def test_remote_control_shows_no_words_of_a_command() -> None:
    rule = {"command": ["curl", "-H", f"X-Key: {SECRET}", f"https://hooks/{SECRET}"]}
    report = examined({"alerts": rule}, beat_alerts={"*": rule})
    assert report.config is not None

    told = settings_of(report.config.settings, ["beat_schedule", "beat_alerts"])

    assert SECRET not in repr(told)
    assert "command" in repr(told)


@pytest.mark.parametrize(
    "ping",
    [f"https://hc.io/{SECRET}", f"hc.io/{SECRET}", {"ok": f"https://hc.io/{SECRET}"}],
)
def test_no_address_of_a_dead_mans_switch_is_shown(ping: object) -> None:
    for report in (
        examined({"alerts": {"ping": ping}}),
        examined(beat_alerts={"*": {"ping": ping}}),
    ):
        config = report.config
        assert config is not None
        assert SECRET not in "".join(map(str, report.problems))
        assert SECRET not in repr(config.alerts)
        told = settings_of(config.settings, ["beat_schedule", "beat_alerts"])
        assert SECRET not in repr(told)
