"""The arguments of a task's next try, where `retry` names some of them."""

import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, TypeAlias

from beatd.tasks.current import Args, Kwargs

_Both: TypeAlias = tuple[Sequence[Any] | None, Mapping[str, Any] | None]

_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def of_next_try(
    parameters: inspect.Signature, present: _Both, args: Args, kwargs: Kwargs
) -> _Both:
    """Return the arguments of the next try; None: the same as in this try.

    A parameter that was given by place may be given anew by name, and the other way
    round: what this try had for it is left out, and all else is kept.
    """
    if args is not None and kwargs is None:
        by_place = [
            one for one in parameters.parameters.values() if one.kind in _BY_PLACE
        ]
        anew = {one.name for one in by_place[: len(args)] if one.kind != _BY_PLACE[0]}
        return args, {k: v for k, v in (present[1] or {}).items() if k not in anew}
    if kwargs is not None and args is None:
        try:
            bound = parameters.bind_partial(*(present[0] or ()))
        except TypeError:
            return None, kwargs  # the next try says what is wrong
        anew = {
            name
            for name in kwargs.keys() & bound.arguments.keys()
            if parameters.parameters[name].kind == Parameter.POSITIONAL_OR_KEYWORD
        }
        bound.arguments.update({name: kwargs[name] for name in anew})
        return bound.args, {k: v for k, v in kwargs.items() if k not in anew}
    return args, kwargs
