"""Commands on a host that has the units: they need not be told what the units run."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beatd.cli import beatd
from beatd.config.host import Host, assignments
from beatd.errors import ConfigError
from beatd.service.units import shipped
from tests.rights import as_nobody

CONFIG = """\
beat_schedule = {{"{name}": {{"task": "proj.add", "schedule": 60}}}}
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with a config, below a root of its own; elsewhere is worked."""
    host = Host(tmp_path / "root")
    for path in (host.defaults, host.config, host.schedule_file):
        path.parent.mkdir(parents=True, exist_ok=True)
    host.config.write_text(CONFIG.format(name="of the units"))
    return host


def run(host: Host, *words: str) -> Result:
    return CliRunner().invoke(beatd, words, obj=host)


def listed(host: Host, *words: str) -> list[str]:
    """Return the entries that `beatd list` shows, given these words before it."""
    result = run(host, *words, "list")
    assert result.exit_code == 0, (result.output, result.exception)
    return re.findall(r"^(of the \w+)", result.stdout, re.MULTILINE)


def refused(host: Host, *words: str) -> str:
    """Return why a command cannot use its config."""
    problem = run(host, *words).exception
    assert isinstance(problem, ConfigError)
    return str(problem)


def test_a_host_is_as_the_units_have_it() -> None:
    host, unit = Host(), shipped()["beatd.service"].read_text()
    [start] = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
    start = start.replace("${STATE_DIRECTORY}", "/var/lib/beatd")

    assert host.words({"BEATD_OPTS": "-l INFO"}) == [
        *start.removesuffix("$BEATD_OPTS").split(),
        *("-l", "INFO"),
    ]
    assert f"\nEnvironmentFile=-{host.defaults}\n" in unit
    for name in ("broker_url", "result_backend"):
        assert f"\nLoadCredential={name}:{host.credentials}/{name}\n" in unit
        assert f"\nSetCredential={name}:default\n" in unit
    assert f"\nEnvironment=BEATD_CONFIG={host.config} " in unit


def test_the_config_and_the_files_are_those_of_the_units(host: Host) -> None:
    result = run(host, "list", "--json")

    assert str(host.config) in result.stdout
    assert str(host.schedule_file) in result.stdout


@pytest.mark.parametrize(
    "written",
    [
        "BEATD_APP=shop\nBEATD_WORKDIR={root}\n",
        "BEATD_APP=shop\nBEATD_CONFIG=elsewhere.py\nBEATD_WORKDIR={root}\n",
        "BEATD_OPTS=--workdir '{root}' -A shop\n",
        "BEATD_CONFIG={root}/shop.py\n",
        'BEATD_OPTS="--config {root}/shop.py"\n',
    ],
)
def test_what_the_file_of_the_units_names_is_taken(host: Host, written: str) -> None:
    text = CONFIG.format(name="of the app")
    app = f"\nfrom beatd import Beatd\napp = Beatd('shop')\napp.conf.{text}"
    (host.root / "shop.py").write_text(text + app)
    host.defaults.write_text(written.format(root=host.root))

    assert listed(host) == ["of the app"]


@pytest.mark.parametrize("where", ["here", "environment", "before", "app"])
def test_what_is_named_or_here_is_meant_before_the_units(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    text = CONFIG.format(name="of the folder")
    name = "celeryconfig.py" if where == "here" else "mine.py"
    (folder / name).write_text(text)
    words = []
    match where:
        case "environment":
            monkeypatch.setenv("BEATD_CONFIG", "mine.py")
        case "before":
            words = ["--config", "mine.py"]
        case "app":
            app = f"from beatd import Beatd\napp = Beatd('mine')\napp.conf.{text}"
            (folder / "mine.py").write_text(app)
            words = ["-A", "mine"]

    assert listed(host, *words) == ["of the folder"]


def test_an_option_that_is_given_wins_over_the_units(host: Host, folder: Path) -> None:
    host.defaults.write_text("BEATD_OPTS=-b sqlite:////nowhere/queues.db\n")

    said = run(host, "check", "-b", f"sqlite:///{folder}/mine.db").output

    assert "mine.db" in said
    assert "nowhere" not in said


def test_the_broker_is_that_of_the_credential(host: Host, folder: Path) -> None:
    (host.credentials / "broker_url").write_text(f"sqlite:///{folder}/queues.db\n")

    assert f"broker: {folder}/queues.db" in run(host, "check").stdout


def test_results_are_where_the_credential_says(host: Host) -> None:
    (host.credentials / "result_backend").write_text("no-scheme\n")

    said = run(host, "check").output

    assert "no-scheme" in said


def test_a_file_of_the_brokers_url_may_be_named(host: Host, folder: Path) -> None:
    (folder / "url").write_text(f"sqlite:///{folder}/queues.db\n")
    host.defaults.write_text(f"BEATD_BROKER_URL_FILE={folder}/url\n")

    assert f"broker: {folder}/queues.db" in run(host, "check").stdout


def test_a_file_that_the_units_name_has_to_be_there(host: Host, folder: Path) -> None:
    host.defaults.write_text(f"BEATD_BROKER_URL_FILE={folder}/url\n")

    assert f"{folder}/url\n" in refused(host, "list")


@pytest.fixture
def open_host() -> Iterator[Host]:
    """A host whose folders all users may look into."""
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        host.root.chmod(0o755)
        host.config.parent.mkdir(parents=True)
        host.config.write_text(CONFIG.format(name="of the units"))
        yield host


def test_a_credential_that_is_not_for_this_user_is_said(open_host: Host) -> None:
    assert run(open_host, "list").exit_code == 0  # and all that it needs is imported
    (open_host.credentials / "broker_url").write_text("redis://:hush@host/0\n")
    (open_host.credentials / "broker_url").chmod(0)

    with as_nobody():
        said = refused(open_host, "list")

    assert f"{open_host.credentials}/broker_url\n" in said
    assert "Permission denied" in said
    assert "sudo beatd" in said


def test_options_that_are_not_for_this_user_are_none(open_host: Host) -> None:
    open_host.defaults.parent.mkdir(parents=True)
    open_host.defaults.write_text("BEATD_CONFIG=/nowhere.py\n")
    open_host.defaults.chmod(0)

    with as_nobody():
        assert open_host.variables() == {"BEATD_CONFIG": str(open_host.config)}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("BEATD_OPTS=--loud\n", "--loud"),
        ("BEATD_OPTS=-A 'proj\n", "BEATD_OPTS: No closing quotation"),
        ("BEATD_LOGLEVEL=LOUD\n", "LOUD"),
    ],
)
def test_options_of_the_units_that_are_none_are_named_with_their_file(
    host: Host, written: str, said: str
) -> None:
    host.defaults.write_text(written)

    problem = refused(host, "list")

    assert f"{host.defaults}\n" in problem
    assert said in problem


@pytest.mark.parametrize("command", [[], ["worker"], ["import", "redbeat"]])
def test_what_runs_or_writes_has_to_be_told_its_config(
    host: Host, command: list[str]
) -> None:
    assert "celeryconfig" in refused(host, *command)


def test_a_host_without_units_is_none(host: Host) -> None:
    host.config.unlink()

    assert "no celeryconfig.py" in refused(host, "list")


# As systemd reads it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=1", "1"),
        ("  A = 1  \n", "1"),
        ("A=\n", ""),
        ("A=a b  # c\n", "a b  # c"),
        ("A='a b' \n", "a b"),
        ('A="a  b"\n', "a  b"),
        ("A='a'\"b\"c\n", "abc"),
        ("A=a'b'\n", "a'b'"),
        ("A=a\\ b\\\\\n", "a b\\"),
        ("A=a \\\n b\nB=2\n", "a  b"),
        ('A="a\\\nb"\n', "ab"),
        ('A="a\nb"\nB=2\n', "a\nb"),
        ('A="\\"\\\\\\$\\n"\n', '"\\$\\n'),
        ("A='\\n'\n", "\\n"),
        ("A=$HOME/%h\n", "$HOME/%h"),
        ('A="${HOME}"\n', "${HOME}"),
        ("# A=2\n; A=3\nnothing\nA=1\n", "1"),
        ("# a comment \\\nA=2\nA=1", "1"),
        ("A=2\nA=1\n", "1"),
        ("A=1\r\n", "1"),
        ("A=a=b\n", "a=b"),
    ],
)
def test_a_file_of_an_environment_is_read_as_systemd_reads_it(
    text: str, value: str
) -> None:
    assert assignments(text)["A"] == value


def test_a_line_that_sets_nothing_ends_where_it_ends() -> None:
    assert assignments("nothing\nA=1\n\n#\\\n\nB=2") == {"A": "1", "B": "2"}


def test_only_what_the_units_use_is_kept(host: Host) -> None:
    host.defaults.write_text("PATH=/x\nBEATD_APP=proj\nSECRET=hush\n")

    assert host.variables().keys() == {"BEATD_APP", "BEATD_CONFIG"}
