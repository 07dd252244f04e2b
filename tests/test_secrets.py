"""No secret in any output: what commands, logs and remote control show of a config.

Each password is in two pieces, with what makes it hard to see between them.
"""

import json
from pathlib import Path

import pytest

from beatd.cli import main
from beatd.config.settings import read, table
from beatd.config.settings.secrets import mask
from beatd.worker.commands.shapes import broker_of, settings_of
from tests.processes import beatd

pytestmark = pytest.mark.usefixtures("forgotten")

PIECES = ("HUSH", "WORD")

ADDRESSES = {
    "white space": "redis://:HUSH WORD@127.0.0.1:1/0",
    "semicolon": "redis://:HUSH;WORD@127.0.0.1:1/0",
    "at": "redis://anna:HUSH@WORD@127.0.0.1:1/0",
    "slash": "redis://anna:HUSH/WORD@127.0.0.1:1/0",
    "encoded": "redis://anna:HUSH%2FWORD@127.0.0.1:1/0",
    "pwd": "redis://127.0.0.1:1/0?pwd=HUSHWORD",
    "pass": "redis://127.0.0.1:1/0?pass=HUSHWORD&db=0",
    "password": "redis://127.0.0.1:1/0?password=HUSHWORD",
    "credential": "redis://127.0.0.1:1/0?credential=HUSHWORD",
    "access_key": "redis://127.0.0.1:1/0?access_key=HUSHWORD",
}

ARGUMENTS = """
import os
beat_schedule_filename = os.path.join(os.path.dirname(__file__), "beatd.db")
beat_schedule = {
    "report": {
        "task": "shop.report",
        "schedule": 0.1,
        "args": [URL, {"db": {"access_key": "HUSH WORD", "max_tokens": 12}}],
        "kwargs": {"password": "HUSH;WORD", "to": [{"credentials": {"a": ["HUSH"]}}]},
    },
    "bad": {"task": "t", "schedule": 60, "kwargs": {"pass": "HUSH"}, "options": URL},
    "worse": {"task": "t", "schedule": URL},
}
redis_password = "HUSH,WORD"
security_key_password = b"HUSH,WORD"
"""


def written(tmp_path: Path, text: str, url: str) -> str:
    path = tmp_path / "conf.py"
    path.write_text(f"URL = {url!r}\n{text}")
    return str(path)


def assert_hushed(output: str) -> None:
    assert output
    for piece in PIECES:
        lines = [line for line in output.splitlines() if piece in line]
        assert lines == []


@pytest.fixture(params=[*ADDRESSES.values()], ids=[*ADDRESSES])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", ["broker_url", "result_backend", "broker_read_url"])
def test_commands_show_no_secret(
    name: str,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # not among the tests, of which some draw numbers
    # A config that may draw something is read again by another process.
    draws = "import random\n" if name == "broker_read_url" else ""
    conf = written(tmp_path, f"{draws}{name} = URL\n{ARGUMENTS}", url)
    for words in (
        ["check"],
        ["check", "--broker", "--json"],
        ["list", "--wide"],
        ["list", "--json"],
        ["next", "--json"],
        ["dead", "list"],
    ):
        main([*words, "--config", conf])
        out, err = capsys.readouterr()
        assert_hushed(out + err)


def test_what_a_config_raises_shows_no_secret(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = written(tmp_path, "raise OSError(f'cannot log in to {URL}: no')", url)

    assert main(["check", "--config", conf]) == 78
    out, err = capsys.readouterr()
    assert "cannot log in to" in out + err
    assert_hushed(out + err)


@pytest.mark.parametrize(
    "text",
    [
        "password: HUSHWORD",
        "login as anna with Password = HUSHWORD failed",
        "password:HUSHWORD",
        "db_password:  HUSHWORD, user: anna",
        "Password: 'HUSH WORD'",
        '{"user": "anna", "password": "HUSH WORD"}',
        '{"user": "anna", "access_token" : "HUSH WORD"}',
        r'bad body: "{\"password\": \"HUSH WORD\"}"',
        "api_key: HUSHWORD",
        "sent Authorization: Bearer HUSHWORD to hooks",
        "credentials: {'a': 'HUSH', 'b': 'WORD'}",
    ],
)
def test_free_text_shows_no_secret(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = written(tmp_path, f"raise OSError({text!r})", "")

    assert main(["check", "--config", conf]) == 78
    out, err = capsys.readouterr()
    assert "raised OSError" in out + err
    assert_hushed(out + err)


@pytest.mark.parametrize(
    "text",
    [
        "InvalidTokenError: the signature has expired",
        "cannot import proj.tokens:app",
        "api_token: expected a text, got 5",
        "max_tokens: 12 is too low",
        "could not connect to cache:6379",
    ],
)
def test_free_text_without_a_secret_is_shown_as_it_is(text: str) -> None:
    assert mask(text) == text


def test_nested_arguments_keep_their_structure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = written(tmp_path, ARGUMENTS, ADDRESSES["pwd"])

    assert main(["list", "--wide", "--config", conf]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "{'db': {'access_key': ***, 'max_tokens': 12}}" in shown
    assert "password=***, to=[{'credentials': {'a': [***]}}]" in shown


def test_logs_show_no_secret(url: str, tmp_path: Path) -> None:
    conf = written(tmp_path, f"broker_url = result_backend = URL\n{ARGUMENTS}", url)
    words = ["worker", "-P", "solo", "-B", "-l", "DEBUG", "--config", conf]
    refused = "password has a character that has to be encoded"
    with beatd(*words, cwd=tmp_path) as running:
        running.until(refused if ";" in url or "HUSH/" in url else "127.0.0.1:1")
    assert_hushed(running.output)


def test_remote_control_shows_no_secret(url: str) -> None:
    options = {"login": {"credentials": {"a": "HUSH"}}, "dsn": url, "sep": "compass"}
    reading = read(
        {
            "broker_url": "redis://:HUSH WORD@127.0.0.1:1/0",
            "broker_transport_options": options,
            "result_backend_transport_options": options,
            "redis_password": "HUSH",
            "broker_password": "HUSH;WORD",
            "security_key_password": b"HUSH",
        }
    )
    assert reading.problems == []
    for names in (reading.given, table()):
        told = settings_of(reading.settings, names)
        assert_hushed(json.dumps(told))
        login = told["broker_transport_options"]
        assert login["login"] == {"credentials": {"a": "********"}}  # type: ignore[index] # a dict
    assert_hushed(json.dumps(broker_of(reading.settings)))
