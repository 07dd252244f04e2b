"""`beatd check`: all that is wrong with a config, at which line, and the way out."""

import sys
from dataclasses import replace
from typing import Any

import click

from beatd.cli.advice import advice, notes
from beatd.cli.changing import changing_entries
from beatd.cli.findings import Findings, annotation, print_findings
from beatd.cli.options import COLOR, CONFIG, JSON, asked, given, wanted
from beatd.cli.output import screen
from beatd.cli.probes import (
    ask_broker,
    ask_results,
    entries_elsewhere,
    function_problems,
    import_problems,
    schedule_file_problems,
    shelves_elsewhere,
    strange_brokers,
    strange_results,
    task_problems,
    unreached,
)
from beatd.cli.schedule_view import broker_file
from beatd.clock import SystemClock
from beatd.config.loading import examine
from beatd.config.options import Options


@click.command("check", context_settings={"max_content_width": 100})
@CONFIG
@click.option(
    "-b",
    "--broker",
    metavar="[URL]",
    is_flag=False,
    flag_value="",
    help="Ask the broker, or the one at URL, whether it is there.",
)
@click.option("--import", "imports", is_flag=True, help="Import the tasks' modules.")
@click.option("--strict", is_flag=True, help="A warning is as bad as an error.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
)
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    broker: str | None,
    imports: bool,
    strict: bool,
    form: str,
    as_json: bool,
    **_: Any,
) -> None:
    """Say whether the configuration is right, and change nothing.

    Exit status: 0 it is, 1 something is wrong, 78 it cannot be read at all. With
    --quiet nothing else is said.
    """
    if broker == "":
        del context.params["broker"]  # none is named: the config's is meant
    found = _examine(context, imports, ask=broker is not None)
    if not given(context).get("quiet"):
        if as_json or form == "json":
            click.echo(found.document(SystemClock().now()))
        elif form == "github":
            for problem in found.problems:
                click.echo(annotation(problem))
        else:
            print_findings(found, screen(context))
    context.exit(found.status(strict))


def _examine(context: click.Context, imports: bool, ask: bool) -> Findings:
    report = examine(wanted(context))
    config = report.config
    if config is None:
        return Findings(report, report.problems, refused=True)
    strangers = strange_brokers(config)
    # At start these are warnings, whatever they are here.
    doubts = {replace(one, warning=True): one for one in config.source.problems}
    problems = [doubts.get(one, one) for one in report.problems]
    problems += [*strangers, *strange_results(config)]
    problems += advice(config, SystemClock().now())
    problems += unreached(config)
    problems += changing_entries(config, Options.of(asked(context)))
    problems += shelves_elsewhere(config)
    problems += entries_elsewhere(config, ask=ask and not (report.errors or strangers))
    refused = bool(report.errors or strangers)
    answer = ""
    if ask or "schedule_filename" in given(context):
        problems += schedule_file_problems(config)
    if imports:
        problems += import_problems(config)
        problems += function_problems(config)
    if imports or config.source.app is not None:
        problems += task_problems(config)
    if ask and not refused:
        answer, unreachable = ask_broker(config)
        problems += [*unreachable, *ask_results(config)]
    problems.sort(key=lambda one: one.place.line if one.place else sys.maxsize)
    good_to_know = notes(config)
    if not answer and (file := broker_file(config.settings.write_urls[0])):
        good_to_know.insert(0, f"broker: {file}")
    if ask and refused:
        good_to_know.insert(0, "broker: not asked, as settings are wrong")
    return Findings(report, problems, refused, answer, good_to_know)
