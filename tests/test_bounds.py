"""The one reader of seconds, counts and rates, and all that is read by it."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from beatd.bounds import LARGEST, LONGEST, TooLarge, count_of, rate_of, seconds_of
from beatd.cli import main
from beatd.config import settings
from beatd.errors import MessageError
from beatd.instant import datetime_of, instant_of, span_of
from beatd.message.envelope import read_envelope
from beatd.message.options import check_options

NO_SECONDS = [
    *(float("inf"), float("-inf"), float("nan"), 1e308, -1e308, 10**400, -(10**400)),
    *(LONGEST + 1, True, "5", [1], {}, timedelta.max, 1j),
]
"""What is no number of seconds, wherever one stands."""


@pytest.mark.parametrize("value", NO_SECONDS, ids=lambda value: str(type(value)))
def test_what_is_no_length_of_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected .*seconds"):
        seconds_of(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0), (0.5, 0.5), (LONGEST, LONGEST), (timedelta(days=1), 86_400)],
)
def test_a_length_of_time_is_a_number_of_seconds(value: object, seconds: float) -> None:
    assert seconds_of(value) == seconds


def test_the_longest_length_can_be_waited_for_and_added_to_a_date() -> None:
    now = instant_of(datetime(2100, 1, 1, tzinfo=UTC))

    assert threading.TIMEOUT_MAX > LONGEST
    assert datetime_of(now + span_of(LONGEST)).year == 2200
    assert span_of(LONGEST) < 2**53


def test_a_number_of_too_many_digits_to_print_is_refused() -> None:
    with pytest.raises(TooLarge, match="got a value of type int"):
        seconds_of(10**5000)


def test_a_length_below_zero_is_refused_unless_it_is_asked_for() -> None:
    assert seconds_of(-5, least=-10) == -5
    with pytest.raises(ValueError, match="expected a number of seconds, 0 or more"):
        seconds_of(-5)


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None])
def test_what_is_no_count_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number, 0 or more"):
        count_of(value)


@pytest.mark.parametrize("value", [LARGEST + 1, 10**400])
def test_a_count_has_a_bound(value: int) -> None:
    with pytest.raises(TooLarge, match=f"expected at most {LARGEST}"):
        count_of(value)


@pytest.mark.parametrize(
    "limit",
    [[1], {}, True, "1e308/h", "1e-300/s", 1e-320, 10**400, float("inf"), "5/d"],
    ids=str,
)
def test_what_is_no_rate_is_refused(limit: object) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        rate_of(limit)


@pytest.mark.parametrize("limit", [None, False, 0, "", "0", "0/m"])
def test_no_rate_can_be_said_in_several_ways(limit: object) -> None:
    assert rate_of(limit) == 0


def test_a_rate_without_a_number_is_refused_in_the_words_of_celery() -> None:
    with pytest.raises(ValueError, match="could not convert string to float: 'x'"):
        rate_of("x")


# What is read by it -----------------------------------------------------------------


@pytest.mark.parametrize("value", NO_SECONDS[:-1], ids=lambda value: str(type(value)))
@pytest.mark.parametrize("name", ["task_time_limit", "beat_jitter", "result_expires"])
def test_a_setting_in_seconds_has_the_bounds(name: str, value: object) -> None:
    (problem,) = settings.read({name: value}).problems

    assert str(problem).startswith(f"{name}: expected ")


@pytest.mark.parametrize("value", [*NO_SECONDS[:4], 10**400, LONGEST + 1, "5", True])
@pytest.mark.parametrize(
    "name", ["countdown", "expires", "time_limit", "soft_time_limit"]
)
def test_an_option_of_a_call_has_the_bounds(name: str, value: object) -> None:
    with pytest.raises(MessageError, match=name):
        check_options({name: value})


@pytest.mark.parametrize("value", [1e308, -1, LONGEST + 1])
def test_the_limits_of_an_envelope_have_the_bounds(value: float) -> None:
    headers = {"task": "t", "id": "i", "retries": 0, "timelimit": [value, None]}
    raw = json.dumps({"body": "W10=", "headers": headers, "properties": {}})

    with pytest.raises(MessageError, match=r"timelimit: expected .*seconds"):
        read_envelope(raw.encode())


def test_what_a_call_may_say_an_envelope_may_say() -> None:
    check_options({"time_limit": LONGEST, "retries": LARGEST})
    headers = {"task": "t", "id": "i", "retries": LARGEST, "timelimit": [LONGEST, None]}
    raw = json.dumps({"body": "W10=", "headers": headers, "properties": {}})

    assert read_envelope(raw.encode()).time_limit == LONGEST


@pytest.mark.parametrize("value", ["1e308", "inf", "nan", "-1", "5s"])
@pytest.mark.parametrize(
    "option",
    ["--time-limit", "--soft-time-limit", "--heartbeat-interval", "--max-interval"],
)
def test_an_option_of_the_command_line_has_the_bounds(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["worker", option, value])

    assert status == 2
    assert f"'{option}'" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "2147483648", "-1", "1.5"])
@pytest.mark.parametrize("option", ["-c", "--autoscale", "--max-tasks-per-child"])
def test_a_count_of_the_command_line_has_the_bounds(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["worker", option, value])

    assert status == 2
    assert option in capsys.readouterr().err
