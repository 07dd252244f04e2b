"""Celery's task message, both ways.

template.py  out: `template` encodes a call but for what differs from slot to slot,
             `Template.complete` gives the bytes
shape.py     what templates share: the message's text with holes
options.py   what `apply_async` takes
envelope.py  in: `read_envelope` reads what is needed to decide about a message,
             `read_body` the arguments
resend.py    from what came in to what goes out: retries, callbacks, chains
"""

from beatd.message.envelope import (
    Call,
    Envelope,
    Limits,
    Signature,
    read_body,
    read_envelope,
)
from beatd.message.resend import Sending, follow_up, next_step, retry_of
from beatd.message.shape import MessageFormat
from beatd.message.template import Template, template

__all__ = [
    "Call",
    "Envelope",
    "Limits",
    "MessageFormat",
    "Sending",
    "Signature",
    "Template",
    "follow_up",
    "next_step",
    "read_body",
    "read_envelope",
    "retry_of",
    "template",
]
