"""`beatd resume`: see pause.py."""

from beatd.cli.pause import resume as command

__all__ = ["command"]
