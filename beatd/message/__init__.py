"""Celery's task message, both ways.

codec.py     values as bytes, by the serializers and compressions of Celery
template.py  out: `template` encodes a call but for what differs from slot to slot,
             `Template.complete` gives the bytes
shape.py     what templates share: the message's text with holes
options.py   what `apply_async` takes
envelope.py  in: `read_envelope` reads what is needed to decide about a message,
             `read_body` the arguments
resend.py    from what came in to what goes out: retries
canvas.py    and what follows: callbacks, chains, groups and chords
notice.py    what is no call: events, remote control
"""

from beatd.message.canvas import Canvas, Chord, awaited, doomed
from beatd.message.envelope import (
    Call,
    Envelope,
    Limits,
    Signature,
    read_body,
    read_envelope,
)
from beatd.message.notice import Notice, read_notice, write_notice
from beatd.message.resend import Sending, retried, retry_of
from beatd.message.shape import MessageFormat
from beatd.message.template import Template, template

__all__ = [
    "Call",
    "Canvas",
    "Chord",
    "Envelope",
    "Limits",
    "MessageFormat",
    "Notice",
    "Sending",
    "Signature",
    "Template",
    "awaited",
    "doomed",
    "read_body",
    "read_envelope",
    "read_notice",
    "retried",
    "retry_of",
    "template",
    "write_notice",
]
