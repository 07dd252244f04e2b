"""What `mkdocs build` does besides: links to the glossary, and a look at the result.

Each page links a word of the glossary where it uses it first, so that no page has to be
written with that in mind, and none forgets it. The site has nothing from other servers.
"""

import logging
import re
from pathlib import Path
from typing import Any

# A warning of this logger fails a strict build, as those of mkdocs do.
log = logging.getLogger("mkdocs.hooks.beatd")

FORMS = {
    "alert": "alerts?",
    "beat": "celery beat|beat",
    "broker": "brokers?",
    "coalesce": "coalesc(?:e|es|ed|ing)",
    "dead-letter": "dead letters?|dead-letter queues?",
    "delivery": "deliver(?:y|ies)",
    "drop": "drops|dropped",
    "emission": "emissions?|emit(?:s|ted)?",
    "entry": "entr(?:y|ies)",
    "history": "history",
    "hold": "held",
    "jitter": "jitter",
    "lead": "(?:the lead|leads|leaders?)(?! to\\b| there\\b| us\\b)",
    "lease": "leases?",
    "ledger": "ledgers?",
    "message": "messages?",
    "misfire": "misfires?",
    "namespace": "namespaces?",
    "overlap": "overlaps?",
    "pool": "pools?",
    "queue": "queues?",
    "refused": "refused",
    "result-back-end": "result back ?ends?",
    "run": "runs?(?= of\\b|s\\b)|a run|the run",
    "schedule": "schedules?",
    "schedule-file": "schedule files?",
    "scheduler": "schedulers?",
    "slot": "slots?",
    "standby": "standby|standbys|stands? by",
    "task": "tasks?",
    "term": "terms?",
    "uncertain": "uncertain",
    "worker": "workers?",
}
"""What a word of the glossary, by its anchor there, looks like in a text."""

# Where a link would be wrong or in the way: the longest forms of two words come first.
_LEFT_ALONE = {"a", "code", "pre", "script", "style", "svg", "button", "title"}
_LEFT_ALONE |= {f"h{level}" for level in range(1, 7)}
_WORDS = re.compile(
    r"(?<![\w./-])(?:"
    + "|".join(
        f"(?P<{anchor.replace('-', '_')}>{form})"
        for anchor, form in sorted(FORMS.items(), key=lambda word: -len(word[0]))
    )
    + r")(?![\w-])"
)


def linked(html: str, glossary: str) -> str:
    """Return the page with a link at the first use of each word of the glossary."""
    seen: set[str] = set()
    inside: list[str] = []

    def link(found: re.Match[str]) -> str:
        anchor = str(found.lastgroup).replace("_", "-")
        if anchor in seen:
            return found[0]
        seen.add(anchor)
        return f'<a class="word" href="{glossary}#{anchor}">{found[0]}</a>'

    parts = re.split(r"(<[^>]+>)", html)
    for place, part in enumerate(parts):
        if tag := re.match(r"<(/?)([a-zA-Z][\w-]*)", part):
            closing, name = tag[1], tag[2].lower()
            if name in _LEFT_ALONE and closing and name in inside:
                inside.remove(name)
            elif name in _LEFT_ALONE and not closing and not part.endswith("/>"):
                inside.append(name)
        elif not inside:
            parts[place] = _WORDS.sub(link, part)
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Put pictures in their places, and link the words of the glossary."""
    if page.file.src_uri == "glossary.md":
        return html
    up = "../" * page.file.src_uri.count("/")
    pictures = Path(config["docs_dir"], "pictures")
    return linked(drawn(html, pictures), f"{up}glossary.html")


def drawn(html: str, folder: Path) -> str:
    """Return the page with each picture of class `picture` in the place of its link.

    Such a picture draws with the colour of the text, which a page that is switched to
    dark tells it only if it is part of the page.
    """

    def draw(found: re.Match[str]) -> str:
        picture = (folder / found[1]).read_text()
        if 'class="picture"' not in picture:
            return found[0]
        return re.sub(r"<style>.*?</style>|\n", "", picture)

    return re.sub(r'<img [^>]*src="(?:\.\./)*pictures/([\w-]+\.svg)"[^>]*>', draw, html)


def on_post_build(config: Any) -> None:
    """Warn of each page that would load something from another server."""
    for page in Path(config["site_dir"]).rglob("*.html"):
        for address in foreign(page.read_text()):
            log.warning("%s loads %s", page.name, address)


def foreign(html: str) -> list[str]:
    """Return the addresses on other servers that a browser would load for this page."""
    tags = re.findall(r"<(?:script|img|iframe|link|source)\b[^>]*>", html)
    tags = [tag for tag in tags if 'rel="canonical"' not in tag]
    found = re.findall(r'(?:src|href)="((?:https?:)?//[^"]+)"', "".join(tags))
    return [*found, *re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", html)]
