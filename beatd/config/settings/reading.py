"""From settings as they are written, in any spelling, to settings and problems.

Every setting can be written in three ways, in any mixture: by its own name
(`task_time_limit`), by Celery's old name (`CELERYD_TASK_TIME_LIMIT`), and with the
name-space in front (`CELERY_TASK_TIME_LIMIT`). Two spellings of one setting with
different values are an error.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from beatd.config.settings.kinds import Kind, Unfit
from beatd.config.settings.notes import Note
from beatd.config.settings.problems import (
    Locate,
    Place,
    Problem,
    did_you_mean,
    nowhere,
)
from beatd.config.settings.secrets import safe_value
from beatd.config.settings.values import Settings
from beatd.config.switches import Switch


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    kinds: tuple[Kind, ...]
    optional: bool
    default: object
    note: Note

    @property
    def old(self) -> str:
        """Celery's old spelling; the name-spaced one if there was none."""
        return self.note.old or _usual_old_name(self.name)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names under which it is read, the new one first, without repetition."""
        return tuple(dict.fromkeys((self.name, self.old, _in_name_space(self.name))))

    @property
    def switch(self) -> Switch | None:
        """The option of the command line that stands for it."""
        return self.note.switch

    @property
    def words(self) -> str:
        """What values it takes, in words."""
        words = [kind.words for kind in self.kinds]
        return " or ".join([*words, "None"] if self.optional else words)

    def read(self, value: object) -> object:
        """Return the value as beatd uses it; an Unfit says why it is not taken."""
        if value is None and self.optional:
            return None
        for kind in self.kinds:
            try:
                return kind.read(value)
            except Unfit as error:
                if error.reason:
                    raise
            except Exception as error:  # foreign code: the value is the user's object
                raise Unfit(f"reading it raised {type(error).__name__}") from error
        raise Unfit(f"expected {self.words}, got {safe_value(self.name, value)}")


_OLD_PREFIXES = {
    "beat_": "CELERYBEAT_",
    "broker_": "BROKER_",
    "control_": "CONTROL_",
    "task_": "CELERY_",
    "worker_": "CELERYD_",
}


def _usual_old_name(name: str) -> str:
    for prefix, old in _OLD_PREFIXES.items():
        if name.startswith(prefix):
            return old + name.removeprefix(prefix).upper()
    return _in_name_space(name)


def _in_name_space(name: str) -> str:
    return f"CELERY_{name.upper()}"


def _row_of(line: "Field[Any]", hint: Any, defaults: Settings) -> Row:
    # `Text | None` has parts, `Text` alone (an Annotated) carries its Kind itself.
    parts = (hint,) if hasattr(hint, "__metadata__") else get_args(hint)
    kinds = tuple(part.__metadata__[0] for part in parts if part is not NoneType)
    default = getattr(defaults, line.name)
    return Row(line.name, kinds, NoneType in parts, default, line.metadata["note"])


@cache
def table() -> Mapping[str, Row]:
    """Every setting, by its new name."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    return {
        line.name: _row_of(line, hints[line.name], defaults)
        for line in fields(Settings)
    }


@cache
def spellings() -> Mapping[str, str]:
    """Every spelling, with the new name that it means."""
    return {word: row.name for row in table().values() for word in row.spellings}


ENVIRONMENT = {
    "CELERY_BROKER_URL": "broker_url",
    "CELERY_BROKER_READ_URL": "broker_read_url",
    "CELERY_BROKER_WRITE_URL": "broker_write_url",
    "CELERY_RESULT_BACKEND": "result_backend",
}
"""Variables that win over the config."""


_DJANGO_ZONE = "TIME_ZONE"
"""Django's setting: as in Celery the zone where no `timezone` is set."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings that were read, with defaults for wrong ones, and the problems."""

    settings: Settings
    problems: list[Problem]
    unused: list[str]
    """Known names, as written, that have no effect here."""
    given: Collection[str]
    """Those that were set, by their new names."""


def read(
    written: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None = None,
    command_line: Mapping[str, object] | None = None,
    locate: Locate = nowhere,
    locate_name: Locate | None = None,
    unjudged: Collection[str] = (),
) -> Reading:
    """Read settings in any spelling; the command line wins, then the environment.

    `written` may have other names, too: those that look like settings are problems,
    others are left alone. `command_line` has only the options given, by new names.
    What these override is not looked at, and what is `unjudged` nowhere. An unknown
    name is shown where `locate_name` finds it, a value where `locate` does.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    around = environ or {}
    environ = {word: around[word] for word in ENVIRONMENT if around.get(word)}
    command_line = {
        name: value
        for name, value in (command_line or {}).items()
        if name not in unjudged
    }
    passed = {*unjudged, *command_line, *map(ENVIRONMENT.__getitem__, environ)}
    for name, spelled in _by_setting(written).items():
        if name in passed:
            continue
        values.update(_read_one(table()[name], spelled, written, locate, problems))
    if values.get("timezone") is None and written.get(_DJANGO_ZONE):
        zone = _read_one(table()["timezone"], [_DJANGO_ZONE], written, locate, problems)
        values.update(zone)
    for variable, text in environ.items():
        name = ENVIRONMENT[variable]
        if name not in command_line:
            values.update(_read_outside(name, text, variable, problems))
    for name, value in command_line.items():
        values.update(_read_outside(name, value, "command line", problems))
    problems.extend(unknown_names(written, spellings(), locate_name or locate))
    idle = {
        word for row in table().values() if row.note.unused for word in row.spellings
    }
    unused_words = [word for word in written if word in idle]
    return Reading(Settings(**values), problems, unused_words, values.keys())


def _by_setting(written: Mapping[str, object]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for spelled in written:
        if name := spellings().get(spelled):
            found.setdefault(name, []).append(spelled)
    return found


def _read_one(
    row: Row,
    spelled: list[str],
    written: Mapping[str, object],
    locate: Locate,
    problems: list[Problem],
) -> dict[str, object]:
    """Read every spelling of one setting; {} if none can be used."""
    values: dict[str, object] = {}
    for word in spelled:
        try:
            values[word] = row.read(written[word])
        except Unfit as error:
            message = f"{word}: {error.reason}"
            problems.append(Problem(message, error.hint, locate(word)))
    if not values:
        return {}
    first, *others = values
    if row.name == "beat_schedule":
        return {row.name: _merged(values, locate, problems)}
    for other in others:
        if values[other] != values[first]:
            problems.append(_contradiction(row, first, other, written, locate))
    return {row.name: values[first]}


def _contradiction(
    row: Row, first: str, other: str, written: Mapping[str, object], locate: Locate
) -> Problem:
    lines = [
        f"{word} = {safe_value(row.name, written[word])}{_at(locate(word))}"
        for word in (first, other)
    ]
    return Problem(
        f"{lines[0]} contradicts {lines[1]}",
        "both spell one setting: keep one of them",
        locate(other),
    )


def _at(place: Place | None) -> str:
    return f" ({place})" if place else ""


def _merged(
    values: Mapping[str, Any], locate: Locate, problems: list[Problem]
) -> dict[Any, Any]:
    """Return the schedules of all spellings as one; no entry may be in two of them."""
    if len(values) == 1:
        return dict(*values.values())
    merged: dict[Any, Any] = {}
    source: dict[Any, str] = {}
    for word, schedule in values.items():
        for name, entry in schedule.items():
            if name in merged and merged[name] != entry:
                places = [_at(locate(of, name)) for of in (source[name], word)]
                problems.append(
                    Problem(
                        f"entry {name!r} in {source[name]}{places[0]} contradicts"
                        f" the one in {word}{places[1]}",
                        "keep one of them, or give them different names",
                        locate(word, name),
                    )
                )
                continue
            merged[name] = entry
            source.setdefault(name, word)
    return merged


def _read_outside(
    name: str, value: object, source: str, problems: list[Problem]
) -> dict[str, object]:
    try:
        return {name: table()[name].read(value)}
    except Unfit as error:
        problems.append(Problem(f"{name} ({source}): {error.reason}", error.hint))
        return {}


OF_OTHER_SCHEDULERS = frozenset(
    {
        *("redbeat_redis_url", "redbeat_redis_use_ssl", "redbeat_key_prefix"),
        "redbeat_lock_key",
    }
)
"""What `beatd import` reads, and nothing else of beatd."""

_PREFIXES = (
    *("beat_", "broker_", "result_", "task_", "worker_", "celery", "celerybeat_"),
    *("celeryd_", "control_queue_", "event_queue_", "database_", "security_"),
)


def unknown_names(
    words: Iterable[str],
    known: Collection[str],
    locate: Locate,
    prefixes: tuple[str, ...] = _PREFIXES,
) -> Iterator[Problem]:
    """Yield a problem for each name that looks like a setting and is none.

    A typo of a known name is an error: the setting that was meant would silently be
    missing. Others are only warned about, as Celery lets every name pass.
    """
    for word in words:
        if word in known or _bare(word) in OF_OTHER_SCHEDULERS:
            continue
        # In the same style, so that a hint fits in with its neighbours.
        alike = [one for one in known if one.isupper() == word.isupper()]
        has_prefix = word.lower().startswith(prefixes)
        hint = did_you_mean(word, alike)
        if has_prefix or hint:
            is_typo = has_prefix and did_you_mean(word, alike, likeness=0.88)
            yield Problem(
                f"unknown setting {word!r}",
                hint or "beatd has no such setting, it changes nothing",
                locate(word),
                warning=not is_typo,
            )


def _bare(word: str) -> str:
    """Return a setting's name without the case and the name-space of its spelling."""
    return word.lower().removeprefix("celery_")
