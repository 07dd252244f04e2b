"""Writes the files of a project."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent


def write(folder: Path, files: Mapping[str, str], first: str = "") -> None:
    """Write files with these texts, each begun by `first`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(first + dedent(text))
