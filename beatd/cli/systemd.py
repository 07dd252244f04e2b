"""`beatd systemd`: the units, made for where beatd is installed."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from shlex import quote
from typing import Any

import click

from beatd.cli.output import Failure
from beatd.cli.usage import NOTHING, USAGE, exit_statuses, group_of
from beatd.config.settings import did_you_mean
from beatd.service.units import UNITS, Site, program_of, shipped

EPILOG = exit_statuses(0, 1, USAGE, NOTHING)

USER = click.option("--user", is_flag=True, help="For the service manager of a user.")
PREFIX = click.option(
    "--prefix",
    metavar="DIR",
    help="Where Python's environment with beatd is.  [default: that of this program]",
)
ROOT = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default="/",
    metavar="DIR",
    help="Where the system begins, as of an image that is being made.  [default: /]",
)

_ELSEWHERE = """
  the units keep out of the homes of users, and have a /tmp of their own; so install
  beatd elsewhere, with a Python that lies elsewhere, too:
  /usr/bin/python3 -m venv /opt/beatd && /opt/beatd/bin/pip install beatd
  (uv: UV_TOOL_DIR=/opt/uv UV_PYTHON_INSTALL_DIR=/opt/python, pipx: PIPX_HOME=/opt/pipx)
  and name that with --prefix, or make units of your own user with --user"""


class _NoUnit(Failure):
    exit_code = NOTHING


@group_of("systemd", EPILOG)
def command(**_: Any) -> None:
    """Units of systemd: a scheduler, workers by queue, a socket, and all of them."""


@command.command("print", epilog=EPILOG)
@click.argument("unit", required=False)
@USER
@PREFIX
def print_units(unit: str | None, user: bool, prefix: str | None) -> None:
    """Print the units as they would be installed, or one; drop-ins, too.

    Without UNIT all units are printed, with the names of drop-ins after them.
    """
    site = Site(program_of(prefix), user)
    if unit is not None:
        click.echo(site.made(_named(unit)), nl=False)
    else:
        for name in UNITS:
            click.echo(f"# {site.folder / name}\n{site.made(name)}")
        others = [name for name in shipped() if name not in UNITS]
        click.echo(f"# beatd systemd print UNIT: also {', '.join(others)}")
    if hidden := site.hidden():
        click.echo(f"warning: {hidden}", err=True)


@command.command("install", epilog=EPILOG)
@USER
@PREFIX
@ROOT
@click.option("--write", is_flag=True, help="Write them, not only say so.")
def install(user: bool, prefix: str | None, root: Path, write: bool) -> None:
    """Install the units; without --write, only say what would be written.

    A unit of another text that is there is kept beside it, as UNIT.old, the next one as
    UNIT.old.2. Changes of your own belong into drop-ins (systemctl edit), which stay.
    """
    site = Site(program_of(prefix), user, root)
    if hidden := site.hidden():
        raise Failure(hidden + _ELSEWHERE)
    if not site.inside(site.program).is_file():
        way = "name the environment that has it with --prefix, or install beatd there"
        raise Failure(f"there is no program {site.inside(site.program)}\n  {way}")
    for path, text in site.files():
        try:
            click.echo(_put(path, text) if write else _would_put(path, text))
        except OSError as error:
            way = "try: sudo beatd systemd install --write   or: --user"
            raise Failure(f"cannot write {path}: {error.strerror}\n  {way}") from error
    click.echo("".join(f"{line}\n" for line in _next(site, write)), nl=False)


def _put(path: Path, text: str) -> str:
    before = path.read_text(errors="replace") if path.exists() else None
    if before == text:
        return f"unchanged  {path}"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = ""
    if before is not None:
        old = _free(path.with_name(f"{path.name}.old"))
        path.replace(old)
        kept = f"   (what was there: {old.name})"
    path.write_text(text)
    path.chmod(0o644)  # there is no secret in it, and all may look at it
    return f"written    {path}{kept}"


def _free(path: Path) -> Path:
    """Return a name that no file has: this one, or the first with a number behind."""
    names = chain([path], (path.with_name(f"{path.name}.{n}") for n in count(2)))
    return next(name for name in names if not os.path.lexists(name))


def _would_put(path: Path, text: str) -> str:
    if not path.exists():
        return f"would write   {path}"
    same = path.read_text(errors="replace") == text
    return f"{'unchanged    ' if same else 'would replace'} {path}"


def _next(site: Site, written: bool) -> Iterator[str]:
    """Yield what is to be done now."""
    if not written:
        yield ""
        yield "nothing is written yet: the same with --write"
        return
    systemctl = "systemctl --user" if site.user else "systemctl"
    config = site.options.parent if site.user else site.inside("/etc/beatd")
    yield ""
    yield f"the config is {config}/config.py, or what {site.options} names;"
    yield f"the broker's URL goes into {config}/broker_url, mode 600 (if there is no"
    yield f"{config} yet: install -d {config}). Then:"
    yield f"  beatd check --config {config}/config.py --import"
    yield f"  {systemctl} daemon-reload"
    yield f"  {systemctl} enable --now beatd                  # the scheduler"
    yield f"  {systemctl} enable --now beatd-worker@celery    # a worker of this queue"
    if site.user:
        yield "  loginctl enable-linger     # run also while you are not logged in"


@command.command("verify", epilog=EPILOG)
@USER
@ROOT
def verify(user: bool, root: Path) -> None:
    """Let systemd-analyze judge the units that are installed; 1 if it finds something.

    Also says which of them are not as this version of beatd writes them.
    """
    site = Site(program_of(None), user, root)
    paths = [path for name in UNITS if (path := site.folder / name).exists()]
    if not paths:
        way = "beatd systemd install --write"
        raise _NoUnit(f"no unit of beatd is in {site.folder}\n  {way}")
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        raise Failure("systemd-analyze is not there\n  it comes with systemd")
    for path in paths:
        if path.read_text(errors="replace") != _as_installed(site, path):
            again = "beatd systemd install --write, and own changes by systemctl edit"
            click.echo(f"{path} is not as this beatd writes it: {again}")
    words = [analyze, "--user"] if user else [analyze]
    named = paths
    if root != Path("/") and not user:  # those of a user have no other root
        words.append(f"--root={root}")
        named = ["/" / path.relative_to(root) for path in paths]
    done = _ran([*words, "verify", *map(str, named)])
    click.echo(done.stdout + done.stderr, nl=False)
    if done.returncode or done.stdout or done.stderr:
        raise Failure("systemd-analyze verify finds what is above")
    click.echo("systemd-analyze verify: nothing to say")
    services = [str(path) for path in named if path.suffix == ".service"]
    if not user:
        judged = _ran([*words, "security", "--offline=true", "--no-pager", *services])
        for name, level in re.findall(r"level for (\S+): ([\d.]+)", judged.stdout):
            click.echo(f"exposure {level}  {name}")


def _as_installed(site: Site, path: Path) -> str:
    """Return a unit as it would be written for the program that it calls."""
    called = re.search(r"^ExecStart=(\S+)", path.read_text(errors="replace"), re.M)
    program = Path(called[1]) if called else site.program
    return Site(program, site.user, site.root).made(path.name)


def _ran(words: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _named(unit: str) -> str:
    """Return the name under which a unit comes with beatd: a template's for its own."""
    known = shipped()
    name = re.sub(r"@[^.]*", "@", unit)
    for one in (name, f"{name}.service", f"{name}.conf"):
        if one in known:
            return one
    near = did_you_mean(unit, [*known])
    listed = f"they are: {', '.join(known)}"
    hint = f"{near}   {listed}" if near else listed
    raise _NoUnit(f"no unit {quote(unit)} comes with beatd\n  {hint}")
