"""A message that Celery has made for one run, as the shape of all runs' messages."""

import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import lru_cache
from json.encoder import encode_basestring_ascii as json_string
from operator import itemgetter
from typing import Any, NamedTuple

from beatd.message import codec
from beatd.message.shape import MARKS, BodyForm, Hole, Shape, Shared, joined
from beatd.message.template import Template, shared
from beatd.message.timing import Timing
from beatd.routing import Route


class Recorded(NamedTuple):
    """One message, as it goes to a queue."""

    envelope: dict[str, Any]
    route: Route
    write: Callable[[Any], str]
    """Returns the JSON text of a part of the envelope, or of all of it."""

    @property
    def text(self) -> bytes:
        """The message."""
        return self.write(self.envelope).encode()


MARK = "celery_beat_task"
"""The header by which Celery marks what its beat sends."""


def template_of(
    recorded: Recorded,
    *,
    task: str,
    id: str,
    own_id: str | None,
    timing: Timing,
    zone: tzinfo,
    entry: str,
    of_process: tuple[str, ...],
    repr_bounds: tuple[int, int],
) -> Template | None:
    """Return the template of a recorded message, which has the header `MARK`.

    It was made under the task id `id`, which nothing else contains; `own_id` is what
    the call says of the id itself. `of_process` are the names of this process that are
    in it, and `repr_bounds` the bounds of the arguments' texts for logs. None if the id
    stands where no other can be put.
    """
    headers = recorded.envelope["headers"]
    is_timed = headers["eta"] is not None, headers["expires"] is not None
    planned = timing.at(0, None)
    if is_timed != (planned.eta is not None, planned.expires is not None):
        return None
    found = _parts_with_holes(recorded, id)
    if found is None:
        return None
    parts, order = found
    form, body = _body_of(recorded)
    write = recorded.write
    shape = Shape(
        task=task,
        route=recorded.route,
        task_id=own_id,
        timing=timing,
        fixed_times=timing.fixed(),
        body=form,
        slot_zone=zone,
        argsrepr=None,
        kwargsrepr=None,
        repr_size=repr_bounds[0],
        repr_levels=repr_bounds[1],
        parts=parts,
        pick=_picker(order),
        of_process=tuple(_json_of(write, name) for name in of_process),
    )
    args_text = shared(_json_of(write, headers["argsrepr"]))
    kwargs_text = shared(_json_of(write, headers["kwargsrepr"]))
    return Template(shape, shared(body), args_text, kwargs_text, entry)


def _parts_with_holes(
    recorded: Recorded, id: str
) -> tuple[tuple[str | Shared, ...], tuple[Hole, ...]] | None:
    """Return the envelope with a %s for each hole, and the holes in their order."""
    names, words, parted = _marks(id)
    headers = dict(recorded.envelope["headers"])
    properties = dict(recorded.envelope["properties"])
    headers |= {
        "eta": names[Shared.ETA],
        "expires": names[Shared.EXPIRES],
        "argsrepr": names[Hole.ARGSREPR],
        "kwargsrepr": names[Hole.KWARGSREPR],
        MARK: names[Hole.ENTRY],
    }
    properties.pop("expiration", None)
    # The last one, to have the expiration behind it.
    properties.pop("delivery_tag")
    properties["delivery_tag"] = names[Hole.TAG]
    envelope = {**recorded.envelope, "headers": headers, "properties": properties}
    envelope["body"] = names[Hole.BODY]
    text = recorded.write(envelope)
    parts: list[str | Shared] = []
    order: list[Hole] = []
    mark = f'"{MARK}": '
    for part in parted.split(text):
        hole = words.get(part)
        if hole is None:
            if id in part:
                return None
            parts.append(part.replace("%", "%%").removesuffix(mark))
        elif isinstance(hole, Shared):
            parts.append(hole)
        else:
            order.append(hole)
            parts += _PUT.get(hole, ("%s",))
    return joined(parts), tuple(order)


_PUT: dict[Hole, Sequence[str | Shared]] = {
    Hole.BODY: ('"%s"',),
    Hole.ENTRY: MARKS,
    Hole.TAG: ("%s", Shared.EXPIRATION),
}
"""What is put for a hole, but for the usual."""


@lru_cache(maxsize=1)
def _marks(
    id: str,
) -> tuple[dict[Hole | Shared, str], dict[str, Hole | Shared], re.Pattern[str]]:
    """Return what stands for each hole, which hole a JSON text stands for, and what
    finds those texts."""
    parts: tuple[Hole | Shared, ...] = (*Hole, *Shared)
    names = {part: f"{id} {part.name}" for part in parts} | {Hole.ID: id}
    words = {json_string(name): hole for hole, name in names.items()}
    return names, words, re.compile(f"({'|'.join(map(re.escape, words))})")


@lru_cache(maxsize=64)
def _picker(order: tuple[Hole, ...]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    return itemgetter(*order)


def _json_of(write: Callable[[Any], str], value: Any) -> str:
    """Return the JSON of a part; texts have one form only, which is found faster."""
    return json_string(value) if type(value) is str else write(value)


def _body_of(recorded: Recorded) -> tuple[BodyForm, str]:
    """Return the form of a recorded body, and the text of its arguments.

    That is all between the quotes if the body is no plain JSON.
    """
    envelope = recorded.envelope
    body = envelope["body"]
    is_base64 = envelope["properties"]["body_encoding"] == "base64"
    is_json = envelope["content-type"] == codec.JSON
    if is_json and "compression" not in envelope["headers"]:
        try:
            text = binascii.a2b_base64(body).decode("ascii") if is_base64 else body
            tail = _tail_of(text)
        except (TypeError, ValueError):
            tail = ""
        if tail and text.isascii() and text.startswith("[") and text.endswith(tail):
            return _form(base64=is_base64, tail=tail), text[1 : -len(tail)]
    return _form(base64=False, tail=None), _json_of(recorded.write, body)[1:-1]


def _tail_of(body: str) -> str:
    """Return the text of a body after its arguments. Raises ValueError without one."""
    if body.endswith(_NOTHING_FOLLOWS):
        return _NOTHING_FOLLOWS
    *_, embed = json.loads(body)
    return f", {json.dumps(embed)}]"


_NOTHING_FOLLOWS = (
    ', {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
)


@lru_cache(maxsize=64)
def _form(*, base64: bool, tail: str | None) -> BodyForm:
    return BodyForm("", None, base64, embed={}, protocol_1=None, tail=tail)


def filled_with(
    shape: Shape, args: list[Any], kwargs: dict[str, Any], entry: str
) -> Template:
    """Return the template of a call with these arguments.

    Raises TypeError, ValueError or RecursionError if they are no plain JSON.
    """
    body = _plain.encode((args, kwargs))[1:-1]
    args_text = shared(json_string(shape.represent(args)))
    kwargs_text = shared(json_string(shape.represent(kwargs)))
    return Template(shape, shared(body), args_text, kwargs_text, entry)


_plain = json.JSONEncoder()
"""It knows no types of its own: whoever registers one with kombu has it written so."""
