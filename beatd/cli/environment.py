"""A page about the variables of the environment that beatd reads.

`python -m beatd.cli.environment` prints `docs/environment.md`, from the options of the
command line: only what these do not know stands here.
"""

from collections.abc import Iterator

import click

from beatd.cli import beatd
from beatd.cli.options import Global

_INTRODUCTION = """\
# The environment

<!-- Made from beatd/cli/ by `python -m beatd.cli.environment`: edit that. -->

Each option that may stand before a command may stand in the environment instead, as
`$BEATD_` and its long name: for `beatd`, for `beatd worker` and for all other commands.
The command line wins over the environment, and the environment over the config. What is
empty counts as not set; a flag is set by `1` or `true`.

| variable | option | what it does |
|---|---|---|
"""

_REST = """\

Where the command line names no config, `$BEATD_APP` wins over `$BEATD_CONFIG`; `-A` and
`--config` win over both. `$BEATD_WORKDIR` counts from where the command is given.
Celery's names for its options are read, too ([worker-options.md](worker-options.md));
where both are set, beatd's name wins.

## On a host with the units

Where beatd's units are ([deploy/systemd.md](deploy/systemd.md)), commands that look
need no options: `beatd list`, `status`, `dead`, `check` and all but `beatd`, `worker`
and `import`. If none names a config, and no `celeryconfig` is in the working directory,
they take what the units take: what `/etc/default/beatd` has of the variables above and
of `BEATD_OPTS`, else `/etc/beatd/config.py`, with the schedule file in `/var/lib/beatd`
and the broker's URL in `/etc/beatd/broker_url`, which root may read: `sudo beatd list`.
That of the results may lie in `/etc/beatd/result_backend`.

## Secrets

`$BEATD_BROKER_URL_FILE` names a file that has the broker's URL, as Docker and
Kubernetes mount secrets, and `$BEATD_RESULT_BACKEND_FILE` one that has the URL of the
result backend. If such a file is not there, or empty, nothing starts (exit status 78).
`$CREDENTIALS_DIRECTORY`, which systemd sets, is a folder: the credentials `broker_url`
and `result_backend` are read in the same way if they lie there. `default` in a file
means that none is set. These win over the files, and the files over the config:

| of the broker | of the result backend |
|---|---|
| `$CELERY_BROKER_URL` | `$CELERY_RESULT_BACKEND` |
| `$BEATD_BROKER_URL`, `-b` | `$BEATD_RESULT_BACKEND`, `--result-backend` |

Who may read the environment of a process may read what is in it: put a URL that has a
password in a file.
"""


def page() -> str:
    """Return `docs/environment.md`."""
    return _INTRODUCTION + "".join(map(_row, shown())) + _REST


def shown() -> Iterator[Global]:
    """Yield the options that may stand in the environment by a name of beatd's."""
    for option in beatd.params:
        if isinstance(option, Global) and not option.hidden:
            yield option


def names_of(option: click.Option) -> list[str]:
    """Return beatd's names of an option in the environment, the one by rule first."""
    return [name for name in option.envvar or () if name.startswith("BEATD_")]


def _row(option: Global) -> str:
    variables = ", ".join(f"`{name}`" for name in names_of(option))
    options = ", ".join(f"`{name}`" for name in option.opts)
    help_text = (option.help or "").partition("  [")[0].replace("|", "&#124;")
    return f"| {variables} | {options} | {help_text} |\n"


if __name__ == "__main__":
    print(page(), end="")
