"""`beatd status`: whether the scheduler is well, and what is wrong if not."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from zoneinfo import ZoneInfo

import click
import msgspec

from beatd.cli.options import COLOR, JSON, SOURCE, wanted
from beatd.cli.output import (
    Failure,
    Screen,
    moment,
    screen,
    since,
    together,
    until,
)
from beatd.cli.past import past_view
from beatd.cli.running import NoAnswer, ask, who_leads_with
from beatd.cli.usage import CONFIG, USAGE, Seconds, exit_statuses
from beatd.clock import SystemClock
from beatd.config.loading import Config, Wanted, load
from beatd.config.switches import SCHEDULE_FILE
from beatd.errors import BeatdError, ConfigError, ScheduleFileError
from beatd.instant import SECOND, Instant, delay, duration, span_of
from beatd.scheduler.file_view import view
from beatd.schedules.zones import zone_of
from beatd.service.nodes import has_ended
from beatd.service.offline import offline_status
from beatd.service.site import document_of
from beatd.service.status import (
    HealthProblem,
    QueueStatus,
    Runs,
    Status,
    status_of,
    with_failing,
)
from beatd.service.wiring.answering import ask_workers
from beatd.service.wiring.looking import broker_to_look_at
from beatd.text import counted, escaped, indented_lines, listed

_NAP = SECOND // 2
"""How often to look while waiting for it to be well."""

_LABEL, _LEFT = 11, 60
"""Columns of a line's label, and of what stands left in it."""

_NAMED = 4

_RUNS = 24
"""Runs whose results are looked at: they may be large."""

SILENT = "silent"
"""The kind of the problem that a scheduler runs, and cannot be asked how it is."""

_MOST_ENDS = 1000
"""The last runs of entries of which it is asked whether they failed."""

_NO_TAKERS = "no workers of beatd; Celery's are asked where messages lie"

_STYLES = {"unhealthy": "bad", "degraded": "warning"}


@click.command(
    "status",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, 1, USAGE, CONFIG),
)
@SOURCE
@click.option("--exit-code", is_flag=True, help="Exit with 1 if it is unhealthy.")
@click.option(
    "--wait",
    type=Seconds(0),
    metavar="SECONDS",
    help="Wait until it is healthy, so long at most; implies --exit-code.",
)
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    exit_code: bool,
    wait: float | None,
    as_json: bool,
    quiet: bool | None = None,
    **_: Any,
) -> None:
    """Is the scheduler well: who leads, how late it is, broker, queues, workers.

    Asks the scheduler that runs with this schedule file; where none does, the broker
    and the file. With --quiet it prints nothing, and the exit status is the answer.
    """
    wants, clock, config = wanted(context), SystemClock(), None
    end = clock.elapsed() + span_of(wait or 0)
    try:
        config = load(wants)
    except ConfigError as error:
        look = partial(_status_despite, error, _named_file(wants))
        status = look()
        if not quiet:
            about = f"{error}\n  what follows is what the scheduler says that runs"
            about += f" with {_named_file(wants)}"
            click.echo(f"warning: {indented_lines(about, indent='')}", err=True)
    else:
        look = partial(status_now, config)
        status = look()
    while not status.healthy and (left := end - clock.elapsed()) > 0:
        nap = min(_NAP, left)
        clock.wait(SimpleQueue(), clock.now() + nap, at_most=nap)
        status = look()
    if config and not quiet:
        status = _with_runs(config, status)
    if as_json:
        click.echo(msgspec.json.format(document_of(status), indent=2))
    elif not quiet:
        out = screen(context)
        for line in lines_of(status, out):
            out.say(line.rstrip())
    if (exit_code or quiet or wait is not None) and not status.healthy:
        context.exit(1)


def status_now(config: Config) -> Status:
    """Return the snapshot of the scheduler that runs, else what can be told of it.

    Raises ConfigError and Failure.
    """
    path = Path(config.settings.beat_schedule_filename)
    said, problem = _said(path)
    if said:
        return said
    status = _offline(config, path)
    if problem:
        text = f"a scheduler has the socket beside {path}, and is silent: {problem}"
        command = "ps, and the scheduler's log: it may be stopped, or hang"
    elif who := who_leads_with(path):
        text = f"{who} runs with {path}, and has no socket at which to be asked"
        command = "the scheduler's log, which says why"
    else:
        return status
    silent = HealthProblem(
        kind=SILENT,
        text=text,
        command=command,
        # Who leads, and has no socket, does what it is there for.
        unhealthy=bool(problem) or status.leader is None,
    )
    others = [one for one in status.problems if one.kind != "no_scheduler"]
    return msgspec.structs.replace(status, problems=[silent, *others])


def _said(path: Path) -> tuple[Status | None, str]:
    """Return the snapshot of the scheduler that has a schedule file, if it says one.

    Else why it says none, though it is there.
    """
    try:
        answer = ask(path, "/status")
        if answer is not None and answer.well:
            return status_of(answer.body), ""
    except NoAnswer as error:
        return None, str(error)
    except ValueError:
        return None, "it is of another version of beatd: restart it"
    return None, "it does not say how it is" if answer else ""


def _status_despite(error: ConfigError, path: Path) -> Status:
    """Return the snapshot of the scheduler that runs, with a config of before.

    Raises the error with which the config cannot be used now, where none answers.
    """
    try:
        said, _ = _said(path)
    except Failure:  # it may not be asked by this user
        said = None
    if said is None:
        raise error
    return said


def _named_file(wants: Wanted) -> Path:
    """Return the schedule file that is meant where the config does not name one."""
    return Path(str(wants.command_line.get("beat_schedule_filename", SCHEDULE_FILE)))


def _with_runs(config: Config, status: Status) -> Status:
    """Return the snapshot with what the results tell, if broker and results answer."""
    if not status.broker.answers:
        return status
    try:
        past = past_view(config)
        runs, failing = past.summary(_RUNS), past.failing(_MOST_ENDS)
    except (BeatdError, Failure) as error:
        click.echo(f"no runs: {error}", err=True)
        return status
    return with_failing(msgspec.structs.replace(status, runs=runs), failing)


def _offline(config: Config, path: Path) -> Status:
    try:
        file = view(path) if path.exists() else None
    except (OSError, ScheduleFileError) as error:
        raise Failure(str(error)) from error
    broker = broker_to_look_at(config)
    takers = partial(ask_workers, config.settings, broker) if broker else dict
    try:
        return offline_status(config, file, broker, SystemClock(), takers)
    finally:
        if broker:
            broker.close()


# For people ------------------------------------------------------------------------


def lines_of(status: Status, out: Screen) -> Iterator[str]:
    """Yield the lines that say how it is."""
    now, zone = round(status.generated_ts * SECOND), zone_of(status.config.zone)
    yield _head(status, now, out)
    yield from _line("leader", _leader(status, now, zone), _role(status), out)
    yield from _line("schedule", _schedule(status, now, zone), _states(status), out)
    yield from _line("lag", _lag(status), _next(status, now), out)
    if status.runs:
        yield from _line("runs", _runs(status.runs), _run_time(status.runs), out)
    yield from _line("broker", _broker(status, now), _risks(status), out)
    yield from _line("queues", _queues(status), _takers(status), out)
    if status.workers:
        yield from _line("workers", _holds(status), "", out)
    for number, one in enumerate(status.problems):
        text = escaped(one.text)
        if one.command:
            text += f" {together(escaped(f'(see: {one.command})'))}"
        yield from _wrapped("" if number else "problems", text, out)
    yield from _wrapped("source:", escaped(_source(status)), out)


def _line(label: str, left: str, right: str, out: Screen) -> Iterator[str]:
    """Yield a line of two halves; two lines where they do not fit beside each other."""
    lead = f"  {label:{_LABEL}}"
    width = out.width
    if not right:
        yield lead + left
    elif len(left) < _LEFT - 2 and (
        width is None or len(lead) + _LEFT + len(right) <= width
    ):
        yield f"{lead}{left:{_LEFT}}{right}"
    else:
        yield lead + left
        yield " " * len(lead) + right


def _wrapped(label: str, text: str, out: Screen) -> Iterator[str]:
    """Yield a text that may be long as lines that fit."""
    lead = f"  {label:{_LABEL}}"
    yield from out.wrapped(lead + text, len(lead)).split("\n")


def _head(status: Status, now: Instant, out: Screen) -> str:
    parts = [f"version {status.version}"]
    if status.loop:
        up = duration(max(now - round(status.loop.started_ts * SECOND), 0))
        parts.insert(0, f"up {up}")
    word = status.state
    styled = out.style(word, like=_STYLES.get(word, ""))
    about = "   ".join(parts)
    column = _LABEL + 2 + _LEFT
    if out.width is not None:
        column = min(column, out.width - len(about))
    return f"{styled}{' ' * max(column - len(word), 3)}{about}"


def _leader(status: Status, now: Instant, zone: ZoneInfo) -> str:
    leader = status.leader
    if leader is None:
        return "nobody"
    text = escaped(leader.name)
    if leader.term is not None:
        text += f", term {leader.term}"
    if leader.since_ts is not None:
        text += f", since {moment(round(leader.since_ts * SECOND), now, zone)}"
    return text


def _role(status: Status) -> str:
    """Return who stands by, and when the loop of this scheduler turned."""
    here = f"{status.host} pid {status.pid}"
    named = [
        f"{escaped(one.name)} ({duration(round(one.heard * SECOND))} ago)"
        for one in status.standbys
    ]
    if status.role == "standby" and here not in (one.name for one in status.standbys):
        named.insert(0, escaped(here))
    shown = [f"standby: {listed(named, _NAMED)}"] if named else []
    if status.role == "neither":
        shown.append(f"{escaped(here)} asks for the lead")
    if status.loop:
        turned = duration(round(status.loop.age * SECOND))
        shown.append(f"loop turned {turned} ago")
    return ", ".join(shown)


def _schedule(status: Status, now: Instant, zone: ZoneInfo) -> str:
    text = counted(status.entries.total, "entry")
    if status.config.digest:
        text += f", revision {status.config.digest[:4]}"
    if status.config.loaded_ts is not None:
        text += f", loaded {moment(round(status.config.loaded_ts * SECOND), now, zone)}"
    return text


def _states(status: Status) -> str:
    entries = status.entries
    numbers = {
        "bad": len(entries.bad),
        "refused": len(entries.refused),
        "held": len(entries.held),
        "paused": entries.paused,
        "over": entries.over,
    }
    parts = [f"{number} {state}" for state, number in numbers.items() if number]
    if status.uncertain:
        parts.append(f"{counted(status.uncertain, 'slot')} uncertain")
    return ", ".join(parts)


def _lag(status: Status) -> str:
    if status.lag is None and status.role == "none":
        return "not known here: only a scheduler that runs counts it"
    if status.lag is None:
        return "nothing was emitted in the last hour"
    half, most = (duration(round(x * SECOND)) for x in (status.lag.p50, status.lag.p99))
    return f"p50 {half}, p99 {most} over the last hour"


def _runs(runs: Runs) -> str:
    failed = f", {runs.failed} failed" if runs.failed else ""
    return f"{runs.ended} of the last {runs.sent} ended{failed}"


def _run_time(runs: Runs) -> str:
    return "" if runs.p50 is None else f"ran p50 {delay(round(runs.p50 * SECOND))}"


def _next(status: Status, now: Instant) -> str:
    for word, due in (("due", status.overdue), ("next", status.next)):
        if due is not None:
            at = round(due.at_ts * SECOND)
            when = until(at, now) if at > now else f"for {since(at, now)}"
            return f"{word}: {escaped(due.entry)} {when}"
    return ""


def _broker(status: Status, now: Instant) -> str:
    broker = status.broker
    parts = [broker.server, broker.url]
    if broker.server and broker.url.partition("/")[2].strip("/") in broker.server:
        parts = [broker.server]
    if not broker.answers:
        lasts = ""
        if broker.away_since_ts is not None:
            lasts = f" for {since(round(broker.away_since_ts * SECOND), now)}"
        parts.append(f"away{lasts}")
    elif broker.round_trip is not None:
        parts.append(f"{broker.round_trip * 1000:.1f} ms")
    if broker.promise == "at-least-once":
        parts.append("at least once")
    return escaped(", ".join(filter(None, parts)))


def _risks(status: Status) -> str:
    risks = len(status.broker.risks)
    return counted(risks, "risk") if risks else ""


def _queues(status: Status) -> str:
    shown = [_queue(one) for one in status.queues]
    return listed(shown, _NAMED) or "none known"


def _queue(queue: QueueStatus) -> str:
    length = "?" if queue.length is None else queue.length
    text = f"{escaped(queue.name)} {length}"
    if queue.oldest is not None:
        text += f" (oldest {duration(round(queue.oldest * SECOND))})"
    return text


def _takers(status: Status) -> str:
    takers = Counter({one.name: len(one.workers) for one in status.queues})
    shown = [f"{number} on {escaped(name)}" for name, number in (+takers).most_common()]
    if not shown:
        return "" if status.workers else _NO_TAKERS
    return f"workers: {listed(shown, _NAMED)}"


def _holds(status: Status) -> str:
    shown = [
        f"{escaped(one.name)} holds {one.holds}{', not heard of' * one.lease_over}"
        for one in status.workers
    ]
    return listed(shown, _NAMED)


def _source(status: Status) -> str:
    if status.source == "scheduler":
        state = status.config.state_file
        return f"scheduler pid {status.pid} on {status.host}, state file {state}"
    leads = "no scheduler runs with it"
    if any(one.kind == SILENT for one in status.problems):
        leads = "the scheduler that runs with it does not answer"
    elif status.leader and not has_ended(status.leader.name):
        leads += "; the one that leads has another: --schedule-filename"
    return f"{status.source} {status.config.state_file}; {leads}"
