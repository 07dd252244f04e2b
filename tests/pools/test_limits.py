"""The soft time limit hits the block that takes too long, and nothing after it."""

import cProfile
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.limits import soft_limit
from tests.servers import PATIENCE


def here(test: Callable[[], None]) -> None:
    test()


def in_a_thread(test: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            test()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.fixture(params=[here, in_a_thread])
def somewhere(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], None]:
    run: Callable[[Callable[[], None]], None] = request.param
    return run


def be_busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


Somewhere = Callable[[Callable[[], None]], None]


def test_a_block_that_takes_too_long_is_told(somewhere: Somewhere) -> None:
    def test() -> None:
        with pytest.raises(SoftTimeLimitExceeded), soft_limit(0.02):
            be_busy(PATIENCE)

    somewhere(test)


def test_it_is_told_once(somewhere: Somewhere) -> None:
    def test() -> None:
        with soft_limit(0.1):
            with pytest.raises(SoftTimeLimitExceeded):
                be_busy(PATIENCE)
            be_busy(0.2)

    somewhere(test)


def test_nothing_happens_after_a_block_that_ended_in_time(somewhere: Somewhere) -> None:
    def test() -> None:
        # On a busy machine even this block may take that long.
        with suppress(SoftTimeLimitExceeded), soft_limit(0.02):
            pass
        be_busy(0.05)

    somewhere(test)


def test_a_block_that_ends_at_its_limit_is_hit_inside_or_not_at_all(
    somewhere: Somewhere,
) -> None:
    def test() -> None:
        for microseconds in range(1000, 3000, 20):
            seconds = microseconds / 1_000_000
            try:
                with soft_limit(0.002):
                    be_busy(seconds)
            except SoftTimeLimitExceeded:
                pass
            be_busy(0.0005)

    somewhere(test)


@pytest.mark.parametrize("seconds", [None, 0, -1])
def test_no_limit_is_no_limit(seconds: float | None) -> None:
    with soft_limit(seconds):
        be_busy(0.01)


def test_the_handler_of_the_signal_is_put_back() -> None:
    before = signal.getsignal(signal.SIGALRM)

    with soft_limit(1):
        pass

    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_limit_that_struck_leaves_the_interpreter_at_rest() -> None:
    def strike() -> None:
        with suppress(SoftTimeLimitExceeded), soft_limit(0.01):
            while True:
                pass

    thread = threading.Thread(target=strike)
    thread.start()
    thread.join(PATIENCE)
    profile = cProfile.Profile()

    # With an exception left over, CPython 3.11 does not come back from this.
    assert profile.runcall(lambda: 42) == 42
