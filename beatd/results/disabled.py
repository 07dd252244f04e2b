"""No results: what is stored is dropped, and reading raises."""

from collections.abc import Sequence
from typing import NoReturn

from beatd.errors import ResultUnavailable
from beatd.instant import Span
from beatd.results.base import Meta, Stored


class NoResults:
    """The backend where the settings have none."""

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        """Drop these."""

    def correct(self, metas: Sequence[Meta | Stored]) -> None:
        """Drop these."""

    def load(self, task_ids: Sequence[str]) -> NoReturn:
        raise _refusal()

    def wait(self, task_id: str, timeout: Span | None) -> NoReturn:
        raise _refusal()

    def forget(self, task_id: str) -> None:
        """Nothing is known of any run."""

    def save_group(self, group_id: str, members: object) -> NoReturn:
        raise _refusal()

    def load_group(self, group_id: str) -> NoReturn:
        raise _refusal()

    def forget_group(self, group_id: str) -> None:
        """Nothing is known of any group."""

    def close(self) -> None:
        """Nothing is open."""


def _refusal() -> ResultUnavailable:
    return ResultUnavailable(
        "no results are kept: set result_backend, to redis://... or sqlite:///..."
    )
