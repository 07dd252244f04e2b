"""The exceptions of the application that the recorded workers ran; see wire_app."""

from types import ModuleType


class AppError(Exception):
    def __init__(self, code: object, reason: str) -> None:
        super().__init__(code, reason)


class Outer:
    class Inner(Exception):
        pass


class NeedsKw(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code={code}")


def local_error(text: str) -> Exception:
    class Local(Exception):
        pass

    Local.__module__ = "wireapp"
    return Local(text)


class Unpicklable:
    """Something like a lock, whose repr is known."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> str:
        raise TypeError("cannot be pickled")


def module() -> ModuleType:
    """Return a module `wireapp` with these exceptions in it."""
    wireapp = ModuleType("wireapp")
    for kind in (AppError, Outer, Outer.Inner, NeedsKw):
        kind.__module__ = "wireapp"
        setattr(wireapp, kind.__name__, kind)
    return wireapp
