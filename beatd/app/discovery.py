"""Modules of tasks that are found in packages, as `autodiscover_tasks` asks."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from beatd.config import modules


class Discovery:
    """The modules to look for, each by its name and the packages that may have it."""

    def __init__(self) -> None:
        self._wanted: list[tuple[Sequence[str] | None, str]] = []

    def add(self, packages: Sequence[str] | None, module: str) -> None:
        """Look for a module of this name in these packages; None: in Django's apps."""
        self._wanted.append((packages, module))

    def modules(self) -> Iterator[str]:
        """Yield the names of the modules that exist, without importing them."""
        for packages, module in self._wanted:
            for package in packages if packages is not None else _django_apps():
                if find_spec(package) and find_spec(f"{package}.{module}"):
                    yield f"{package}.{module}"


def _django_apps() -> list[str]:
    apps = modules.import_module("django.apps").apps
    return [one.name for one in apps.get_app_configs()]
