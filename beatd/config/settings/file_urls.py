"""Addresses of SQLite files: `sqlite:///relative.db`, `sqlite:////var/lib/x.db`."""

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

_SCHEMES = ("sqlite", "db+sqlite")
"""`db+sqlite:` is Celery's spelling; the file is in beatd's own form all the same."""

_SIGNS = re.compile("[%?#]")
"""What means something else in an address than in a path."""


def url_of_file(path: Path) -> str:
    """Return the address of a file."""
    return f"sqlite:///{_SIGNS.sub(lambda sign: quote(sign[0]), str(path))}"


def file_of_url(url: str) -> Path | None:
    """Return the path of the file that an address names; None if it is of no file."""
    parts = urlsplit(url)
    return Path(unquote(parts.path[1:])) if parts.scheme in _SCHEMES else None
