"""Whatever a command of remote control or a task's option says: the worker goes on."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatd.brokers.items import Outgoing
from beatd.control.pidbox import Command, Later
from beatd.errors import BeatdError
from beatd.routing import Route
from beatd.worker.commands import COMMANDS
from tests.worker.bench import Bench

TEXTS = [
    "",
    "\0",
    "\ud800",
    "\x1b[2J\n",
    "x" * 2000,
    "-1",
    "nan",
    "5/s",
    "w1",
    "celery",
]
NUMBERS = [0, -1, 1, 2**31, 2**64, 10**400, -0.5, 1e308, float("nan"), float("inf")]
NAMES = [
    *("task_id", "task_name", "ids", "rate_limit", "soft", "hard", "n", "max", "min"),
    *("queue", "exchange", "exchange_type", "routing_key", "headers", "signal"),
    *("terminate", "taskinfoitems", "with_defaults", "safe", "from_node", "revoked"),
    *("modules", "reload", "reloader", "limit", "type", "destination", "pattern"),
]

values = st.recursive(
    st.none() | st.booleans() | st.sampled_from(TEXTS) | st.sampled_from(NUMBERS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, *TEXTS]), inner, max_size=3)
    ),
    max_leaves=4,
)

OPTIONS = [
    *("time_limit", "soft_time_limit", "rate_limit", "max_retries", "acks_late"),
    *("default_retry_delay", "ignore_result", "store_errors_even_if_ignored"),
    *("serializer", "priority", "queue", "expires", "track_started", "throws"),
    *("autoretry_for", "retry_backoff", "retry_backoff_max", "retry_jitter"),
    "reject_on_worker_lost",
]


def assert_that_it_goes_on(bench: Bench) -> None:
    result = bench.app.send_task("proj.add", [2, 3])
    bench.run()
    assert result.get(timeout=0) == 5


def ready() -> Bench:
    bench = Bench()
    bench.app.task(name="proj.add")(lambda a, b: a + b)
    return bench


SLOW = [HealthCheck.too_slow]


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(
    st.sampled_from([name for name in sorted(COMMANDS) if name != "shutdown"]),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=4),
)
def test_the_worker_goes_on_after_any_command(
    method: str, arguments: dict[str, Any]
) -> None:
    bench = ready()
    answers: list[object] = []
    bench.inbox.put(Command(method, arguments, answers.append))
    bench.run()
    for answer in answers:
        if isinstance(answer, Later):
            answer.give()
    bench.broker.send([Outgoing(Route("celery"), b"garbage")])

    assert len(answers) == 1
    if method not in ("cancel_consumer", "rate_limit", "time_limit"):
        assert_that_it_goes_on(bench)


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(st.dictionaries(st.sampled_from(OPTIONS), values, max_size=3))
def test_a_task_of_any_options_is_refused_or_its_run_ends(
    options: dict[str, Any],
) -> None:
    bench = ready()
    try:
        task: Any = bench.app.task(name="proj.odd", **options)
        task(lambda: "ran").delay()
    except (BeatdError, TypeError, ValueError):
        return  # where it is written
    bench.run()

    assert_that_it_goes_on(bench)
