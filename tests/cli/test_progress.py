"""What a terminal shows of a search that takes long."""

from io import StringIO

import pytest

from beatd.cli.progress import Progress
from beatd.instant import SECOND
from tests.fakes import FakeClock


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def counted(stream: StringIO, clock: FakeClock, **environ: str) -> int:
    """Count 2,500 items twice, each in half a millisecond; return how many came."""
    came = 0
    with Progress("runs found", stream, clock, environ) as progress:
        for part in (range(2500), range(2500)):
            for number in progress.counting(part):
                came += 1
                clock.passed += number % 2
    return came


def test_a_line_tells_how_many_are_found_and_is_gone_at_the_end() -> None:
    terminal = Terminal()

    assert counted(terminal, FakeClock()) == 5000

    *told, end = terminal.getvalue().split("\r")[1:]
    assert told == [f"{n} runs found" for n in (1000, 2000, 3000, 4000, 5000)][1:]
    assert end == "\x1b[K"


@pytest.mark.parametrize(
    ("stream", "environ"), [(StringIO(), {}), (Terminal(), {"TERM": "dumb"})]
)
def test_a_file_and_a_dumb_terminal_have_nothing_of_it(
    stream: StringIO, environ: dict[str, str]
) -> None:
    assert counted(stream, FakeClock(), **environ) == 5000
    assert stream.getvalue() == ""


def test_what_is_quickly_found_is_not_counted_aloud() -> None:
    terminal = Terminal()
    with Progress("runs found", terminal, FakeClock()) as progress:
        assert len([*progress.counting(range(100 * SECOND))]) == 100 * SECOND

    assert terminal.getvalue() == ""
