"""The calls that signatures stand for: those to send now, and those that go with them.

A signature with a `subtask_type` stands for several calls:

    chain   one after the other: the first is sent, and the rest goes with it
    group   all at once
    chord   a header, all at once; when all of it has ended, the body with its results

A call whose end counts for a chord has the body as its `chord`, the header's id as its
`group_id` and its place there as `group_index`. Of a member of the header that is a
chain itself, the last step counts; of one that is a chord, its body.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import filterfalse
from typing import Any, TypeAlias

import msgspec

from beatd.errors import MessageError
from beatd.message.envelope import Signature, is_name
from beatd.message.options import is_signature, listed
from beatd.message.resend import Sending
from beatd.text import quoted

Result: TypeAlias = list[Any]
"""The runs that will have the value of a signature, as Celery writes them.

`[[task id, None], None]`, or `[[group id, None], [result, ...]]`.
"""

_FIRM = ("group_id", "stamped_headers")
"""Options that a signature keeps, whatever options it is sent with."""

_ENDS = ("task_id", "group_id", "group_index", "chord")
"""Options for one call of a signature: the call that has the signature's value."""

_LINKS = ("link", "link_error")


class Chord(msgspec.Struct, frozen=True):
    """A chord that begins; it must be stored before any call of its header ends."""

    group: str
    size: int
    """How many calls of the header will end."""
    shape: Result | None = None
    """The header's result, if its values are not one flat list."""


class Canvas:
    """The calls that follow from a run."""

    def __init__(self, new_id: Callable[[], str], **options: Any) -> None:
        """Begin with no calls; each will be sent with these `options`."""
        self.sends: list[Sending] = []
        self.chords: list[Chord] = []
        self.results: list[Result] = []
        """One for each added signature: the children of the run."""
        self._new_id = new_id
        self._options = options

    def add(
        self, signature: Signature, values: Sequence[Any] = (), **options: Any
    ) -> None:
        """Add the calls that a signature stands for.

        `values` go in front of the signature's arguments, unless it is immutable.
        Raises MessageError if a part of it is no signature.
        """
        self.results.append(self._send(signature, values, {**self._options, **options}))

    def _send(
        self, signature: Signature, values: Sequence[Any], options: Mapping[str, Any]
    ) -> Result:
        ends, others = _split(options, _ENDS)
        signature = self.frozen(signature, **ends)
        own = _merged(signature, others)
        args: Sequence[Any] = signature.get("args") or ()
        if not signature.get("immutable"):
            args = (*values, *args)
        match _kind(signature):
            case "chain":
                self._send_chain(_tasks(signature), args, own)
            case "group":
                _, own = _split(own, _ENDS)
                own["group_id"] = signature["options"]["task_id"]
                for member in _tasks(signature):
                    self._send(member, args, own)
            case "chord":
                return self._send_chord(signature, args, own)
            case _:
                kwargs = signature.get("kwargs") or {}
                self.sends.append(Sending(signature["task"], args, kwargs, own))
        return result_of(signature)

    def _send_chain(
        self, steps: Sequence[Signature], args: Sequence[Any], own: Mapping[str, Any]
    ) -> None:
        links, own = _split(own, _LINKS)
        steps = [linked_to(step, errbacks=links.get("link_error")) for step in steps]
        steps[-1:] = [linked_to(last, links.get("link")) for last in steps[-1:]]
        for first in steps[:1]:
            rest = [*(own.get("chain") or ()), *reversed(steps[1:])]
            self._send(first, args, {**own, "chain": rest})

    def _send_chord(
        self, signature: Signature, args: Sequence[Any], own: Mapping[str, Any]
    ) -> Result:
        _, own = _split(own, _ENDS)
        links, own = _split(own, _LINKS)
        bodys = _split(own, ("parent_id", "countdown", "eta"))[1]
        group = signature["options"]["task_id"]
        body = self.frozen(_body(signature), group_id=group)
        body["options"] = _merged(body, bodys)
        body = linked_to(body, links.get("link"), links.get("link_error"))
        body = _failable(body)
        header = _tasks(signature)
        if not header:
            return self._send(body, ([],), _split(own, ("chain",))[1])
        results = list(map(result_of, header))
        nested = any(inner is not None for _, inner in results)
        shape = [[group, None], results] if nested else None
        self.chords.append(Chord(group, sum(map(_size, header)), shape))
        own = {**_split(own, ("chain",))[1], "group_id": group, "chord": body}
        for member in header:
            self._send(member, args, own)
        return [[group, None], results]

    def frozen(self, signature: Signature, **ends: Any) -> dict[str, Any]:
        """Return the signature with ids for its calls, and `ends` where they belong.

        `ends` are options for the call that has the signature's value.
        """
        own = {**(signature.get("options") or {})}
        kwargs = signature.get("kwargs") or {}
        kind = _kind(signature)
        if kind == "chain":
            before, own = _split(own, _ENDS)
            ends = {**before, **ends}
            steps = _steps(signature)
            frozen = [self.frozen(step) for step in steps[:-1]]
            frozen += [self.frozen(last, **ends) for last in steps[-1:]]
            kwargs = {"tasks": frozen}
        elif kind in ("group", "chord"):
            named = [ends if kind == "group" else _header_options(signature)]
            own["task_id"] = self._id_of(*named, own)
            if kind == "group":
                _, ends = _split(ends, ("task_id", "group_index"))
                kwargs = {"tasks": self._numbered(_tasks(signature), ends)}
            else:
                body = self.frozen(_body(signature), **ends)
                # Its calls get the group's id when they are sent, as in Celery: there
                # may be a chord around it then, or a worker of Celery's draws another.
                header = self._numbered(_tasks(signature), {})
                kwargs = {**kwargs, "header": header, "body": body}
        else:
            task_id = self._id_of(own, ends)
            own = {**_merged(signature, ends), "task_id": task_id}
        return {**signature, "kwargs": kwargs, "options": own}

    def _id_of(self, *options: Mapping[str, Any]) -> str:
        """Return the first id among the options, or a new one."""
        found = (one["task_id"] for one in options if one.get("task_id"))
        task_id = next(found, None) or self._new_id()
        if not is_name(task_id):
            raise MessageError(
                f"options['task_id']: expected an id, got {quoted(task_id)}"
            )
        return task_id

    def _numbered(
        self, members: Sequence[Signature], ends: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        return [
            self.frozen(member, **{**ends, "group_index": index})
            for index, member in enumerate(members)
        ]


def result_of(signature: Signature) -> Result:
    """Return the runs that will have the value of a signature with ids."""
    match _kind(signature):
        case "chain" if steps := _tasks(signature):
            return result_of(steps[-1])
        case "group":
            members = list(map(result_of, _tasks(signature)))
            return [[signature["options"].get("task_id"), None], members]
        case "chord":
            return result_of(_body(signature))
    return [[(signature.get("options") or {}).get("task_id"), None], None]


def gathered(signature: Signature) -> Signature:
    """Return a signature whose value one call has: a group's is that of a chord."""
    match _kind(signature):
        case "group":
            return _chord_of(signature, _GATHER)
        case "chain" if steps := _tasks(signature):
            tasks = [*steps[:-1], gathered(steps[-1])]
            return {**signature, "kwargs": {"tasks": tasks}}
    return signature


_GATHER: Signature = {
    "task": "celery.accumulate",
    "args": [],
    "kwargs": {"index": 0},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}


def awaited(signature: Signature) -> Iterator[Signature]:
    """Yield the calls whose values together are the value of a signature."""
    try:
        match _kind(signature):
            case "chain":
                parts = _tasks(signature)[-1:]
            case "group":
                parts = _tasks(signature)
            case "chord":
                parts = [_body(signature)]
            case _:
                yield signature
                return
    except MessageError:
        return  # a signature that cannot be read cannot be waited for
    for part in parts:
        yield from awaited(part)


def doomed(signatures: Iterable[Signature]) -> Iterator[Signature]:
    """Yield the calls that others wait for, of signatures that will never be sent."""
    for signature in signatures:
        if _kind(signature) == "chain":
            with suppress(MessageError):
                yield from doomed(_tasks(signature))
        else:
            yield from awaited(signature)
        rest = (signature.get("options") or {}).get("chain")
        yield from doomed(filter(is_signature, listed(rest) or ()))


def _kind(signature: Signature) -> Any:
    return signature.get("subtask_type")


def _tasks(signature: Signature) -> list[Signature]:
    """Return the steps of a chain, the members of a group or of a chord's header."""
    kwargs = signature.get("kwargs") or {}
    name = "header" if _kind(signature) == "chord" else "tasks"
    found: Any = kwargs.get(name) or ()
    if is_signature(found):
        found = _tasks(found) if _kind(found) == "group" else [found]
    if not isinstance(found, list | tuple) or not all(map(is_signature, found)):
        raise MessageError(f"{_kind(signature)}: expected a list of signatures")
    if _kind(signature) == "chain":
        return list(found)
    flat: list[Signature] = []
    for member in found:
        if _kind(member) == "group":
            flat += _tasks(member)
        elif _kind(member) != "chain" or _tasks(member):
            flat.append(member)
    return flat


def _header_options(chord: Signature) -> Mapping[str, Any]:
    """Return the options of a header that is a group: its id is the chord's."""
    header: Any = (chord.get("kwargs") or {}).get("header")
    options: Mapping[str, Any] = {}
    if is_signature(header) and _kind(header) == "group":
        options = header.get("options") or {}
    return options


def _body(signature: Signature) -> Signature:
    body: Any = (signature.get("kwargs") or {}).get("body")
    if not is_signature(body):
        raise MessageError("chord: expected a signature as its body")
    found: Signature = body
    return found


def _steps(chain: Signature) -> list[Signature]:
    """Return the steps of a chain: no chains among them, a group only at the end.

    A step that has the values of a group as its own is followed by one call that gets
    them all: they are a header's, and it is the body.
    """
    steps: list[Signature] = []
    for step in reversed(_unchained(chain)):
        if steps and _kind(step) == "group":
            step = _chord_of(step, steps.pop())
        elif steps and _ends_in_group(step):
            body = {**_CHAIN, "kwargs": {"tasks": [_body(step), steps.pop()]}}
            step = {**step, "kwargs": {**step["kwargs"], "body": body}}
        steps.append(step)
    return steps[::-1]


def _unchained(chain: Signature) -> list[Signature]:
    """Return the steps of a chain and of those in it.

    A group of one is that one; an empty group is left out, unless it is all there is.
    """
    steps: list[Signature] = []
    for step in _tasks(chain):
        if _kind(step) == "group" and len(members := _tasks(step)) == 1:
            (step,) = members
        steps += _unchained(step) if _kind(step) == "chain" else [step]
    return list(filterfalse(is_empty_group, steps)) or steps[-1:]


def is_empty_group(signature: Signature) -> bool:
    """Return whether this is a group without members: a chain leaves it out."""
    return _kind(signature) == "group" and not _tasks(signature)


def _ends_in_group(signature: Signature) -> bool:
    """Return whether several calls together have the value of a signature."""
    match _kind(signature):
        case "group":
            return True
        case "chord":
            return _ends_in_group(_body(signature))
        case "chain":
            return any(map(_ends_in_group, _steps(signature)[-1:]))
    return False


_CHAIN: Signature = {
    "task": "celery.chain",
    "args": [],
    "options": {},
    "subtask_type": "chain",
    "immutable": False,
}


def _chord_of(group: Signature, body: Signature) -> Signature:
    group_id = (group.get("options") or {}).get("task_id")
    return {
        "task": "celery.chord",
        "args": group.get("args") or [],
        "kwargs": {"header": _tasks(group), "body": body, "kwargs": {}},
        "options": {"task_id": group_id} if group_id else {},
        "subtask_type": "chord",
        "immutable": bool(group.get("immutable")),
    }


def _failable(body: dict[str, Any]) -> dict[str, Any]:
    """Return a chord's body, with ids, as one that a Celery worker can fail.

    That stores the failure of a header under the body's own id, and calls the body's
    own errbacks. Of itself a chain has no id, and a chord has that of its header.
    """
    (task_id, _), members = result_of(body)
    last = next(awaited(body), None)
    if _kind(body) not in ("chain", "chord") or last is None or members is not None:
        return body
    if last["options"].get("chord"):
        return body  # a chord around it would not count a call that has failed already
    own = body["options"]
    failable = {**body, "options": {**own, "task_id": task_id}}
    if _kind(body) == "chord":
        _append(failable["options"], "link_error", last["options"].get("link_error"))
        kwargs = {"tasks": _tasks(body)}
        header = {**_GROUP, "kwargs": kwargs, "options": {"task_id": own["task_id"]}}
        failable["kwargs"] = {**body["kwargs"], "header": header}
    return failable


_GROUP: Signature = {
    "task": "celery.group",
    "args": [],
    "options": {},
    "subtask_type": "group",
    "immutable": False,
}


def _size(signature: Signature) -> int:
    """Return how many calls of a header's member count for the chord."""
    return sum(1 for _ in awaited(signature))


def _split(
    options: Mapping[str, Any], names: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of these names that are not None, and all other options."""
    picked = {name: options[name] for name in names if options.get(name) is not None}
    return picked, {name: v for name, v in options.items() if name not in names}


def _merged(signature: Signature, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a signature's options, overridden by these."""
    own: Mapping[str, Any] = signature.get("options") or {}
    firm = {*_FIRM, *(own.get("stamped_headers") or ())}
    over = {
        name: value
        for name, value in options.items()
        if value is not None and not (name in own and name in firm)
    }
    return {**own, **over}


def linked_to(
    signature: Signature, callbacks: Any = None, errbacks: Any = None
) -> dict[str, Any]:
    """Return a signature with more callbacks and errbacks."""
    linked = {**signature, "options": {**(signature.get("options") or {})}}
    kwargs = signature.get("kwargs") or {}
    kind = _kind(signature)
    if kind == "chord":
        body = linked_to(_body(signature), callbacks, errbacks)
        linked["kwargs"] = {**kwargs, "body": body}
    elif kind == "group":
        # A group has no value of its own for a callback: the end of its first member
        # stands for it, as in Celery.
        blind = [{**one, "immutable": True} for one in listed(callbacks) or ()]
        if linked["options"].get("link_error") is not None:
            # They take the place of those of its members when it is sent.
            _append(linked["options"], "link_error", errbacks)
            errbacks = None
        members = [linked_to(member, None, errbacks) for member in _tasks(signature)]
        members[:1] = [linked_to(member, blind) for member in members[:1]]
        linked["kwargs"] = {**kwargs, "tasks": members}
    else:
        _append(linked["options"], "link", callbacks)
        _append(linked["options"], "link_error", errbacks)
    return linked


def _append(options: dict[str, Any], name: str, more: Any) -> None:
    before = listed(options.get(name)) or []
    if new := [one for one in listed(more) or () if one not in before]:
        options[name] = [*before, *new]
