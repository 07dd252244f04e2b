"""Options in the environment: which are read, and which of two wins."""

from pathlib import Path
from typing import Any

import click
import pytest

from beatd.cli import beatd, environment, main
from beatd.cli.options import given
from beatd.config.loading import load
from beatd.config.options import Options
from beatd.config.options import environment as read_environment
from tests.cli.conftest import SHOP, Run

PAGE = Path(__file__).parents[2] / "docs" / "environment.md"

VALUES = {
    "workdir": ("/", None),  # changed to, and told to nobody
    "loglevel": ("info", "INFO"),
    "max_interval": ("2.5", 2.5),
    **dict.fromkeys(("no_color", "quiet", "debug", "strict", "detach"), ("1", True)),
}
"""What some options take, and how commands are told of it; others take any word."""


def options_of(command: str, before: str = "", after: str = "") -> dict[str, Any]:
    """Return the options that a command is told of, given before and after its name."""
    words = [*before.split(), command]
    above = beatd.make_context("beatd", words, auto_envvar_prefix="CELERY")
    named = beatd.get_command(above, command)
    assert named is not None
    return given(named.make_context(command, after.split(), parent=above))


def test_the_page_of_the_environment_is_that_of_the_options() -> None:
    made = "python -m beatd.cli.environment > docs/..."
    assert PAGE.read_text() == environment.page(), made


def test_every_option_before_a_command_may_stand_in_the_environment() -> None:
    named = {option.name for option in environment.shown()}

    assert len(named) > 20
    assert named == {
        option.name
        for option in beatd.params
        if isinstance(option, click.Option)
        and not option.hidden
        and option.name != "version"
    }


@pytest.mark.parametrize("command", ["worker", "status"])
@pytest.mark.parametrize(
    ("option", "variable"),
    [
        pytest.param(option, variable, id=variable)
        for option in environment.shown()
        for variable in environment.names_of(option)
    ],
)
def test_a_command_is_told_of_an_option_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, command: str, option: click.Option, variable: str
) -> None:
    words = option.type.choices if isinstance(option.type, click.Choice) else ["some"]
    written, told = VALUES.get(str(option.name), (words[0], words[0]))
    monkeypatch.setenv(variable, written)

    assert options_of(command).get(str(option.name)) == told


@pytest.mark.parametrize(
    ("before", "after", "app", "config"),
    [
        ("", "", "theirs", None),
        ("-A mine", "", "mine", None),
        ("", "-A mine", "mine", None),
        ("--config mine", "", None, "mine"),
        ("", "--config mine", None, "mine"),
    ],
)
def test_the_command_line_wins_over_the_environment_wherever_it_names_a_config(
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    app: str | None,
    config: str | None,
) -> None:
    monkeypatch.setenv("BEATD_APP", "theirs")
    monkeypatch.setenv("BEATD_CONFIG", "theirs")

    options = options_of("list", before, after)

    assert (options.get("app"), options.get("config")) == (app, config)


def test_a_name_of_beatds_wins_over_one_of_celerys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP", "theirs")
    monkeypatch.setenv("BEATD_APP", "ours")

    assert options_of("list")["app"] == "ours"


def test_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in environment.shown():
        monkeypatch.setenv(environment.names_of(option)[0], "")

    assert options_of("list").keys() & VALUES.keys() == set()


def test_a_relative_workdir_is_changed_to_once(
    monkeypatch: pytest.MonkeyPatch, run: Run, folder: Path
) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "celeryconfig.py").write_text(SHOP)
    monkeypatch.setenv("BEATD_WORKDIR", "shop")

    assert "nightly-backup" in run("list").stdout


def test_a_workdir_that_is_not_there_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEATD_WORKDIR", "shop")

    assert main(["list"]) == 2

    said = capsys.readouterr().err
    assert "cannot change to 'shop': No such file or directory" in said


def test_errors_have_their_traceback_if_the_environment_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEATD_DEBUG", "1")

    assert main(["list"]) == 78

    assert "Traceback" in capsys.readouterr().err


def test_the_help_says_that_options_may_stand_in_the_environment(run: Run) -> None:
    assert "$BEATD_SCHEDULE_FILENAME" in run("--help").stdout


# Secrets, each in a file of its own


@pytest.mark.parametrize(
    "name", ["broker_url", "nosuch/broker_url", "celeryconfig.py/x"]
)
def test_a_file_that_the_environment_names_has_to_be_there(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shop: Path,
    name: str,
) -> None:
    """Else two schedulers would lead, each with an SQLite file of its own."""
    file = shop.parent / name
    monkeypatch.setenv("BEATD_BROKER_URL_FILE", str(file))

    assert main(["list"]) == 78

    said = capsys.readouterr().err
    assert f"cannot use {file}\n  broker_url: No" in said
    assert "$BEATD_BROKER_URL_FILE names it" in said
    assert "try: write the URL there, or `default`" in said
    assert "unset $BEATD_BROKER_URL_FILE" in said


@pytest.mark.parametrize("written", [b"", b"\n", b"redis://\xff"])
def test_a_file_of_secrets_that_says_nothing_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shop: Path,
    written: bytes,
) -> None:
    (shop.parent / "broker_url").write_bytes(written)
    for variable, place in (
        ("CREDENTIALS_DIRECTORY", shop.parent),
        ("BEATD_BROKER_URL_FILE", shop.parent / "broker_url"),
    ):
        monkeypatch.setenv(variable, str(place))

        assert main(["list"]) == 78

        said = capsys.readouterr().err
        assert "broker_url: th" in said
        assert "or `default` if broker_url is not to be set" in said


def test_a_credential_need_not_be_there(
    monkeypatch: pytest.MonkeyPatch, shop: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(shop.parent / "nosuch"))

    assert "CELERY_BROKER_URL" not in read_environment({})


def test_default_in_a_file_that_is_named_means_that_none_is_set(
    monkeypatch: pytest.MonkeyPatch, shop: Path
) -> None:
    (shop.parent / "url").write_text("default\n")
    monkeypatch.setenv("BEATD_BROKER_URL_FILE", "url")

    assert "CELERY_BROKER_URL" not in read_environment({})


@pytest.mark.parametrize("name", ["BROKER_URL", "RESULT_BACKEND"])
def test_a_file_of_secrets_is_read_unless_a_url_stands_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, shop: Path, name: str
) -> None:
    (shop.parent / "url").write_text("redis://file/0\n")
    monkeypatch.setenv(f"BEATD_{name}_FILE", "url")

    for written, read in (("", "redis://file/0"), ("redis://word/0", "redis://word/0")):
        monkeypatch.setenv(f"CELERY_{name}", written)

        assert read_environment({})[f"CELERY_{name}"] == read


def test_results_are_where_their_file_says(
    monkeypatch: pytest.MonkeyPatch, shop: Path
) -> None:
    (shop.parent / "url").write_text("redis://:hush@results/3\n")
    monkeypatch.setenv("BEATD_RESULT_BACKEND_FILE", "url")

    settings = load(Options().wanted()).settings

    assert settings.result_backend == "redis://:hush@results/3"
    assert "result_backend" not in shop.read_text()
