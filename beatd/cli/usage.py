"""Errors of usage on the command line: what is wrong, and the way out."""

from collections.abc import Callable, Sequence
from typing import Any

import click

USAGE, NOTHING, UNAVAILABLE, CONFIG = 2, 3, 75, 78
"""Exit statuses; two are of `sysexits.h`: EX_TEMPFAIL, EX_CONFIG."""

_MEANINGS = {
    0: "fine",
    1: "the thing asked about is bad",
    USAGE: "usage",
    NOTHING: "nothing matched",
    UNAVAILABLE: "broker not reachable",
    CONFIG: "configuration",
}


def exit_statuses(*codes: int) -> str:
    """Return what these exit statuses mean, or what all do: the end of a help text."""
    listed = [f"{code} {_MEANINGS[code]}" for code in codes or _MEANINGS]
    return f"Exit status: {', '.join(listed)}."


class Whole(click.IntRange):
    """A whole number, called so in the error for a value that is none."""

    name = "whole number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        from beatd.bounds import count_of  # `beatd --help` does not need it

        number = super().convert(value, param, ctx)
        try:
            return count_of(number)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds; the bound below is the option's, that above is of all."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        from beatd.bounds import seconds_of

        number = super().convert(value, param, ctx)
        try:
            return seconds_of(number)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class UnknownCommand(click.UsageError):
    """A word where a command's name is expected."""

    def __init__(self, word: str, known: Sequence[str], context: click.Context) -> None:
        super().__init__(f"no such command {word!r}", context)
        self.word = word
        self.known = known


class Commands(click.Group):
    """Commands in the order of their making; for a wrong name, the near one is told."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            raise UnknownCommand(word, self.list_commands(ctx), ctx)
        return super().resolve_command(ctx, args)


def group_of(
    name: str, epilog: str, *, invoke_without_command: bool = False
) -> Callable[[Callable[..., Any]], Commands]:
    """Return a decorator that makes a function the group of commands of this name."""
    return click.group(
        name,
        cls=Commands,
        no_args_is_help=False,
        invoke_without_command=invoke_without_command,
        epilog=epilog,
        context_settings={"max_content_width": 100},
    )


def explained(error: click.UsageError) -> str:
    """Return in beatd's words what is wrong with the command line.

    One line has the cause and one the way out, as in every error of beatd's.
    """
    context = error.ctx
    called = context.command_path if context else "beatd"
    match error:
        case UnknownCommand(word="beat"):
            near, way = "the scheduler runs without a command: beatd", "all commands"
            message = error.message
        case UnknownCommand():
            near, way = _near(error.word, error.known), "all commands"
            message = error.message
        case click.NoSuchOption():
            near, way = _near(error.option_name, _options(context)), "all options"
            message = f"no such option {error.option_name!r}"
        case _:
            near, way = "", "how it is used"
            message = _ours(error.format_message())
    hint = f"{way}: {called} --help"
    return f"{message}\n  {f'{near}   {hint}' if near else hint}"


def _options(context: click.Context | None) -> list[str]:
    parameters = context.command.get_params(context) if context else []
    return [
        word
        for parameter in parameters
        for word in (*parameter.opts, *parameter.secondary_opts)
        if word.startswith("-") and not getattr(parameter, "hidden", False)
    ]


def _near(word: str, known: Sequence[str]) -> str:
    from beatd.config.settings import did_you_mean  # `beatd --help` does not need it

    return did_you_mean(word, known, likeness=0.6)


def _ours(message: str) -> str:
    """Return a sentence of click's in beatd's style: no capital, no full stop."""
    return f"{message[:1].lower()}{message[1:].rstrip('.')}"
