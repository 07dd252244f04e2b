"""Exceptions on the wire: what readers are told, and what they must not be made do."""

import os
import sys
from pathlib import Path
from types import ModuleType

import celery.exceptions  # noqa: F401 # it is imported where the classes are sought
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beatd import errors
from beatd.results.encoding import Encoding
from beatd.results.exceptions import exception_of, form_of, is_form


class Plain(ValueError):
    pass


class OwnRetry(errors.Retry):
    pass


class Demanding(ValueError):
    """Cannot be made anew from its args."""

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __reduce__(self) -> str:
        raise TypeError("no")


def anything(value: object) -> bool:
    return True


def test_an_exception_is_named_by_its_class_and_arguments() -> None:
    assert form_of(Plain("a", 1), anything) == {
        "exc_type": "Plain",
        "exc_message": ["a", 1],
        "exc_module": __name__,
    }


def test_one_that_cannot_be_carried_is_told_as_its_nearest_base() -> None:
    form = form_of(Demanding("a", code=1), anything)

    assert form == {
        "exc_type": "ValueError",
        "exc_message": ["a"],
        "exc_module": "builtins",
    }


def test_arguments_that_cannot_be_encoded_are_told_as_their_repr() -> None:
    form = form_of(Plain({1}, "b"), lambda value: isinstance(value, str))

    assert form["exc_message"] == ["{1}", "b"]


def test_even_an_argument_without_a_repr_is_told() -> None:
    form = form_of(Exception(Unspeakable()), anything)

    wanted = "<Unspeakable whose repr raises RuntimeError>"
    assert form["exc_type"] == "UnpickleableExceptionWrapper"
    assert form["exc_message"][:3] == ["builtins", "Exception", [wanted]]


@pytest.mark.parametrize(
    "error",
    [
        errors.SoftTimeLimitExceeded(),
        errors.TimeLimitExceeded(1.5),
        errors.WorkerLost("signal 9 (SIGKILL)"),
        errors.NotRegistered("shop.add"),
        errors.MaxRetriesExceeded("text"),
        errors.Revoked("expired"),
        errors.MessageError("text"),
        Plain("a", 1),
        KeyError("k"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_is_read_as_what_was_written(error: Exception) -> None:
    found = exception_of(form_of(error, anything))

    assert type(found) is type(error)
    assert found.args == error.args


@pytest.mark.parametrize("name", ["Ignore", "Reject", "Retry", "TaskPredicate"])
@pytest.mark.parametrize("module", ["celery.exceptions", "beatd.errors"])
def test_a_result_never_decides_about_the_run_that_asks_for_it(
    module: str, name: str
) -> None:
    found = exception_of({"exc_type": name, "exc_message": ["a"], "exc_module": module})

    assert type(found).__name__ == name
    assert type(found).__mro__[1] is Exception
    assert found.args == ("a",)


@pytest.mark.parametrize("verdict", [errors.Reject("a", True), OwnRetry("a")])
def test_nor_does_one_that_pickle_has_carried(verdict: Exception) -> None:
    encoding = Encoding("pickle", accept=("pickle",))
    data = encoding.pack({"status": "FAILURE", "result": verdict})

    found = encoding.decode("id", data).result

    assert type(found).__mro__[1] is Exception
    assert found.args == verdict.args


def test_one_of_an_unknown_module_is_made_under_its_name() -> None:
    found = exception_of(
        {"exc_type": "Outer.Gone", "exc_message": ["a"], "exc_module": "no.such"}
    )

    assert repr(found) == "Gone('a')"
    assert type(found).__qualname__ == "Outer.Gone"
    assert type(found).__module__ == "no.such"
    assert "no" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "eval"),
        ("os", "path.join"),
        ("", ""),
        (None, "ValueError"),
        ("builtins", "nul\0 and \ud800"),
        ([], "ValueError"),
    ],
)
def test_nothing_but_an_exception_is_ever_made(
    module: object, name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    found = exception_of(
        {"exc_type": name, "exc_message": [f"touch {mark}"], "exc_module": module}
    )

    assert isinstance(found, Exception)
    assert found.args == (f"touch {mark}",)
    assert not mark.exists()


def test_no_code_of_a_module_is_run_to_find_a_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lazy = ModuleType("lazy")
    lazy.__dict__["__getattr__"] = lambda name: os._exit(1)
    monkeypatch.setitem(sys.modules, "lazy", lazy)

    found = exception_of({"exc_type": "E", "exc_message": [], "exc_module": "lazy"})

    assert type(found).__name__ == "E"


@pytest.mark.parametrize("message", [["a", "b", "c"], "text", None, {"a": 1}])
def test_arguments_that_a_class_does_not_take_still_give_an_exception(
    message: object,
) -> None:
    found = exception_of(
        {"exc_type": "Demanding", "exc_message": message, "exc_module": __name__}
    )

    assert type(found).__name__ == "Demanding"
    assert found.args == (tuple(message) if isinstance(message, list) else (message,))


@pytest.mark.parametrize("value", [None, [], "text", {}, {"exc_type": 1}])
def test_other_values_are_no_exceptions(value: object) -> None:
    assert not is_form(value)


names = st.sampled_from(
    ["ValueError", "UnpickleableExceptionWrapper", "Retry", "a.b", "", "\0", "\ud800"]
)
modules = st.sampled_from(
    ["builtins", "celery.utils.serialization", "celery.exceptions", "beatd.errors", ""]
)
anything_else = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | names | modules,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner),
    max_leaves=10,
)


@given(names, modules | anything_else, anything_else)
@example("UnpickleableExceptionWrapper", "celery.utils.serialization", [1, 2, 3, 4])
def test_whatever_a_form_holds_an_exception_comes_of_it(
    name: str, module: object, message: object
) -> None:
    form = {"exc_type": name, "exc_module": module, "exc_message": message}

    assert isinstance(exception_of(form), Exception)
