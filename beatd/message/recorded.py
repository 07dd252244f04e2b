"""A message that Celery has made for one run, as the shape of all runs' messages."""

import binascii
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import tzinfo
from functools import lru_cache
from json.encoder import encode_basestring_ascii as json_string
from operator import itemgetter
from typing import Any, NamedTuple

from beatd.message import codec
from beatd.message.shape import BodyForm, Hole, Shape
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


_FINISHED = BodyForm("", None, base64=False, embed={}, protocol_1=None, tail=None)
"""The body is encoded already."""

MARK = "celery_beat_task"
"""The header by which Celery marks what its beat sends."""


def shape_of(
    recorded: Recorded,
    *,
    task: str,
    id: str,
    own_id: str | None,
    timing: Timing,
    zone: tzinfo,
    of_process: tuple[str, ...],
) -> Shape | None:
    """Return the shape of a recorded message, which has the header `MARK`.

    It was made under the task id `id`, which nothing else contains; `own_id` is what
    the call says of the id itself. None if the id stands where no other can be put.
    """
    names, words, parted = _marks(id)
    headers = dict(recorded.envelope["headers"])
    properties = dict(recorded.envelope["properties"])
    is_timed = headers["eta"] is not None, headers["expires"] is not None
    planned = timing.at(0, None)
    if is_timed != (planned.eta is not None, planned.expires is not None):
        return None
    headers |= {
        "eta": names[Hole.ETA],
        "expires": names[Hole.EXPIRES],
        "argsrepr": names[Hole.ARGSREPR],
        "kwargsrepr": names[Hole.KWARGSREPR],
        MARK: names[Hole.MARKS],
    }
    properties.pop("expiration", None)
    # The last one, to have the expiration behind it.
    properties.pop("delivery_tag")
    properties["delivery_tag"] = names[Hole.TAG]
    envelope = {**recorded.envelope, "headers": headers, "properties": properties}
    envelope["body"] = names[Hole.BODY]
    text = recorded.write(envelope)
    parts, order = [], []
    mark = f'"{MARK}": '
    for part in parted.split(text):
        hole = words.get(part)
        if hole is None:
            if id in part:
                return None
            parts.append(part.replace("%", "%%"))
            continue
        if hole is Hole.MARKS:
            parts[-1] = parts[-1].removesuffix(mark)
        order.append(hole)
        parts.append('"%s"' if hole is Hole.BODY else "%s")
        if hole is Hole.TAG:
            order.append(Hole.EXPIRATION)
            parts.append("%s")
    return Shape(
        task=task,
        route=recorded.route,
        task_id=own_id,
        timing=timing,
        fixed_times=timing.fixed(),
        body=_FINISHED,
        slot_zone=zone,
        marks_lead="",
        argsrepr=None,
        kwargsrepr=None,
        repr_size=0,
        repr_levels=0,
        text="".join(parts),
        pick=itemgetter(*order),
        of_process=of_process,
    )


@lru_cache(maxsize=1)
def _marks(id: str) -> tuple[dict[Hole, str], dict[str, Hole], re.Pattern[str]]:
    """Return what stands for each hole, which hole a JSON text stands for, and what
    finds those texts."""
    names = {hole: f"{id} {hole.name}" for hole in Hole} | {Hole.ID: id}
    words = {json_string(name): hole for hole, name in names.items()}
    return names, words, re.compile(f"({'|'.join(map(re.escape, words))})")


class Arguments(NamedTuple):
    """The parts of a message that its arguments are in, as JSON."""

    body: str
    """The text between the quotes."""
    args_text: str
    kwargs_text: str


def arguments_of(recorded: Recorded) -> Arguments:
    """Return those parts of a recorded message."""
    write, headers = recorded.write, recorded.envelope["headers"]
    return Arguments(
        write(recorded.envelope["body"])[1:-1],
        write(headers["argsrepr"]),
        write(headers["kwargsrepr"]),
    )


def with_plain_json(
    shape: Shape, recorded: Recorded, repr_size: int, repr_levels: int
) -> Shape | None:
    """Return the shape for messages with other arguments, if their body is plain JSON.

    The two numbers bound the texts of the arguments for logs.
    """
    envelope = recorded.envelope
    encoding = envelope["properties"]["body_encoding"]
    is_json = envelope["content-type"] == codec.JSON
    if not is_json or "compression" in envelope["headers"]:
        return None
    body = envelope["body"]
    if encoding == "base64":
        body = binascii.a2b_base64(body).decode()
    try:
        *_, embed = json.loads(body)
    except ValueError:
        return None
    form = replace(
        _FINISHED, base64=encoding == "base64", tail=f", {json.dumps(embed)}]"
    )
    return replace(shape, body=form, repr_size=repr_size, repr_levels=repr_levels)


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
