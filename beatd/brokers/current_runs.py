"""Which run a message is for, as far as brokers have to know it."""

import msgspec


class _Headers(msgspec.Struct):
    beatd_entry: str | None = None
    id: str | None = None


class _Message(msgspec.Struct):
    headers: _Headers


_decoder = msgspec.json.Decoder(_Message)
_names = msgspec.json.Decoder(list[str])


def run_of(message: bytes) -> tuple[str, str] | None:
    """Return the entry and the task id of a message that the scheduler emitted.

    None for other messages, and for what is none.
    """
    if b'"beatd_entry"' not in message:
        return None
    try:
        headers = _decoder.decode(message).headers
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
        return None
    if headers.beatd_entry is None or headers.id is None:
        return None
    return headers.beatd_entry, headers.id


def names_in(told: bytes | None) -> list[str]:
    """Return the names of queues that a worker has told; none of what is no such list.

    An earlier version tells none.
    """
    try:
        return _names.decode(told or b"")
    except ValueError:
        return []
