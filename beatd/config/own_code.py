"""Which code is that of a package, and which is that of others.

The own code of what makes messages makes the same message of the same call each time.
Code of others (a task's, a router's, what an instrumentation has put around it) may do
anything.
"""

from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any


@dataclass(frozen=True, slots=True)
class OwnCode:
    """The code of one package."""

    name: str
    """As people call the package."""
    folder: str
    """The path of its files up to their names."""

    @classmethod
    def of(cls, name: str, file: str | None) -> "OwnCode":
        """Return the code of the package whose `__init__` is this file."""
        return cls(name, str(Path(file or "").parent / "_")[:-1])

    def has(self, function: Any) -> bool:
        """Return whether a function is the package's own."""
        plain = getattr(function, "__func__", function)
        return (
            type(plain) is FunctionType  # what imitates one says it by `__class__`
            and plain.__code__.co_filename.startswith(self.folder)
        )

    def foreign(self, owner: Any, *names: str) -> str:
        """Return which of these functions of an object is of others, in words."""
        for name in names:
            function = getattr(owner, name, None)
            if function is not None and not self.has(function):
                return f"{name_of(function)} is not {self.name}'s own"
        return ""


def name_of(code: Any) -> str:
    """Return the name of a function, or of the class of an object that is called."""
    named = code if hasattr(code, "__qualname__") else type(code)
    return f"{named.__module__}.{named.__qualname__}"
