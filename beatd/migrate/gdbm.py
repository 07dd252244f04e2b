"""Files of GNU dbm, read without its library, which not every Python has.

The header names a directory of buckets; each bucket has elements: a hash, and where the
key and the value behind it lie. Two entries of the directory may name one bucket.
"""

import fcntl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

_MAGICS = (0x13579ACF, 0x13579AD1)
"""Of files with offsets of 64 bits, without and with a counter of syncs."""

_OTHERS = (0x13579ACD, 0x13579ACE, 0x13579AD0)
"""Of files with shorter offsets, or of an old version: some have the present form."""

_ELEMENT = struct.Struct("i4sqii")
_NO_HASH = -1
_ELEMENTS_AT = 112
"""Where the elements of a bucket begin."""


def is_gdbm(head: bytes) -> bool:
    """Return whether a file with these first bytes is one of GNU dbm's."""
    return len(head) >= 4 and struct.unpack("I", head[:4])[0] in (*_MAGICS, *_OTHERS)


def read_gdbm(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of a file.

    Raises BlockingIOError while another process has it open to write, and ValueError or
    struct.error for a file that is damaged or of another form.
    """
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        header = _header(file)
        size = path.stat().st_size
        for at in _buckets(file, header):
            bucket = _part(file, at, header.bucket_size, size)
            for number in range(header.elements):
                place = _ELEMENTS_AT + number * _ELEMENT.size
                hashed, _, data, key, value = _ELEMENT.unpack_from(bucket, place)
                if hashed != _NO_HASH:
                    row = _part(file, data, key + value, size)
                    yield row[:key], row[key:]


class _Header(NamedTuple):
    magic: int
    block_size: int
    directory: int
    directory_size: int
    bits: int
    bucket_size: int
    elements: int


def _header(file: IO[bytes]) -> _Header:
    header = _Header._make(struct.unpack("Iiqiiii", file.read(32)))
    room = (header.bucket_size - _ELEMENTS_AT) // _ELEMENT.size
    if not 0 < header.elements <= room:
        raise ValueError("it is a file of GNU dbm in another form")
    return header


def _buckets(file: IO[bytes], header: _Header) -> list[int]:
    file.seek(header.directory)
    number = header.directory_size // 8
    listed = struct.unpack(f"{number}q", file.read(8 * number))
    return [*dict.fromkeys(listed)]


def _part(file: IO[bytes], at: int, length: int, size: int) -> bytes:
    if min(at, length) < 0 or at + length > size:
        raise ValueError("it is damaged: a part of it lies behind its end")
    file.seek(at)
    return file.read(length)
