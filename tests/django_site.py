"""A project of Django with django-celery-beat, and code that fills its tables."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.processes import environment
from tests.switch.files import write

NOWHERE = "redis://127.0.0.1:1/0"

_FILES = {
    "{site}/__init__.py": "",
    "{site}/celery.py": """
        import os
        from celery import Celery
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{site}.settings")
        app = Celery("{site}")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        """,
    "{site}/settings.py": """
        INSTALLED_APPS = ["django_celery_beat"]
        SQLITE = "django.db.backends.sqlite3"
        DATABASES = {{"default": {{"ENGINE": SQLITE, "NAME": "{database}"}}}}
        USE_TZ = {use_tz}
        TIME_ZONE = "Europe/Berlin"
        CELERY_TIMEZONE = "Europe/Berlin"
        CELERY_BROKER_URL = "{url}"
        """,
}

_BEGIN = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
"""


def write_site(
    folder: Path,
    url: str = NOWHERE,
    use_tz: bool = True,
    site: str = "site_of",
    database: str = "db",
) -> None:
    """Write the files of the project, whose tables are not made yet."""
    about = {"url": url, "use_tz": use_tz, "site": site, "database": database}
    files = {
        name.format(**about): text.format(**about) for name, text in _FILES.items()
    }
    write(folder, files)


def fill(folder: Path, code: str, site: str = "site_of") -> None:
    """Make the tables of the project, and run this code in it."""
    env = environment(DJANGO_SETTINGS_MODULE=f"{site}.settings")
    env["PYTHONPATH"] += os.pathsep + str(folder)
    words = [sys.executable, "-W", "ignore", "-c", _BEGIN + dedent(code)]
    subprocess.run(words, cwd=folder, env=env, check=True)
