"""What must not be shown: passwords in addresses, in named values and in free text.

An address is taken apart, a value is judged by the name that it has, and only a text of
others' (an error, a line of a file) is searched for words. What cannot be told apart is
hidden as a whole.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, urlsplit

HIDDEN = "***"

ENCODE = (
    "write such a character as % and its code (/ as %2F, ? as %3F, # as %23, [ as %5B,"
    " ; as %3B, @ as %40): urllib.parse.quote(password, safe='') does it"
)
"""The way out for an address with a password as it is spoken."""

_PASSWORDS = re.compile(r"passw(or)?[dt]|passphrase|pwd|credential")
"""What stands in no other word."""

_SECRETS = re.compile(
    r"(secret|token|(api|access|private)key|pass|authorization|cookie)s?$"
)
"""How a part of a name ends that names a secret."""

_KEYS = frozenset({"api", "access", "private", "secret"})
"""What a key is called that is a secret."""

_OTHERS = re.compile(r"(com|encom|by|sur|tres|over|under|low|high|band|all)pass")

_MEASURES = re.compile(
    r"age|count|expir(es|y)|length|lifetime|limit|max|min|number|per|size|total|ttl"
    r"|used?|usage"
)
"""Parts of the names of what can be counted or has a length: `max_tokens`."""

_PARTS = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")


def is_secret(name: str) -> bool:
    """Return whether a value of this name is not to be shown.

    The parts of the name decide, in whichever spelling: `api_key`, `apiKey`, `APIKEY`.
    """
    parts = [part.lower() for part in _PARTS.findall(name)]
    if any(map(_MEASURES.fullmatch, parts)):
        return False
    keys = pairwise(parts)
    return any(map(_names_secret, parts)) or any(
        key in ("key", "keys") and kind in _KEYS for kind, key in keys
    )


def _names_secret(part: str) -> bool:
    if _OTHERS.fullmatch(part):
        return False
    return bool(_PASSWORDS.search(part) or _SECRETS.search(part))


def mentions_secret(text: str) -> bool:
    """Return whether a word of a text is the name of what is not to be shown."""
    return any(map(is_secret, _WORD.findall(text)))


_WORD = re.compile(r"[\w-]+")


# Addresses


def is_unreadable(url: str) -> bool:
    """Return whether it cannot be told where an address has its password.

    A `/`, `?`, `#` or bracket in it, not encoded, ends what the login stands in.
    """
    parts = _parts(url)
    return parts is None or (
        bool(parts.netloc) and "@" not in parts.netloc and "@" in _before_values(parts)
    )


def mask_url(text: str) -> str:
    """Return an address, or several with `;` between them, without passwords."""
    return ";".join(map(_masked, addresses_in(text)))


def addresses_in(text: str) -> list[str]:
    """Return the addresses of a text that has several with `;` between them."""
    return re.split(r";\s*(?=[\w+.-]+://)", text)


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return f"{HIDDEN}@{url.rpartition('@')[2]}" if "@" in url else url
    parts = _parts(url)
    if parts is None or (parts.netloc and "@" not in parts.netloc and "@" in rest):
        user, colon, _ = rest.partition(":")
        if not colon or "=" in rest or "/" in user:
            return f"{scheme}://{HIDDEN}"
        return f"{scheme}://{user}:{HIDDEN}@{rest.rpartition('@')[2]}"
    login, at, place = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    shown = f"{user}{colon}{HIDDEN if password else ''}{at}{_place(place, at)}"
    path = parts.path
    if (parts.netloc and "@" in path) or "://" in path:
        path = f"/{HIDDEN}"
    query = "&".join(map(_masked_value, parts.query.split("&")))
    hidden = f"#{HIDDEN}" if parts.fragment else ""
    return f"{scheme}://{shown}{path}{'?' if query else ''}{query}{hidden}"


def _place(place: str, at: str) -> str:
    """Return host and port; what seems a port may be a password without its host."""
    host, colon, port = place.rpartition(":")
    if at or not colon or port.isdecimal() or port.endswith("]"):
        return place
    return f"{host}:{HIDDEN}"


def _masked_value(pair: str) -> str:
    name, equals, value = pair.partition("=")
    hide = (not equals and "@" in name) or (value and (is_secret(name) or "@" in value))
    return f"{name}={HIDDEN}" if hide and equals else HIDDEN if hide else pair


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _before_values(parts: SplitResult) -> str:
    """Return what follows the server's name, but for named values of the query."""
    query = "" if re.match(r"[\w.-]+=", parts.query) else parts.query
    return f"{parts.path}{query}{'' if parts.query else parts.fragment}"


# Values


def safe(value: object, name: str = "") -> str:
    """Return how a value is written, without what is secret in it, however deep."""
    inherited = name if is_secret(name) else ""
    match value:
        case dict():
            pairs = (
                f"{key!r}: {safe(one, inherited or str(key))}"
                for key, one in value.items()
            )
            return f"{{{', '.join(pairs)}}}"
        case list():
            return f"[{', '.join(safe(one, inherited) for one in value)}]"
        case tuple():
            end = "," if len(value) == 1 else ""
            return f"({', '.join(safe(one, inherited) for one in value)}{end})"
        case None | bool() | "":
            return repr(value)
    if inherited:
        return HIDDEN
    return repr(mask(value)) if isinstance(value, str) else mask(repr(value))


def safe_value(name: str, value: object) -> str:
    """Return a value as a message may show it: no part of it that could be secret."""
    kind = type(value).__name__
    if is_secret(name) or name.startswith("security"):
        return f"a secret of type {kind}"
    if isinstance(value, Mapping | list | tuple | set):
        return f"a {kind}"
    try:
        shown = safe(value)
    except Exception:  # foreign code, or a number of too many digits to print
        return f"a value of type {kind}"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# Free text

_LOGIN = re.compile(
    r"(?<![\w+.-])([\w+.-]+(?:://|//?)[^:@/\s;]*):(?!//)"  # also `redis//`, `redis/`
    r"(?:(?!://).)*?@(?:(?:(?!://)[^\s@])*@)*"
    r"""|((?<![^\s;,'"(])[^:@/\s;]{0,255}):(?!//)[^\s;]{0,1000}@"""
)
_NAMED = re.compile(
    r"""(?<![\w.-])[\w.-]+[ ]{0,2}(?:=[ ]{0,2}|:[ \t]{1,2}(?!expected\b))"""
    # `host:port` is no name and value, nor is `proj.tokens:app`.
    r"""|(?<![\w.-])(?i:[\w-]*(?:passw(?:or)?[dt]|passphrase|pwd)):(?=\w)"""
    # Also as JSON within a text that is quoted itself.
    r"""|(\\?['"])[\w.-]+\1\s*:\s*"""
)
_VALUE = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\\".*?\\"|[\[({].*"""
    # A header says first of which kind its secret is.
    r"""|(?:(?i:basic|bearer|digest|token)[ ]+)?[^&\s]*"""
)
_FAULTS = ("Error", "Exception", "Warning")
"""How the names of classes end whose instances say what is wrong."""


def mask(text: str) -> str:
    """Return a text of others' without what looks like a password in it.

    A text that is an address is masked as one.
    """
    if _ADDRESS.match(text):
        return mask_url(text)
    logins = _LOGIN.sub(lambda one: f"{one[1] or one[2] or ''}:{HIDDEN}@", text)
    return _without_values(logins)


def _without_values(text: str) -> str:
    """Return a text without what follows the name of a secret in it."""
    shown, at = [], 0
    for named in _NAMED.finditer(text):
        if named.start() < at or not is_secret(named[0]):
            continue
        if named[0].rstrip(": ").endswith(_FAULTS):
            continue
        value = _VALUE.match(text, named.end())
        shown += [text[at : named.end()], HIDDEN]
        at = value.end() if value else named.end()
    return "".join([*shown, text[at:]])


_ADDRESS = re.compile(r"[\w+.-]+://\S*$")


def safe_items(values: Mapping[str, Any]) -> list[str]:
    """Return named values as arguments are written, without what is secret in them."""
    return [f"{name}={safe(value, str(name))}" for name, value in values.items()]
