"""Directories that are not there, in words."""

import shlex
from pathlib import Path


def no_folder(folder: Path) -> str:
    """Return words about a directory that is not there, with the way out."""
    command = f"mkdir -p {shlex.quote(str(folder))}"
    return f"there is no directory {folder} ({command} makes it)"


def why_not(path: Path, error: OSError) -> str:
    """Return why a file cannot be opened, or made."""
    if not path.parent.is_dir():
        return no_folder(path.parent)
    return error.strerror or str(error)
