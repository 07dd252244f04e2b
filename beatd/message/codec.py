"""Bytes from values and back: Celery's serializers and compressions, within bounds.

Bodies of messages and results are encoded here and nowhere else. Text in errors says
what is wrong and never shows the data.
"""

import base64
import bz2
import importlib
import json
import lzma
import pickle
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import msgspec

from beatd.errors import MessageError
from beatd.text import quoted

MAX_SIZE = 64 * 1024 * 1024
"""Bytes that a compressed body may grow to."""

MAX_DEPTH = 256
"""Levels of lists and dicts within each other that a decoded value may have."""

JSON = "application/json"
MSGPACK = "application/x-msgpack"
YAML = "application/x-yaml"
PICKLE = "application/x-python-serialize"


class Encoded(NamedTuple):
    """A value as bytes, with their content type and encoding."""

    content_type: str
    content_encoding: str
    data: bytes


def dumps(value: Any, serializer: str) -> Encoded:
    """Return `value` encoded as kombu's serializer of that name does."""
    kind = _SERIALIZERS.get(serializer)
    if kind is None:
        raise MessageError(f"no serializer named {serializer!r}; known: {_NAMES}")
    try:
        data = kind.encode(value)
    except MessageError:
        raise
    except RecursionError as error:
        raise MessageError(f"{serializer}: nested too deeply") from error
    except Exception as error:  # `__json__`, `__reduce__` and the like are the user's
        raise MessageError(f"{serializer}: {error}") from error
    return Encoded(kind.content_type, kind.content_encoding, data)


def loads(data: bytes, content_type: str, accept: frozenset[str]) -> Any:
    """Return `data` decoded, if `accept`, a set of content types, has its type."""
    kind = _BY_CONTENT_TYPE.get(content_type)
    if kind is None:
        raise MessageError(f"no serializer for content type {quoted(content_type)}")
    if content_type not in accept:
        allowed = ", ".join(sorted(map(name_of, accept))) or "nothing"
        raise MessageError(
            f"{name_of(content_type)} is refused: accept_content allows {allowed}"
        )
    try:
        value = kind.decode(data)
    except MessageError:
        raise
    except json.JSONDecodeError as error:
        raise MessageError(f"not JSON: {error.msg} at {error.pos}") from error
    except RecursionError as error:
        raise MessageError(_TOO_DEEP) from error
    except Exception as error:  # unpickling runs foreign code; yaml raises all kinds
        name = name_of(content_type)
        raise MessageError(f"not {name}: {type(error).__name__}") from error
    if len(data) > MAX_DEPTH:  # fewer bytes cannot hold more levels
        check_depth(value)
    return value


def content_types(names: Iterable[str]) -> frozenset[str]:
    """Return the content types that `accept_content` names, by name or in full."""
    found = set()
    for name in names:
        if name in _SERIALIZERS:
            found.add(_SERIALIZERS[name].content_type)
        elif name in _BY_CONTENT_TYPE:
            found.add(name)
        else:
            raise MessageError(f"no serializer named {name!r}; known: {_NAMES}")
    return frozenset(found)


def compress(data: bytes, kind: str) -> tuple[bytes, str]:
    """Return `data` compressed, and the compression's name for the header."""
    compression = _compression(kind)
    return compression.compress(data), compression.content_type


def decompress(data: bytes, kind: str, limit: int = MAX_SIZE) -> bytes:
    """Return `data` decompressed; raise MessageError beyond `limit` bytes."""
    engine = _compression(kind).decompressor()
    try:
        plain: bytes = engine.decompress(data, limit + 1)
    except Exception as error:  # each module has its own kind
        raise MessageError(f"not {quoted(kind)}: {type(error).__name__}") from error
    if len(plain) > limit:
        raise MessageError(f"grows beyond {limit} bytes when decompressed")
    if not engine.eof:
        raise MessageError(f"not {quoted(kind)}: it ends early")
    return plain


def check_depth(value: Any) -> None:
    """Raise MessageError when lists and dicts lie deeper than MAX_DEPTH.

    Each object is checked once: with YAML and pickle, an object can occur many times,
    or within itself.
    """
    level: list[Any] = [value]
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in _children(parent)
            if isinstance(child, list | dict | tuple)
            and id(child) not in seen
            and not seen.add(id(child))  # type: ignore[func-returns-value] # None
        ]
        if not level:
            return
    raise MessageError(_TOO_DEEP)


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


# -- JSON, with kombu's marks for types that JSON does not have


def _marked(value: Any) -> Any:
    """Return JSON's form of a value that JSON does not know."""
    own_form = getattr(value, "__json__", None)
    if own_form is not None:
        return own_form()
    match value:
        case datetime():
            return _mark("datetime", value.isoformat())
        case date():
            return _mark("date", value.isoformat())
        case time():
            return _mark("time", value.isoformat())
        case Decimal():
            return _mark("decimal", str(value))
        case uuid.UUID():
            return _mark("uuid", {"hex": value.hex})
        case bytes():
            try:
                return _mark("bytes", value.decode())
            except UnicodeDecodeError:
                return _mark("base64", base64.b64encode(value).decode())
    raise MessageError(f"json has no form for type {type(value).__name__}")


def _mark(kind: str, value: Any) -> dict[str, Any]:
    return {"__type__": kind, "__value__": value}


_UNMARK: dict[Any, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda text: datetime.fromisoformat(text).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda fields: uuid.UUID(**fields),
    "bytes": str.encode,
    "base64": lambda text: base64.b64decode(text.encode()),
}


def _unmarked(fields: dict[str, Any]) -> Any:
    if len(fields) != 2 or fields.keys() != {"__type__", "__value__"}:
        return fields
    kind = fields["__type__"]
    if not isinstance(kind, str) or kind not in _UNMARK:
        raise MessageError(f"no type is marked {quoted(kind)}")
    return _UNMARK[kind](fields["__value__"])


_json_encoder = json.JSONEncoder(default=_marked)
_json_decoder = json.JSONDecoder(object_hook=_unmarked)

# Python's encoder makes this anew for each text, which takes as long as a short text
# itself. Other implementations of Python have none.
_make: Any = getattr(json.encoder, "c_make_encoder", None)
_write: Callable[[Any, int], Iterable[str]] | None = _make and _make(
    None, _marked, encode_basestring_ascii, None, ": ", ", ", False, False, True
)


def json_text(value: Any) -> str:
    """Return JSON text as kombu writes it; raises what `json` raises."""
    if _write:
        # Anything that cannot be written, a circle among it, is for `json` to name.
        with suppress(Exception):
            return "".join(_write(value, 0))
    return _json_encoder.encode(value)


def _dump_json(value: Any) -> bytes:
    return json_text(value).encode("ascii")


def _load_json(data: bytes) -> Any:
    return _json_decoder.decode(data.decode())


# -- msgpack, of which msgspec knows more types than Celery's readers do

_PACKED = (str, bytes, bytearray, int, float, list, tuple, dict, type(None))


def _dump_msgpack(value: Any) -> bytes:
    for part in _parts(value):
        if not isinstance(part, _PACKED):
            raise MessageError(f"msgpack has no form for type {type(part).__name__}")
    return msgspec.msgpack.encode(value, enc_hook=_base_form)


def _base_form(value: Any) -> Any:
    """Return an object of a subclass as its base class: msgspec takes no subclasses."""
    match value:
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value)
    raise MessageError(f"msgpack has no form for type {type(value).__name__}")


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        yield from value
    for child in _children(value):
        yield from _parts(child)


# -- YAML, an extra


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MessageError("yaml needs PyYAML: pip install 'beatd[yaml]'") from error
    return yaml


def _dump_yaml(value: Any) -> bytes:
    yaml = _yaml()
    try:
        text: str = yaml.safe_dump(value)
    except yaml.representer.RepresenterError as error:
        kind = type(error.args[-1]).__name__
        raise MessageError(f"yaml has no form for type {kind}") from error
    return text.encode()


def _load_yaml(data: bytes) -> Any:
    return _yaml().safe_load(data.decode())


# -- the tables


class _Serializer(NamedTuple):
    content_type: str
    content_encoding: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


_SERIALIZERS = {
    "json": _Serializer(JSON, "utf-8", _dump_json, _load_json),
    "msgpack": _Serializer(MSGPACK, "binary", _dump_msgpack, msgspec.msgpack.decode),
    "yaml": _Serializer(YAML, "utf-8", _dump_yaml, _load_yaml),
    "pickle": _Serializer(
        PICKLE, "binary", lambda value: pickle.dumps(value, 4), pickle.loads
    ),
}
_NAMES = ", ".join(_SERIALIZERS)
_BY_CONTENT_TYPE = {kind.content_type: kind for kind in _SERIALIZERS.values()}


def name_of(content_type: str) -> str:
    """Return the name of a content type's serializer; the type if there is none."""
    for name, kind in _SERIALIZERS.items():
        if kind.content_type == content_type:
            return name
    return content_type


class _Compression(NamedTuple):
    content_type: str
    compress: Callable[[bytes], bytes]
    decompressor: Callable[[], Any]
    """Its `decompress(data, max_length)` returns the plain bytes."""


def _zstd() -> _Compression:
    for name in ("compression.zstd", "backports.zstd"):  # Python 3.14, the package
        try:
            zstd = importlib.import_module(name)
        except ImportError:
            continue
        return _Compression("application/zstd", zstd.compress, zstd.ZstdDecompressor)
    raise MessageError("zstd needs Python 3.14 or the package backports.zstd")


# kombu's gzip is in fact the zlib format.
_ZLIB = _Compression("application/x-gzip", zlib.compress, zlib.decompressobj)
_BZ2 = _Compression("application/x-bz2", bz2.compress, bz2.BZ2Decompressor)
_LZMA = _Compression(
    "application/x-lzma",
    lzma.compress,
    lambda: lzma.LZMADecompressor(memlimit=2 * MAX_SIZE),
)

_COMPRESSIONS: dict[str, Callable[[], _Compression]] = {
    **dict.fromkeys(("gzip", "zlib", "application/x-gzip"), lambda: _ZLIB),
    **dict.fromkeys(("bzip2", "bzip", "application/x-bz2"), lambda: _BZ2),
    **dict.fromkeys(("lzma", "xz", "application/x-lzma"), lambda: _LZMA),
    **dict.fromkeys(("zstd", "zstandard", "application/zstd"), _zstd),
}


def check_compression(kind: str) -> None:
    """Raise MessageError if bodies that are compressed so cannot be read here."""
    _compression(kind)


def _compression(kind: str) -> _Compression:
    if kind not in _COMPRESSIONS:
        raise MessageError(
            f"no compression named {quoted(kind)}; known: gzip, bzip2, lzma, zstd"
        )
    return _COMPRESSIONS[kind]()
