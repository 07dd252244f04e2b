"""What a server's certificate must prove, in all of Celery's spellings."""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_REQUIREMENTS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def options_of(query: Mapping[str, Any], use_ssl: object) -> dict[str, Any]:
    """Return TLS options under redis-py's names: those of an address and of a setting.

    Options of the setting (`broker_use_ssl`, say) win; it may leave out the `ssl_`.
    """
    options = {name: query[name] for name in query if name.startswith("ssl_")}
    for name, value in (use_ssl if isinstance(use_ssl, Mapping) else {}).items():
        options[name if str(name).startswith("ssl_") else f"ssl_{name}"] = value
    return options


def requirement(asked: object) -> ssl.VerifyMode:
    """Return what a certificate must prove; None means nothing, as in Celery.

    Raises ValueError for what is no requirement.
    """
    if isinstance(asked, int):
        return ssl.VerifyMode(asked)
    word = str(asked).lower().removeprefix("cert_")
    if word not in _REQUIREMENTS:
        raise ValueError(f"ssl_cert_reqs: expected one of {', '.join(_REQUIREMENTS)}")
    return _REQUIREMENTS[word]


def is_unproven(url: str, use_ssl: object) -> bool:
    """Return whether a server is spoken to by TLS, and need not prove who it is.

    An address or options that cannot be read are another's to refuse.
    """
    try:
        parts = urlsplit(url)
        options = options_of(dict(parse_qsl(parts.query)), use_ssl)
        asked = requirement(options.get("ssl_cert_reqs", ssl.CERT_REQUIRED))
    except ValueError:
        return False
    may_use_tls = parts.scheme in ("redis", "sentinel")
    uses_tls = parts.scheme == "rediss" or (may_use_tls and bool(use_ssl))
    return uses_tls and asked == ssl.CERT_NONE
