"""Exceptions in Celery's form: readable without beatd, and safe to read.

    {"exc_type": qualified name, "exc_message": arguments, "exc_module": module}

A reader imports nothing: it uses the class if its module is imported already, or else
makes a class of that name.
"""

import pickle
import sys
from collections.abc import Callable
from typing import Any

from beatd import errors

_CELERY_NAMES: dict[type[Exception], tuple[str, str]] = {
    errors.SoftTimeLimitExceeded: ("billiard.exceptions", "SoftTimeLimitExceeded"),
    errors.TimeLimitExceeded: ("billiard.exceptions", "TimeLimitExceeded"),
    errors.WorkerLost: ("billiard.exceptions", "WorkerLostError"),
    errors.NotRegistered: ("celery.exceptions", "NotRegistered"),
    errors.MaxRetriesExceeded: ("celery.exceptions", "MaxRetriesExceededError"),
    errors.Revoked: ("celery.exceptions", "TaskRevokedError"),
    errors.ChordError: ("celery.exceptions", "ChordError"),
    errors.Reject: ("celery.exceptions", "Reject"),
    errors.Retry: ("celery.exceptions", "Retry"),
    errors.MessageError: ("kombu.exceptions", "EncodeError"),
}
"""Celery's names for beatd's exceptions."""

_OURS = {name: kind for kind, name in _CELERY_NAMES.items()}

_WRAPPER = ("celery.utils.serialization", "UnpickleableExceptionWrapper")
"""Celery's form of an exception that pickle cannot carry: module, name, args, repr."""


_PREDICATE = ("celery.exceptions", "TaskPredicate")


class RemoteTraceback(Exception):
    """The traceback of a run in another process, as the cause of its exception."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def with_traceback(error: object, text: str | None) -> None:
    """Attach the traceback of a run to its exception."""
    if isinstance(error, BaseException) and text and error.__cause__ is None:
        error.__cause__ = RemoteTraceback(text)


def is_named_by_celery(error: BaseException) -> bool:
    """Return whether Celery has an exception of its own for this one."""
    return type(error) in _CELERY_NAMES


def form_of(error: BaseException, can_encode: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the form of an exception; reprs stand for arguments with no encoding."""
    if isinstance(error, Exception) and type(error) in _CELERY_NAMES:
        module, name = _CELERY_NAMES[type(error)]
        args: list[Any] = list(error.args)
    elif carried := carriable(error):
        module, name = type(carried).__module__, type(carried).__qualname__
        args = list(carried.args)
    else:
        module, name = _WRAPPER
        kind = type(error)
        own = [arg if _survives(arg) else repr_of(arg) for arg in error.args]
        args = [kind.__module__, kind.__name__, own, repr_of(error)]
    message = [arg if can_encode(arg) else repr_of(arg) for arg in args]
    return {"exc_type": name, "exc_message": message, "exc_module": module}


def carriable(error: BaseException) -> BaseException | None:
    """Return the exception as pickle can carry it, perhaps as one of its base classes.

    None if pickle can carry neither it nor a base class of it below Exception.
    """
    if _survives(error):
        return error
    for kind in type(error).__mro__[1:]:
        if kind in (Exception, BaseException, object):
            return None
        try:
            plainer: Any = kind(*error.args)
        except Exception:  # a foreign constructor
            continue
        if _survives(plainer):
            return plainer  # type: ignore[no-any-return] # a class between error's and Exception
    return None


def is_form(value: Any) -> bool:
    """Return whether a result's value is an exception in Celery's form."""
    return isinstance(value, dict) and isinstance(value.get("exc_type"), str)


def exception_of(form: dict[str, Any]) -> BaseException:
    """Return the exception that a form stands for; imports nothing."""
    module, name = form.get("exc_module"), form["exc_type"]
    args = _listed(form.get("exc_message"))
    if (module, name) == _WRAPPER and len(args) == 4:
        module, name, args = args[0], args[1], _listed(args[2])
    module, name = str(module), str(name)
    kind = _known(module, name)
    if kind and not _decides(kind):
        try:
            return kind(*args)
        except Exception:  # its constructor takes other arguments than `args` has
            pass
    return _made(module, name)(*args)


def harmless(error: BaseException) -> BaseException:
    """Return the exception, or a plain one of the same name for one that decides.

    Raised by a task that asks for the result, such a one would decide about its own
    run: whoever stored it could have that run retried, or set aside.
    """
    kind = type(error)
    if not _decides(kind):
        return error
    return _made(kind.__module__, kind.__qualname__)(*error.args)


def repr_of(value: Any) -> str:
    """Return a value's repr; never raises."""
    try:
        return repr(value)
    except BaseException as error:  # foreign code: SystemExit, too
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


def _known(module: str, name: str) -> type[Exception] | None:
    if ours := _OURS.get((module, name)):
        return ours
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        # Not by getattr: a module may have code that answers it, with an import even.
        found = getattr(found, "__dict__", {}).get(part)
    # A result that somebody forged must not have anything called but an exception, nor
    # SystemExit raised.
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _decides(kind: type[BaseException]) -> bool:
    """Return whether a run ends by raising this in another way than by failing."""
    # Celery's Ignore, Reject and Retry have this base; it need not be installed.
    names = {(one.__module__, one.__name__) for one in kind.__mro__}
    return issubclass(kind, errors.Verdict) or _PREDICATE in names


def _made(module: str, name: str) -> type[Exception]:
    # A class cannot have just any text as its name.
    name = name.encode("utf-8", "backslashreplace").decode().replace("\0", r"\0")
    named = {"__module__": module, "__qualname__": name}
    return type(name.rpartition(".")[2], (Exception,), named)


def _survives(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except BaseException:  # foreign code: `__reduce__`, constructors
        return False
    return True
