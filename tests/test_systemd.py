"""The units: what the wheel has, what is installed, and what systemd says of it."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beatd.cli import beatd, main
from beatd.service.units import UNITS, Site, shipped
from tests.processes import ROOT

PROGRAM = Path("/opt/beatd/bin/beatd")

analysed = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ,
    reason="systemd-analyze is not installed",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of another system, with beatd in /opt/beatd and nothing of systemd's."""
    program(tmp_path, PROGRAM)
    return tmp_path


@pytest.fixture
def whole(root: Path) -> Path:
    """The same with the units of systemd, so that it can be analysed."""
    units = Path("usr/lib/systemd/system")
    shutil.copytree("/" / units, root / units, symlinks=True)
    program(root, Path("/bin/kill"))
    program(root, Path("/usr/bin/env"))
    return root


def program(root: Path, path: Path, text: str = "#!/usr/bin/python3\n") -> Path:
    """Put a program somewhere under another root."""
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)
    return place


def run(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(beatd, ["systemd", *words])
    assert result.exit_code == status, result.output
    return result


def installed(root: Path, *words: str, status: int = 0) -> Result:
    return run(
        *("install", "--root", str(root), "--prefix", "/opt/beatd", *words),
        status=status,
    )


# What comes with beatd


def test_the_wheel_has_the_units(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr

    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        packed = {
            name.removeprefix("beatd/systemd/"): files.read(name).decode()
            for name in files.namelist()
            if name.startswith("beatd/systemd/")
        }

    folder = ROOT / "systemd"
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert packed == {str(one.relative_to(folder)): one.read_text() for one in written}
    assert {Path(name).name for name in packed} == shipped().keys()


def test_a_reload_checks_what_was_started() -> None:
    text = shipped()["beatd.service"].read_text()
    started = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    reloaded = re.findall(r"^ExecReload=(.*)$", text, re.MULTILINE)

    assert reloaded == [
        f"/usr/bin/env -u CREDENTIALS_DIRECTORY {started[0]} check",
        "/bin/kill -HUP $MAINPID",
    ]


@pytest.mark.parametrize("named", ["-A shop", "--config conf.py", ""])
def test_the_check_of_a_reload_takes_options_as_the_start_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: str,
) -> None:
    """By BEATD_OPTS, or by the environment: $BEATD_APP beside the unit's own config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEATD_CONFIG", "/etc/beatd/config.py")
    if not named:
        monkeypatch.setenv("BEATD_APP", "shop")
    text = "beat_shedule = {}\n"
    (tmp_path / "conf.py").write_text(text)
    (tmp_path / "shop.py").write_text(
        f"from beatd import Beatd\napp = Beatd('shop')\napp.conf.{text}"
    )

    status = main(["--schedule-filename", "schedule.db", *named.split(), "check"])

    assert status in (1, 78)
    assert "beat_schedule" in capsys.readouterr().out, "the hint at what is misspelt"


# Installing


def test_nothing_is_written_unless_that_is_said(root: Path) -> None:
    said = installed(root).output

    assert f"would write   {root}/etc/systemd/system/beatd.service" in said
    assert "nothing is written yet: the same with --write" in said
    assert not (root / "etc").exists()


def test_units_are_written_with_the_path_of_the_program(tmp_path: Path) -> None:
    program(tmp_path, Path("/srv/python/bin/beatd"))

    run(
        *("install", "--root", str(tmp_path), "--prefix", "/srv/python", "--write"),
    )

    folder = tmp_path / "etc/systemd/system"
    assert {path.name for path in folder.iterdir()} == set(UNITS)
    service = (folder / "beatd.service").read_text()
    assert service.count("/srv/python/bin/beatd") == 2
    assert "/opt/beatd" not in service
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_the_commands_that_come_next_are_said(root: Path) -> None:
    said = installed(root, "--write").output

    assert [line.split("  #")[0].strip() for line in said.splitlines()[-3:]] == [
        "systemctl daemon-reload",
        "systemctl enable --now beatd",
        "systemctl enable --now beatd-worker@celery",
    ]


def test_options_that_are_there_stay(root: Path) -> None:
    options = root / "etc/default/beatd"
    options.parent.mkdir(parents=True)
    options.write_text("BEATD_APP=shop\n")

    installed(root, "--write")

    assert options.read_text() == "BEATD_APP=shop\n"


def test_a_unit_that_was_changed_is_kept_beside_the_new_one(root: Path) -> None:
    installed(root, "--write")
    unit = root / "etc/systemd/system/beatd.service"
    ours = unit.read_text()
    unit.write_text("mine\n")

    assert f"would replace {unit}" in installed(root).output
    assert "(what was there: beatd.service.old)" in installed(root, "--write").output

    assert unit.read_text() == ours
    assert unit.with_name("beatd.service.old").read_text() == "mine\n"
    assert f"unchanged  {unit}" in installed(root, "--write").output


def test_what_was_kept_beside_a_unit_stays(root: Path) -> None:
    installed(root, "--write")
    unit = root / "etc/systemd/system/beatd.service"
    for words in ("mine\n", "of another version\n"):
        unit.write_text(words)
        shown = installed(root, "--write").output

    assert "(what was there: beatd.service.old.2)" in shown
    assert unit.with_name("beatd.service.old").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("/home/ann/beatd", "units see no /home (ProtectHome=yes)"),
        ("/root/.local/share/uv/tools/beatd", "units see no /root (ProtectHome=yes)"),
        ("/tmp/venv", "units see no /tmp (PrivateTmp=yes)"),
        ("/opt/../root/venv", "units see no /root (ProtectHome=yes)"),
    ],
)
def test_a_program_that_the_units_cannot_see_is_refused(
    root: Path, prefix: str, why: str
) -> None:
    said = run("install", "--root", str(root), "--prefix", prefix, "--write", status=1)

    assert why in said.output
    assert "--prefix" in said.output
    assert not (root / "etc").exists()


def test_an_interpreter_that_the_units_cannot_see_is_refused(root: Path) -> None:
    """As in an environment that was made with a Python of uv's or pyenv's."""
    program(root, PROGRAM, "#!/opt/beatd/bin/python3\n")
    (root / "opt/beatd/bin/python3").symlink_to("python3.13")
    (root / "opt/beatd/bin/python3.13").symlink_to("/root/.local/share/uv/python")

    said = installed(root, "--write", status=1).output

    assert f"{PROGRAM} needs /root/.local/share/uv/python: units see no /root" in said


def test_a_link_to_a_program_that_the_units_cannot_see_is_refused(root: Path) -> None:
    (root / "opt/beatd/bin/beatd").unlink()
    (root / "opt/beatd/bin/beatd").symlink_to("/home/ann/.local/bin/beatd")

    assert "units see no /home" in installed(root, "--write", status=1).output


def test_links_in_a_circle_are_no_end(root: Path) -> None:
    (root / "opt/beatd/bin/beatd").unlink()
    (root / "opt/beatd/bin/beatd").symlink_to("beatd")

    assert "there is no program" in installed(root, "--write", status=1).output


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    said = installed(tmp_path, "--write", status=1).output

    assert f"there is no program {tmp_path}/opt/beatd/bin/beatd" in said
    assert "--prefix" in said


def test_a_user_may_have_the_program_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/ann/.config")
    program(tmp_path, Path("/home/ann/beatd/bin/beatd"))
    words = ["--root", str(tmp_path), "--prefix", "/home/ann/beatd", "--user"]

    said = run("install", *words, "--write").output

    assert "systemctl --user enable --now beatd " in said
    assert "loginctl enable-linger" in said
    home = tmp_path / "home/ann/.config"
    assert {path.name for path in (home / "systemd/user").iterdir()} == set(UNITS)
    assert (home / "beatd/environment").exists()
    service = (home / "systemd/user/beatd.service").read_text()
    assert "BEATD_CONFIG=%E/beatd/config.py" in service
    assert "Environment=CREDENTIALS_DIRECTORY=%E/beatd\n" in service
    assert "env -u" not in service
    assert not re.search(r"DynamicUser|Credential|/etc/|ConfigurationDir", service)
    assert not (tmp_path / "etc").exists()


# Printing


def test_units_are_printed_with_the_path_of_the_program() -> None:
    said = run("print", "--prefix", "/srv/python").output

    assert said.count("# /etc/systemd/system/") == len(UNITS)
    assert "ExecStart=/srv/python/bin/beatd --schedule-filename" in said


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("beatd", "beatd.service"),
        ("beatd.target", "beatd.target"),
        ("beatd-worker@reports", "beatd-worker@.service"),
        ("beatd-worker@.service", "beatd-worker@.service"),
        ("40-writable-paths", "40-writable-paths.conf"),
        ("beatd.default", "beatd.default"),
    ],
)
def test_one_unit_is_printed(word: str, name: str) -> None:
    said = run("print", word, "--prefix", "/opt/beatd").output

    assert said == Site(PROGRAM).made(name)


def test_an_unknown_unit_is_named_with_those_there_are() -> None:
    said = run("print", "beatd-wroker", status=3).output

    assert "no unit beatd-wroker comes with beatd" in said
    assert "beatd-worker@.service" in said


def test_what_the_units_cannot_see_is_said_beside_what_is_printed() -> None:
    result = run("print", "beatd", "--prefix", "/root/venv")

    assert result.stderr.startswith("warning: /root/venv/bin/beatd: units see no /root")
    assert "ExecStart=/root/venv/bin/beatd" in result.stdout


# What systemd says


def analyze(root: Path, *words: str) -> str:
    """Return all that systemd-analyze says of the units under a root."""
    result = subprocess.run(
        ["systemd-analyze", f"--root={root}", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr


@analysed
def test_the_units_that_are_installed_verify_in_silence(whole: Path) -> None:
    installed(whole, "--write")

    units = [f"/etc/systemd/system/{name}" for name in UNITS]
    assert analyze(whole, "verify", *units) == ""


@analysed
@pytest.mark.parametrize(
    ("unit", "most"), [("beatd.service", 1.2), ("beatd-worker@.service", 1.3)]
)
def test_the_units_expose_little(whole: Path, unit: str, most: float) -> None:
    installed(whole, "--write")
    path = f"/etc/systemd/system/{unit}"

    said = analyze(whole, "security", "--offline=true", "--no-pager", path)

    level = re.search(r"exposure level.*: ([\d.]+)", said)
    assert level is not None
    assert float(level[1]) <= most


@analysed
@pytest.mark.parametrize(
    "name", ["20-local-broker", "40-writable-paths", "50-encrypted-credential"]
)
def test_a_drop_in_verifies_in_silence(whole: Path, name: str) -> None:
    """The others have keys that systemd 252 does not know, and say so."""
    installed(whole, "--write")
    for unit in ("beatd.service", "beatd-worker@.service"):
        folder = whole / "etc/systemd/system" / f"{unit}.d"
        folder.mkdir()
        (folder / f"{name}.conf").write_text(run("print", name).stdout)

    units = [f"/etc/systemd/system/{name}" for name in UNITS]
    assert analyze(whole, "verify", *units) == ""


@analysed
def test_verify_has_no_complaint_about_what_install_wrote(whole: Path) -> None:
    installed(whole, "--write")

    said = run("verify", "--root", str(whole)).output

    assert "systemd-analyze verify: nothing to say" in said
    assert re.findall(r"^exposure (\S+)  (\S+)$", said, re.MULTILINE) == [
        ("1.1", "beatd.service"),
        ("1.2", "beatd-worker@i.service"),
    ]
    assert "is not as" not in said


@analysed
def test_verify_has_no_complaint_about_units_of_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    program(tmp_path, Path("/venv/bin/beatd"))
    run("install", "--user", "--prefix", str(tmp_path / "venv"), "--write")

    said = run("verify", "--user").output

    assert said == "systemd-analyze verify: nothing to say\n"


@analysed
def test_verify_says_what_is_wrong_with_a_unit(whole: Path) -> None:
    installed(whole, "--write")
    unit = whole / "etc/systemd/system/beatd.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSeconds=30"))

    said = run("verify", "--root", str(whole), status=1).output

    assert f"{unit} is not as this beatd writes it" in said
    assert "WatchdogSeconds" in said


def test_verify_without_units_says_how_they_are_installed(tmp_path: Path) -> None:
    said = run("verify", "--root", str(tmp_path), status=3).output

    assert f"no unit of beatd is in {tmp_path}/etc/systemd/system" in said
    assert "beatd systemd install --write" in said
