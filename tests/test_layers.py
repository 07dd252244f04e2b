"""The reading order of the package is the law: imports point up."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "beatd"

PURE = [
    "version",
    "errors",
    "instant",
    "schedules.base",
    "schedules",
    "text",
    "ids",
    "routing",
    "message.codec",
    "message.options",
    "message.represent",
    "message.wire",
    "message.envelope",
    "message.timing",
    "message.shape",
    "message.template",
    "message.notice",
    "message.resend",
    "message.canvas",
    "message",
    "entry",
    "policy",
    "timetable",
]

ORDER = [
    *PURE,
    "settings",
    "source",
    "entry_reader",
    "config",
    "clock",
    "brokers.base",
    "file_lock",
    "sqlite_file",
    "brokers.memory",
    "brokers.sqlite",
    "brokers.redis",
    "brokers",
    "leadership",
    "schedule_file",
    "scheduler",
    "results.base",
    "results.chords",
    "results.exceptions",
    "results.encoding",
    "results.disabled",
    "results.redis",
    "results.sqlite",
    "worker.stage",
    "results.ended",
    "results",
    "signals",
    "tasks.current",
    "tasks.async_result",
    "tasks.request",
    "tasks.task",
    "tasks.registry",
    "tasks.shared",
    "tasks",
    "greenlets",
    "pools.base",
    "pools",
    "runs.stdout",
    "runs.hooks",
    "runs.coroutines",
    "runs.errbacks",
    "runs.report",
    "runs.host",
    "runs.continuations",
    "runs.chords",
    "runs.execute",
    "runs.builtin",
    "runs.eager",
    "runs",
    "worker",
    "celery_apps.signals",
    "celery_apps.reading",
    "celery_apps.runner",
    "celery_apps.results",
    "celery_apps",
    "app.annotations",
    "app.announcement",
    "app.conf",
    "app.publishing",
    "app.client_results",
    "app.connections",
    "app.sending",
    "app.remote_control",
    "app.discovery",
    "app.application",
    "app",
    "options",
    "nodes",
    "logs",
    "notify",
    "daemon",
    "process",
    "wiring",
    "service",
    "spawned",
    "cli",
    "__main__",
    "__init__",
]
"""A name stands for the module or package, and for all in it that is not named itself.
Inside one package, siblings may import each other as its own reader sees fit."""

NOT_PURE = {
    "asyncio", "concurrent", "ctypes", "fcntl", "getpass", "glob", "http", "io",
    "locale", "logging", "multiprocessing", "os", "pathlib", "platform", "queue",
    "random", "resource", "runpy", "sched", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading",
    "time", "urllib.request", "warnings",
}  # fmt: skip
"""Modules that the pure part does not import, nor anything of them. `importlib` is not
among them: what compresses messages is imported when one comes that needs it."""

IMPURE = {
    "breakpoint", "input", "open", "print",
    "date.today", "datetime.now", "datetime.today", "datetime.utcnow",
    "uuid.getnode", "uuid.uuid1", "uuid.uuid4",
}  # fmt: skip
"""What it does not call of modules that are pure else."""

MAKERS = {
    # The command line asks brokers that nobody else has open: whether an address is
    # good (check), what lies there (dead), to remove it before the start (worker).
    "brokers.of_settings": {
        *("wiring", "app.connections"),
        *("cli.check", "cli.dead", "cli.worker"),
    },
    "results.connect": {"wiring", "app.connections", "cli.check"},
    "brokers.connect": set(),
    "ScheduleFile": {"wiring"},
    "StateFile": {"wiring"},
    # By address, after an import that only that address needs.
    "MemoryBroker": {"brokers"},
    "RedisBroker": {"brokers"},
    "SQLiteBroker": {"brokers"},
    "RedisResults": {"results"},
    "SQLiteResults": {"results"},
}
"""What opens files and connections, and the modules that may call it: wiring, for
scheduler and worker, and who sends or looks without being either."""

SCHEDULING = {"policy", "timetable", "leadership", "schedule_file", "scheduler"}
WORKING_ROOMS = {"tasks", "results", "pools", "runs", "worker", "celery_apps"}
WORKING = {
    "app.annotations",
    *(line for line in ORDER if line.partition(".")[0] in WORKING_ROOMS),
}


SHARED = {
    *("settings", "clock", "file_lock", "sqlite_file"),
    *("brokers.base", "brokers", "brokers.memory", "brokers.redis", "brokers.sqlite"),
}
"""What both sides stand on beside the pure part. Of brokers both import only the base,
and the results in Redis its connections; the rest comes with the package."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def place_of(module: str) -> str:
    """Give the line of ORDER that `module` belongs to."""
    name = module
    while name not in ORDER:
        assert "." in name, f"{module} has no line in ORDER: add it where it is read"
        name = name.rpartition(".")[0]
    return name


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imports_of(path: Path) -> Iterator[str]:
    """Give all modules that are imported anywhere in the file, `beatd.` cut off."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@cache
def calls_in(path: Path) -> set[str]:
    """Give the names of all that is called anywhere in the file."""
    calls = (node for node in nodes_of(path) if isinstance(node, ast.Call))
    return {ast.unparse(call.func) for call in calls}


def ours(path: Path) -> Iterator[str]:
    """Give the lines of ORDER that the file imports from."""
    known = {name for name, _ in modules()}
    for name in imports_of(path):
        if name.startswith("beatd."):
            module = name.removeprefix("beatd.")
            yield place_of(module if module in known else module.rpartition(".")[0])


def around(module: str) -> set[str]:
    """Give the packages that a module is in."""
    parts = module.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def graph() -> dict[str, set[str]]:
    """Give the modules that each imports, and the packages that this imports, too.

    Those that it is in itself are imported before it: they count when it names them.
    """
    known = {name for name, _ in modules()}
    found: dict[str, set[str]] = {}
    for module, path in modules():
        found[module] = set()
        for name in imports_of(path):
            if not name.startswith("beatd."):
                continue
            other = name.removeprefix("beatd.")
            other = other if other in known else other.rpartition(".")[0] or "__init__"
            found[module] |= {other} | (around(other) - around(module) - {module})
    return found


GRAPH = graph()


def behind(module: str) -> set[str]:
    """Give all that a module imports, by way of others as well."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = GRAPH[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def packaged() -> list[tuple[str, Path]]:
    # `beatd/__init__.py` re-exports, and so stands last.
    return [(name, path) for name, path in modules() if name != "__init__"]


@pytest.mark.parametrize(("module", "path"), packaged(), ids=lambda value: str(value))
def test_a_module_imports_only_what_is_read_before_it(module: str, path: Path) -> None:
    here = place_of(module)

    below = [name for name in ours(path) if ORDER.index(name) > ORDER.index(here)]

    assert below == []


@pytest.mark.parametrize(
    ("module", "path"),
    [(name, path) for name, path in packaged() if place_of(name) in PURE],
    ids=lambda value: str(value),
)
def test_pure_modules_know_no_clock_and_no_world(module: str, path: Path) -> None:
    used = {name for name in imports_of(path) if not name.startswith("beatd")}

    worldly = [
        name for name in used for one in NOT_PURE if f"{name}.".startswith(f"{one}.")
    ]
    assert worldly == []
    assert calls_in(path) & IMPURE == set()
    assert used & IMPURE == set()


def test_scheduling_and_working_never_meet() -> None:
    """Neither imports the other, nor anything that does, however far away."""
    behind_both = {"scheduling": set[str](), "working": set[str]()}
    for module, _ in packaged():
        places = {place_of(name) for name in behind(module)}
        if place_of(module) in SCHEDULING:
            assert places & WORKING == set(), module
            behind_both["scheduling"] |= places
        elif place_of(module) in WORKING:
            assert places & SCHEDULING == set(), module
            behind_both["working"] |= places

    shared = behind_both["scheduling"] & behind_both["working"]
    assert shared - {*PURE} <= SHARED


def test_no_module_waits_for_itself_to_be_imported() -> None:
    """Imports inside of functions count as well; a package stands for its own file."""
    in_a_circle = [module for module in GRAPH if module in behind(module)]

    assert in_a_circle == []


@pytest.mark.parametrize("maker", MAKERS)
def test_only_who_composes_opens_files_and_connections(maker: str) -> None:
    callers = {module for module, path in modules() if maker in calls_in(path)}
    imported = {name for _, path in modules() for name in imports_of(path)}

    assert callers == MAKERS[maker]
    assert f"beatd.{maker}" not in imported  # then it would be called by half its name


def test_only_the_clock_tells_the_time() -> None:
    for module, path in packaged():
        if module != "clock":
            source = path.read_text()
            assert "time.time(" not in source, module
            assert "datetime.now(" not in source, module


def test_every_line_of_the_order_exists() -> None:
    places = {place_of(name) for name, _ in packaged()} | {"__init__"}

    assert [name for name in ORDER if name not in places] == []


def test_what_is_installed_with_it_is_imported() -> None:
    """A dependency that nothing imports is only weight; tzdata is nothing but data."""
    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    names = {re.split(r"\W", line)[0] for line in declared["dependencies"]}

    imported = {
        name.partition(".")[0] for _, path in modules() for name in imports_of(path)
    }

    assert names - imported == {"tzdata"}
