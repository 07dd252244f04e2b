"""Celery's task message, both ways.

codec.py      values as bytes, by Celery's serializers and compressions
template.py   out: `template` encodes a call but for the parts that differ from slot to
              slot, `Template.complete` returns the bytes
shape.py      the message's text with holes, which templates share
recorded.py   the same, of a message that Celery itself has made
timing.py     its eta and expiry
represent.py  the text of its arguments, for logs and monitors
options.py    the options of `apply_async`
envelope.py   in: `read_envelope` reads what is needed to decide about a message,
              `read_body` the arguments
wire.py       the JSON of both
resend.py     from a call that came in to its retry that goes out
canvas.py     and to the calls that follow it: callbacks, chains, groups and chords
notice.py     messages that are no calls: events, remote control
"""

from beatd.message.canvas import (
    Canvas,
    Chord,
    awaited,
    doomed,
    gathered,
    is_empty_group,
    linked_to,
)
from beatd.message.envelope import (
    Call,
    Envelope,
    Limits,
    Signature,
    named_in,
    read_body,
    read_envelope,
)
from beatd.message.notice import Notice, read_notice, write_notice
from beatd.message.resend import Sending, requeued, retried, retry_of
from beatd.message.shape import MessageFormat
from beatd.message.template import EntryMessage, Made, Template, template

__all__ = [
    "Call",
    "Canvas",
    "Chord",
    "EntryMessage",
    "Envelope",
    "Limits",
    "Made",
    "MessageFormat",
    "Notice",
    "Sending",
    "Signature",
    "Template",
    "awaited",
    "doomed",
    "gathered",
    "is_empty_group",
    "linked_to",
    "named_in",
    "read_body",
    "read_envelope",
    "read_notice",
    "requeued",
    "retried",
    "retry_of",
    "template",
    "write_notice",
]
