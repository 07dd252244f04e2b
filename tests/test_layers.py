"""The reading order of the package is the law: imports point up."""

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "beatd"

ORDER = """
.           version errors exceptions instant text bounds ids parts event_log log_fields
schedules   base fixed days fields recurrence solar words zones interval local_times
            cron once rrule clock_changes specs *
.           routing
message     codec notice options represent timing shape template recorded wire
            envelope resend canvas *
timetable   ledger entry imprint policy pages history audit timetable preview
.           signals greenlets process_one
config      * settings.problems settings.secrets settings.kinds
            settings.alerts switches settings.notes
            settings.rows.broker settings.rows.results settings.rows.scheduler
            settings.rows.tasks settings.rows.unused settings.rows.worker settings.rows
            settings.local_zone settings.file_urls settings.values settings.reading
            settings faults settings.page settings.__main__ source celery_schedules
            calls called own_code app_calls celery_code recording celery_calls
            builtin_tasks alert_rules
            entry_line entries modules
            finding celery_settings apps places host tls loading options
.           clock
storage     folders file_lock sqlite_file open_files file_writes
.           background
brokers     items base leases oddities current_runs memory.lead memory.queues memory
            redis.sentinel redis.connection redis.failover redis.wire redis.unacked
            redis.leases redis.listening redis.needs redis.rights redis.observer
            redis.requests redis.history redis.lead redis.broker redis
            sqlite.routes sqlite.rest sqlite.statements sqlite.file sqlite.history
            sqlite.ledger sqlite.lead sqlite.queues sqlite split
            amqp.message amqp.records
            amqp.line amqp.declaring amqp.stream amqp.ledger amqp.publisher
            amqp.broker amqp *
scheduler   file_view leadership ledger_file configs lost_writes over findings pauses
            refusals run_ends holds file_tables schedule_file file_writer reload
            succession aside takeover step calls_watch planner pulse
            progress chronicle asked emission_log loop bringing
results     base chords disabled exceptions readable ended encoding refusals redis
            sqlite *
alerts      event state watch ways courier journal lookup desk
events      lamport sender zone event sent
tasks       current arguments async_result group_result request stamping
            signature composed canvas maps listed task options registry * shared
pools       base limits pending asyncio green prefork prefork.child_state prefork.frames
            prefork.child prefork.places prefork.forkserver_main prefork.forkserver
            options prefork.children prefork.dispatch prefork.forkservers
            prefork.requests prefork.supervisor prefork.pool solo threads *
runs        hooks host report stdout coroutines command_guard command web_request
            builtin tracebacks errbacks continuations chords
            execute eager
control     patterns pidbox
app         annotations announcement client_results conf shapes connections discovery
            publishing remote_control sending bulk recorder calls entry_calls django
            celery_names application
            default *
worker      autoscale begun commands.arguments events in_flight commands.shapes
            isolation holdings lease rate renewal tally reporting restoring revoked
            settlement settle unkept window fetcher backlog inbox outcomes admission
            throughput sizing stopping workload commands.controlled commands.inspect
            commands.steer commands loop
migrate     * found marks pickles gdbm shelves config_text redbeat django_tables
            crontab recurrence calendar
celery_apps * processes requests runner results signals other_schedulers out_of_reach
            reading
service     * daemon nodes notify sockets wiring.choice wiring.looking wiring.runtime
            wiring.scheduler wiring.worker_parts wiring.worker wiring
cli         usage options output progress running dead explain findings schedule_view
            advice times next probes plan config_out crontab_out importing exporting
.           logs states
utils       log
service     log_handlers log_setup terminal process rereading reloading clocks status
            facts look snapshot http openmetrics metrics site wiring.answering offline
            other_side wiring.alerting beat worker_metrics worker_site worker units
cli         past status strips list history audit show changing check alert pause resume
            systemd * worker worker_options log_page environment
.           spawned reread __main__ __init__
"""
"""A line is a room and its modules in the order in which they are read: a module
imports only what stands before it. `.` is the top, `*` the room's own `__init__`."""

PURE = {"version", "errors", "instant", "text", "bounds", "ids", "parts", "routing"}
PURE_ROOMS = {"schedules", "message", "timetable"}

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

TODAY = {
    f"{prefix}{call}"
    for prefix in ("", "datetime.")
    for call in ("date.today", "datetime.now", "datetime.today", "datetime.utcnow")
}
"""What else says what time it is, and what is called nowhere."""

MAKERS = {
    # The command line asks brokers that nobody else has open: whether an address is
    # good (check), what lies there (dead), to remove it before the start (worker).
    "brokers.of_settings": {
        *("service.wiring.scheduler", "service.wiring.looking"),
        *("app.connections", "cli.probes"),
    },
    "brokers.for_workers": {"service.wiring.worker", "cli.dead", "cli.worker"},
    "results.connect": {
        *("service.wiring.scheduler", "service.wiring.looking"),
        *("service.wiring.runtime",),
        *("app.connections", "cli.probes"),
    },
    "brokers.connect": set(),
    "ScheduleFile": {"service.wiring.scheduler"},
    "StateFile": {"service.wiring.worker"},
    # By address, after an import that only that address needs.
    "AMQPBroker": {"brokers"},
    "MemoryBroker": {"brokers"},
    "RedisBroker": {"brokers"},
    "SQLiteBroker": {"brokers"},
    "RedisResults": {"results"},
    "SQLiteResults": {"results"},
}
"""What opens files and connections, and the modules that may call it: wiring, for
scheduler and worker, and who sends or looks without being either."""

SCHEDULING = {"timetable", "scheduler"}
WORKING = {"tasks", "results", "pools", "runs", "worker"}
"""Rooms of the two sides that never meet."""

SHARED = {"event_log", "clock", "config", "storage", "background", "brokers"}
"""What both sides stand on beside the pure part. Of brokers both import only the base,
and the results in Redis its connections; the rest comes with the package."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stat().st_size == 0:
            continue  # a room that is nothing but its modules
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def lines() -> Iterator[str]:
    """Return the modules of ORDER, one after the other."""
    room = ""
    for line in ORDER.strip().splitlines():
        first, *names = line.split()
        if line.startswith(" "):
            names = [first, *names]
        else:
            room = first
        for name in names:
            yield name if room == "." else f"{room}.{name}".removesuffix(".*")


LINES = list(lines())


def room_of(module: str) -> str:
    return module.partition(".")[0]


def is_pure(module: str) -> bool:
    return module in PURE or room_of(module) in PURE_ROOMS


def nodes_of(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


@cache
def imports_of(path: Path) -> Sequence[str]:
    """Return all modules that are imported anywhere in the file."""
    return [*_imports_of(path)]


def _imports_of(path: Path) -> Iterator[str]:
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
    """Return the names of all that is called anywhere in the file."""
    calls = (node for node in nodes_of(path) if isinstance(node, ast.Call))
    return {ast.unparse(call.func) for call in calls}


def ours(path: Path) -> Iterator[str]:
    """Return the modules of beatd that the file imports from."""
    known = {name for name, _ in modules()}
    for name in imports_of(path):
        if name.startswith("beatd."):
            module = name.removeprefix("beatd.")
            yield module if module in known else module.rpartition(".")[0]


def around(module: str) -> set[str]:
    """Return the packages that a module is in."""
    parts = module.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def graph() -> dict[str, set[str]]:
    """Return the modules that each imports, and the packages that this imports, too.

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
            packages = around(other) & known - around(module) - {module}
            found[module] |= {other} | packages
    return found


GRAPH = graph()


def behind(module: str) -> set[str]:
    """Return all that a module imports, by way of others as well."""
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
    here = LINES.index(module)

    below = [name for name in ours(path) if name and LINES.index(name) > here]

    assert below == []


@pytest.mark.parametrize(
    ("module", "path"),
    [(name, path) for name, path in packaged() if is_pure(name)],
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
        rooms = {room_of(name) for name in behind(module) if not is_pure(name)}
        if room_of(module) in SCHEDULING:
            assert rooms & WORKING == set(), module
            behind_both["scheduling"] |= rooms
        elif room_of(module) in WORKING:
            assert {room_of(name) for name in behind(module)} & SCHEDULING <= PURE_ROOMS
            behind_both["working"] |= rooms

    assert behind_both["scheduling"] & behind_both["working"] <= SHARED


def test_a_scheduler_alone_is_started_without_the_worker() -> None:
    """It is imported in half the time, and takes less memory."""
    rooms = {room_of(module) for module in behind("service.beat")}

    assert "scheduler" in rooms
    assert "worker" not in rooms


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
    by_time = {
        module
        for module, path in packaged()
        if any(f"{name}.".startswith("time.") for name in imports_of(path))
    }
    by_date = [module for module, path in packaged() if calls_in(path) & TODAY]

    assert by_time == {"clock"}
    assert by_date == []


def test_no_variable_of_a_comprehension_hides_a_name_that_its_function_uses() -> None:
    """Python 3.12.0 and 3.12.1 then take the module's name for the variable."""
    hidden = []
    for module, path in modules():
        ours = names_of_module(path)
        for function in nodes_of(path):
            if isinstance(function, ast.FunctionDef):
                bound, free = names_in(function)
                hidden += [
                    (module, function.name, name) for name in bound & free & ours
                ]

    assert hidden == []


def names_of_module(path: Path) -> set[str]:
    """Return the functions, classes and imports at the top of the file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def names_in(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Return what comprehensions in `tree` bind, and what is read outside of these."""
    bound: set[str] = set()
    free: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        inner_bound, inner_free = names_in(node)
        bound |= inner_bound
        free |= inner_free
    if isinstance(tree, ast.ListComp | ast.SetComp | ast.DictComp):
        own = {
            name.id
            for part in tree.generators
            for name in ast.walk(part.target)
            if isinstance(name, ast.Name)
        }
        return bound | own, free - own
    if isinstance(tree, ast.Name) and isinstance(tree.ctx, ast.Load):
        free.add(tree.id)
    return bound, free


def test_every_module_has_one_line_of_the_order() -> None:
    assert sorted(LINES) == sorted(name for name, _ in modules())


def test_what_is_installed_with_it_is_imported() -> None:
    """A dependency that nothing imports is only weight; tzdata is nothing but data."""
    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    names = {re.split(r"\W", line)[0] for line in declared["dependencies"]}

    imported = {
        name.partition(".")[0] for _, path in modules() for name in imports_of(path)
    }

    assert names - imported == {"tzdata"}


BROAD = re.compile(r"except (Base)?Exception\b|except:|suppress\((Base)?Exception\)")


def test_what_catches_everything_says_why() -> None:
    """The border of foreign code, the end of a thread, or what goes on up."""
    unsaid = []
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            near = lines[max(number - 1, 0) : number + 2]
            if BROAD.search(line) and not any("# " in one for one in near):
                unsaid.append(f"{path.relative_to(PACKAGE)}:{number + 1}")

    assert unsaid == []
