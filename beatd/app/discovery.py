"""Modules of tasks that are found in packages, as `autodiscover_tasks` asks."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TypeAlias

from beatd.config import modules

Packages: TypeAlias = Sequence[str] | Callable[[], Sequence[str]] | None
"""Names of packages, or what returns them; None: those of Django's apps."""


class Discovery:
    """The modules to look for, each by its name and the packages that may have it."""

    def __init__(self) -> None:
        self._wanted: list[tuple[Packages, str | None]] = []

    def add(self, packages: Packages, module: str | None) -> None:
        """Look for a module of this name in these packages; None: for the packages."""
        self._wanted.append((packages, module))

    def modules(self) -> Iterator[str]:
        """Yield the names of the modules that exist, without importing them."""
        for packages, module in self._wanted:
            for package in _named(packages):
                name = f"{package}.{module}" if module else package
                if find_spec(package) and find_spec(name):
                    yield name


def _named(packages: Packages) -> Sequence[str]:
    named = packages() if callable(packages) else packages
    return named if named is not None else _django_apps()


def _django_apps() -> list[str]:
    apps = modules.import_module("django.apps").apps
    return [one.name for one in apps.get_app_configs()]
