"""Says what to do where somebody changes a schedule, as Celery's own beat does."""


def fix(kind: type) -> None:
    """Have the schedules of a frozen class say why they take no attribute."""
    setattr(kind, "__setattr__", _refuse)  # noqa: B010 - the class's own is replaced


def _refuse(schedule: object, name: str, value: object) -> None:
    problem = f"{schedule!r} is a schedule of beatd's: {name!r} cannot be set"
    way = "Celery's beat cannot use it, it needs one of celery.schedules"
    raise AttributeError(f"{problem}; {way}" if name == "app" else problem)
